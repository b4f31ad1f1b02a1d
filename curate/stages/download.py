"""Fetch the pictures of a part, resize and encode them; a pair without one keeps its row."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..fetch.check_options import HASHES, NATIVE_ONLY, check_download
from ..fetch.engines import ENGINES
from ..fetch.failures import failed_row
from ..schema import COLUMNS
from ..scratch import Scratch
from ..stage import Filter

FACTS = (
    "status",
    "failure",
    "retryable",
    "error_message",
    "width",
    "height",
    "original_width",
    "original_height",
    "exif",
    "sha256",
    "opt_out",
)
POLICY = (
    "allow_private",
    "use_proxy",
    "user_agent_token",
    "contact",
    "respect_robots",
    "disallowed_header_directives",
    "per_domain_connections",
    "per_domain_per_s",
    "breaker_failures",
    "longest_retry_after_s",
)


@dataclass(frozen=True)
class Download(Filter, name="download"):
    """Fetch, resize and encode every picture; drop the pairs whose picture cannot be had.

    Each link is fetched once a part, whatever the number of its captions. Columns and modes are
    img2dataset's (Beaumont 2021); ``failure`` names what went wrong, ``retryable`` says whether
    ``--retry-failed`` tries again, and ``opt_out`` holds the evidence where somebody forbids it.
    """

    engine: str = "native"  # or img2dataset, whose limits then hold
    image_size: int = 256  # px; what it bounds is said by resize_mode
    resize_mode: str = "keep_ratio"  # the shorter side becomes image_size
    resize_only_if_bigger: bool = True
    resize_quality: str = "fast"  # exact gives img2dataset's pixels, at twice the cost
    upscale_interpolation: str = "lanczos"
    downscale_interpolation: str = "area"
    encode_format: str = "jpg"
    encode_quality: int = 95  # img2dataset's default
    skip_reencode: bool = False  # keep the bytes of pictures that need no resizing
    disable_all_reencoding: bool = False  # keep the bytes of all pictures
    min_image_size: int = 0  # px, shorter side
    max_image_area: float = inf  # px
    max_aspect_ratio: float = inf
    max_pixels: int = 64_000_000  # by the header, before anything is decoded
    svg_side_px: int = 512  # longer side at which SVG, which has no pixels, is rendered
    extract_exif: bool = True
    compute_hash: str = "sha256"  # of the bytes as downloaded; sha256 is there in any case
    verify_hash: tuple[str, ...] = ()  # the pool's column, and the kind of hash it holds
    deadline_s: float = 20.0  # for one try: name, connection, redirects and body
    max_bytes: int = 32 * 2**20
    max_redirects: int = 5
    retries: int = 1  # within the build, after a pause, of what can succeed
    connections: int = 64  # of each running part
    allow_private: bool = False  # fetch from this machine and its private networks too
    use_proxy: bool = False  # the environment's
    user_agent_token: str = "breadth"  # who we are to robots.txt and X-Robots-Tag
    contact: str = ""  # a URL or address that the user agent names
    respect_robots: bool = True
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")
    per_domain_connections: int = 8  # of the whole build; 0 lifts the limit
    per_domain_per_s: float = 25.0  # of the whole build; 0 lifts the limit
    breaker_failures: int = 10  # in a row, after which a host is left alone; 0 never
    longest_retry_after_s: float = 120.0  # that a domain is given when it asks; 0 gives none

    resource = "network"
    thresholds = (  # how it fetches, not what it gets
        "deadline_s",
        "use_proxy",
        "contact",
        "retries",
        "connections",
        "per_domain_connections",
        "per_domain_per_s",
        "breaker_failures",
        "longest_retry_after_s",
    )

    def __post_init__(self) -> None:
        check_download(self)

    @property
    def overlaps(self) -> bool:  # type: ignore[override]
        """img2dataset redirects file descriptors 1 and 2 as it decodes, which are the process's."""
        return self.engine == "native"

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """The link, and the pool's hash where one is to be verified."""
        return ("url", *self.verify_hash[:1])

    @property
    def writes(self) -> Mapping[str, pa.DataType]:  # type: ignore[override]
        """The picture, and what is known of it."""
        facts = {name: COLUMNS[name].type for name in FACTS}
        return {"image": pa.binary(), **facts, self.compute_hash: pa.string()}

    def annotate(self, pairs: pa.Table, *, scratch: Scratch | None = None) -> Mapping[str, Any]:
        """Fetch each distinct URL once and give every row its picture or its failure.

        Without ``scratch`` politeness is this call's own, not a whole build's.
        """
        if scratch is None:
            with tempfile.TemporaryDirectory() as folder:
                return self.annotate(pairs, scratch=_scratch(Path(folder)))
        urls = pc.fill_null(pairs["url"], "").to_pylist()
        times = Counter(urls)
        number_of = {url: number for number, url in enumerate(times)}
        rows, pictures = ENGINES[self.engine](self, times, scratch)
        numbers = np.array([number_of[url] for url in urls], np.int64)
        of_pairs = [rows[number] for number in numbers]
        if self.verify_hash:
            expected = pairs[self.verify_hash[0]].to_pylist()
            of_pairs = [self._verified(r, e) for r, e in zip(of_pairs, expected, strict=True)]
        columns = {
            name: pa.array([row.get(name) for row in of_pairs], kind)
            for name, kind in self.writes.items()
            if name != "image"
        }
        arrived = np.array([row["status"] == "success" for row in of_pairs], bool)
        pictures.lay(np.where(arrived, numbers, -1))
        return {"image": pictures, **columns}

    def _verified(self, row: dict[str, Any], expected: str | None) -> dict[str, Any]:
        """Fail a row whose bytes are not those that the pool has the hash of; null is no hash."""
        found = row.get(self.verify_hash[1])
        if found is None or not expected or found == expected.lower():
            return row
        hashes = {name: row[name] for name in HASHES if name in row}
        return failed_row("hash_mismatch", "hash mismatch") | hashes

    def keep(self, pairs: pa.Table) -> pa.BooleanArray:
        """Keep what arrived and could be decoded."""
        return pc.equal(pairs["status"], "success")

    def reason(self, dropped: pa.Table) -> Any:
        """Say why by the name of the failure."""
        return dropped["failure"]

    def policy(self) -> dict[str, Any]:
        """Return what the owner of a dataset answers for: the manifest states it."""
        return {"engine": self.engine} | {
            name: getattr(self, name) for name in POLICY if self._has(name)
        }

    def _has(self, option: str) -> bool:
        return self.engine == "native" or option not in NATIVE_ONLY


def _scratch(folder: Path) -> Scratch:
    return Scratch(folder, folder, folder, folder / "live.json")
