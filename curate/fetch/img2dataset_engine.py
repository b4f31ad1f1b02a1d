"""Fetch with img2dataset's own downloader and resizer: the compatible engine.

Source: img2dataset (Beaumont 2021), Downloader and Resizer.
"""

import io
import os
import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from breadth.loaders.errors import Failed

from .failures import FAILURES, NOT_DOWNLOADED
from .refused import Refused
from .sniff import is_svg
from .svg import render_svg

FACTS = ("error_message", "width", "height", "original_width", "original_height", "exif", "sha256")


_ALONE = threading.Lock()
"""Its resizer redirects the process's file descriptors 1 and 2 for every picture."""


def fetch_with_img2dataset(
    urls: Sequence[str], resizer: Mapping[str, Any], downloader: Mapping[str, Any], svg_side_px: int
) -> list[dict[str, Any]]:
    """Fetch distinct URLs and return a row for each, in order, with ``image``.

    ``resizer`` and ``downloader`` are arguments of its classes of that name. Raises Failed where
    it gives up on all of them. Cost: some 4 CPU ms a picture, and 6 s to start.
    """
    collected = _Collector(urls)
    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder) / "links.arrow"
        table = pa.table({"url": urls})
        with pa.OSFile(str(links), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        download = _downloader(folder, len(urls), collected, resizer, downloader, svg_side_px)
        # its printed tracebacks are what it does with a pair it loses, which keeps a row here
        printed = io.StringIO()
        with _ALONE, redirect_stdout(printed), redirect_stderr(printed):
            whole, _ = download((0, str(links)))
    if not whole:  # it says so and goes on; were this a result, every pair would be lost
        why = printed.getvalue().strip().splitlines()[-1:] or ["no message"]
        raise Failed(f"img2dataset gave up on a part: {why[0]}")
    return [_typed(collected.by_url.get(url, _LOST)) for url in urls]


_LOST = {"status": NOT_DOWNLOADED, "error_message": "img2dataset returned nothing for this pair"}


def _downloader(
    folder: str,
    count: int,
    collected: "_Collector",
    resizer: Mapping[str, Any],
    downloader: Mapping[str, Any],
    svg_side_px: int,
) -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its import would ask the network
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer

    return Downloader(
        sample_writer_class=collected,
        resizer=_Prepares(Resizer(**resizer), svg_side_px),
        save_caption=False,
        output_folder=folder,
        column_list=["url"],
        number_sample_per_shard=max(count, 2),
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format=resizer["encode_format"],
        **downloader,
    )


class _Collector:
    """img2dataset's sample writer, as it sees it: takes what it hands over, in any order."""

    def __init__(self, urls: Sequence[str]) -> None:
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
            row = {name: facts.get(name) for name in ("status", *FACTS)}
            self.by_url[facts["url"]] = row | {"image": picture}

    def close(self) -> None:
        """Nothing is open: the engine's writer puts the pairs in the part's order."""


class _Prepares:
    """img2dataset's resizer, given what it can decode: SVG rendered, 16 bits made 8."""

    def __init__(self, resizer: Any, side_px: int) -> None:
        self._resizer = resizer
        self._side_px = side_px

    def __call__(self, stream: Any, blur: Any = None) -> Any:
        body = stream.read()
        try:
            if is_svg(body):
                body = render_svg(body, self._side_px)
            elif body.startswith(b"\x89PNG\r\n\x1a\n") and body[24:25] == b"\x10":
                body = _as_8_bit(body)
        except (Refused, ValueError) as error:
            return None, None, None, None, None, str(error)[:80]
        return self._resizer(io.BytesIO(body), blur)


def _as_8_bit(png: bytes) -> bytes:
    """Scale a 16-bit PNG to 8 bits, which img2dataset would clip to white; raises ValueError."""
    import cv2

    pixels: Any = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("Image decoding error")
    scaled = (pixels.astype(np.uint32) + 128) // 257
    return bytes(cv2.imencode(".png", scaled.astype(np.uint8))[1])


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Add the kind of failure, as far as img2dataset's message tells it."""
    name = None if row["status"] == "success" else failure_of(str(row["error_message"] or ""))
    if name is not None and FAILURES[name].status != row["status"]:
        name = "http_error" if row["status"] == NOT_DOWNLOADED else "broken_picture"
    return {**row, "failure": name, "retryable": name is not None and FAILURES[name].retryable}


def failure_of(message: str) -> str:
    """Return the kind of failure that img2dataset's message tells of."""
    code = re.match(r"HTTP Error (\d{3})", message)
    if code:
        return _BY_CODE.get(code[1], "server_error" if code[1] >= "500" else "http_error")
    return next((name for words, name in _BY_WORDS if words in message), "broken_picture")


_BY_CODE = {"404": "not_found", "410": "not_found", "429": "throttled"}
_BY_CODE |= dict.fromkeys(("401", "402", "403", "451"), "forbidden")
_BY_WORDS = (
    ("timed out", "timeout"),
    ("Name or service not known", "dns"),
    ("Temporary failure in name resolution", "dns"),
    ("refused", "connect"),
    ("unreachable", "connect"),
    ("CERTIFICATE", "tls"),
    ("SSL", "tls"),
    ("eset by peer", "broken_off"),
    ("returned nothing", "broken_off"),
    ("X-Robots-Tag", "opt_out"),
    ("hash mismatch", "hash_mismatch"),
    ("image too small", "too_small"),
    ("image area too large", "area"),
    ("aspect ratio too large", "aspect_ratio"),
    ("urlopen error", "connect"),
)
