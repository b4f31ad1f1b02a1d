"""Fetch the pictures of a part with img2dataset's own downloader and resizer."""

import io
import os
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.errors import Failed, RecipeError

from ..options import check_flag, check_names, check_whole
from ..schema import COLUMNS
from ..stage import Filter

RESIZE_MODES = ("no", "border", "keep_ratio", "keep_ratio_largest", "center_crop")
FACTS = (
    "status",
    "error_message",
    "width",
    "height",
    "original_width",
    "original_height",
    "exif",
    "sha256",
)


@dataclass(frozen=True)
class Download(Filter, name="download"):
    """Fetch, resize and encode every picture; drop the pairs whose picture cannot be had.

    Each link is fetched once a part, whatever the number of its captions. Statuses are
    img2dataset's, and "lost" for a pair of which it says nothing at all.
    Source: img2dataset (Beaumont 2021), Downloader and Resizer.
    """

    image_size: int = 256  # px; what it bounds is said by resize_mode
    resize_mode: str = "keep_ratio"  # the shorter side becomes image_size
    resize_only_if_bigger: bool = True
    encode_quality: int = 95  # img2dataset's default
    encode_format: str = "jpg"
    svg_side_px: int = 512  # longer side at which SVG, which has no pixels, is rendered
    extract_exif: bool = True
    timeout_s: int = 10  # img2dataset's default; it counts for each read
    retries: int = 0
    thread_count: int = 32
    user_agent_token: str = "breadth"
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")

    resource = "network"
    thresholds = ("timeout_s", "retries", "thread_count")  # how it fetches, not what it gets
    reads = ("url",)
    writes = {"image": pa.binary(), **{name: COLUMNS[name].type for name in FACTS}}

    def __post_init__(self) -> None:
        if self.resize_mode not in RESIZE_MODES:
            raise RecipeError(f"download: resize_mode must be one of {', '.join(RESIZE_MODES)}")
        if self.encode_format not in ("jpg", "png", "webp"):
            raise RecipeError("download: encode_format must be jpg, png or webp")
        for option in ("image_size", "svg_side_px", "timeout_s", "thread_count"):
            check_whole(self, option, 1)
        check_whole(self, "retries", 0)
        check_whole(self, "encode_quality", 0, 100)
        for option in ("resize_only_if_bigger", "extract_exif"):
            check_flag(self, option)
        if not isinstance(self.user_agent_token, str):
            raise RecipeError('download: user_agent_token must be a word, or ""')
        if self.disallowed_header_directives:
            check_names(self, "disallowed_header_directives")

    def annotate(self, pairs: pa.Table) -> Mapping[str, Any]:
        """Fetch each distinct URL once and give every row its picture or its failure."""
        urls = pairs["url"].to_pylist()
        distinct = list(dict.fromkeys(u for u in urls if _is_web(u)))
        found = self._fetch(distinct) if distinct else {}
        rows = [found.get(u) or _failure(u) for u in urls]
        return {n: pa.array([r.get(n) for r in rows], t) for n, t in self.writes.items()}

    def keep(self, pairs: pa.Table) -> pa.BooleanArray:
        """Keep what arrived and could be decoded."""
        return pc.equal(pairs["status"], "success")

    def reason(self, dropped: pa.Table) -> Any:
        """Say why in img2dataset's words, without what differs from pair to pair."""
        return [_reason(message or "") for message in dropped["error_message"].to_pylist()]

    def _fetch(self, urls: list[str]) -> dict[str, dict[str, Any]]:
        collected = _Collector(urls)
        with tempfile.TemporaryDirectory() as folder:
            links = Path(folder) / "links.arrow"
            table = pa.table({"url": urls})
            with pa.OSFile(str(links), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            download = self._downloader(folder, len(urls), collected)
            # its printed tracebacks are what it does with a pair it loses: the row says "lost"
            printed = io.StringIO()
            with redirect_stdout(printed), redirect_stderr(printed):
                whole, _ = download((0, str(links)))
        if not whole:  # it says so and goes on; were this a result, every pair would be "lost"
            why = printed.getvalue().strip().splitlines()[-1:] or ["no message"]
            raise Failed(f"img2dataset gave up on a part: {why[0]}")
        return collected.by_url

    def _downloader(self, folder: str, count: int, collected: "_Collector") -> Any:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its import would ask the network
        from img2dataset.downloader import Downloader
        from img2dataset.resizer import Resizer

        resizer = Resizer(
            self.image_size,
            self.resize_mode,
            self.resize_only_if_bigger,
            encode_quality=self.encode_quality,
            encode_format=self.encode_format,
        )
        return Downloader(
            sample_writer_class=collected,
            resizer=_Prepares(resizer, self.svg_side_px),
            thread_count=self.thread_count,
            save_caption=False,
            extract_exif=self.extract_exif,
            output_folder=folder,
            column_list=["url"],
            timeout=self.timeout_s,
            number_sample_per_shard=max(count, 2),
            oom_shard_count=5,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format=self.encode_format,
            retries=self.retries,
            user_agent_token=self.user_agent_token or None,
            disallowed_header_directives=list(self.disallowed_header_directives) or None,
        )


class _Collector:
    """img2dataset's sample writer, as it sees it: takes what it hands over, in any order."""

    def __init__(self, urls: list[str]) -> None:
        self.by_url: dict[str, dict[str, Any]] = {}
        self._wanted = set(urls)

    def __call__(self, *_: Any) -> "_Collector":
        """Stand in for the class that img2dataset instantiates once a shard."""
        return self

    def write(
        self, picture: bytes | None, _key: str, _caption: None, facts: dict[str, Any]
    ) -> None:
        """Take one pair."""
        if facts["url"] in self._wanted:
            row = {name: facts.get(name) for name in FACTS}
            self.by_url[facts["url"]] = row | {"image": picture}

    def close(self) -> None:
        """Nothing is open: the engine's writer puts the pairs in the part's order."""


class _Prepares:
    """img2dataset's resizer, given what it can decode: SVG rendered, 16 bits made 8."""

    def __init__(self, resizer: Any, side_px: int) -> None:
        self._resizer = resizer
        self._side_px = side_px

    def __call__(self, stream: Any, blur: Any = None) -> Any:
        start = stream.read(1024)
        stream.seek(0)
        try:
            if is_svg(start):
                stream = io.BytesIO(render_svg(stream.read(), self._side_px))
            elif is_deep_png(start):
                stream = io.BytesIO(as_8_bit(stream.read()))
        except ValueError as error:
            return None, None, None, None, None, str(error)[:80]
        return self._resizer(stream, blur)


def is_deep_png(start: bytes) -> bool:
    """Say whether the first bytes are those of a PNG with 16 bits a channel."""
    return start.startswith(b"\x89PNG\r\n\x1a\n") and start[24:25] == b"\x10"


def as_8_bit(png: bytes) -> bytes:
    """Scale a 16-bit PNG to 8 bits, which img2dataset would clip to white; raises ValueError."""
    import cv2

    pixels: Any = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("Image decoding error")
    scaled = (pixels.astype(np.uint32) + 128) // 257
    return bytes(cv2.imencode(".png", scaled.astype(np.uint8))[1])


def is_svg(start: bytes) -> bool:
    """Say whether the first bytes of a file are an SVG document's."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    declared = text.startswith(b"<?xml") and b"<svg" in start
    return declared or text.startswith((b"<svg", b"<!DOCTYPE svg"))


def render_svg(document: bytes, side_px: int) -> bytes:
    """Render an SVG document to PNG, its longer side ``side_px``; raises ValueError.

    resvg runs no scripts. Cost: some milliseconds a document.
    """
    import resvg_py

    text = document.decode("utf-8", "replace")
    # Without dpi, resvg_py finds sizes in pt, mm and cm invalid; 96 is CSS's.
    return bytes(resvg_py.svg_to_bytes(svg_string=text, width=side_px, height=side_px, dpi=96))


def _reason(message: str) -> str:
    """Shorten a message; OpenCV's name a source line and img2dataset's a system error's number."""
    if message.startswith(("OpenCV", "Image decoding error", "cannot reshape")):
        return "cannot be decoded"
    if message.startswith("<urlopen error "):
        message = message.removeprefix("<urlopen error ").removesuffix(">").split("] ")[-1]
    return message[:80] or "no message"


def _is_web(url: str | None) -> bool:
    return bool(url) and str(url).lower().startswith(("http://", "https://"))


def _failure(url: str | None) -> dict[str, Any]:
    if _is_web(url):
        return {"status": "lost", "error_message": "img2dataset returned nothing for this pair"}
    return {"status": "failed_to_download", "error_message": "not an http or https link"}
