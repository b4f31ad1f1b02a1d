"""Keep one pair of those with the same picture, bit by bit."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pyarrow as pa

from breadth.loaders.errors import RecipeError

from ..options import check_flag, check_name
from ..perceptual import decode_pixels
from ..stage import Matcher


def _pixel_sha256(encoded: bytes | None) -> str | None:
    pixels = decode_pixels(encoded)
    if pixels is None:
        return None
    return sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class ExactDuplicates(Matcher, name="exact_duplicates"):
    """Keep one pair per file, per decoded picture and, where asked, per caption.

    Files are compared as they were found where the pool knows their ``sha256``, else as they are
    stored. Pictures are compared as decoded, so the same pixels in another format are equal.
    Cost: ``same_pixels`` decodes every picture.
    """

    same_bytes: bool = True
    same_pixels: bool = True
    same_caption: bool = False  # different pictures may share a caption: see caption_repeats
    prefer: str | None = None

    capacity = 1
    reads_if_there = ("sha256",)
    thresholds = ("same_bytes", "same_caption", "prefer")

    def __post_init__(self) -> None:
        for option in ("same_bytes", "same_pixels", "same_caption"):
            check_flag(self, option)
        if not (self.same_bytes or self.same_pixels or self.same_caption):
            raise RecipeError("exact_duplicates: nothing to compare; leave same_bytes true")
        if self.prefer is not None:
            check_name(self, "prefer")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Name the columns to compare, and the one that says which pair stays."""
        return ("image", "caption", *((self.prefer,) if self.prefer else ()))

    @property
    def writes(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        """Name the hashes that are stored; pixels only where they are compared."""
        pixels = {"pixel_sha256": pa.string()} if self.same_pixels else {}
        return {"file_sha256": pa.string(), **pixels}

    def annotate(self, pairs: pa.Table) -> dict[str, pa.Array]:
        """Hash files and pixels; null where there is no picture."""
        images = pairs["image"].to_pylist()
        known = (
            pairs["sha256"].to_pylist() if "sha256" in pairs.column_names else [None] * len(images)
        )
        files = [
            k or (sha256(image).hexdigest() if image else None)
            for k, image in zip(known, images, strict=True)
        ]
        hashes = {"file_sha256": pa.array(files, pa.string())}
        if self.same_pixels:
            pixels = [_pixel_sha256(image) for image in images]
            hashes["pixel_sha256"] = pa.array(pixels, pa.string())
        return hashes

    def keys(self, pairs: pa.Table) -> pa.Table:
        """Put pairs in a bucket by each hash (its first 64 bits)."""
        keys = []
        if self.same_bytes:
            keys.append(_buckets("bytes", pairs["file_sha256"].to_pylist()))
        if self.same_pixels:
            keys.append(_buckets("pixels", pairs["pixel_sha256"].to_pylist()))
        if self.same_caption:
            captions = pairs["caption"].to_pylist()
            hashes = [None if c is None else sha256(c.encode()).hexdigest() for c in captions]
            keys.append(_buckets("caption", hashes))
        return pa.concat_tables([*keys, _buckets("bytes", [])])


def _buckets(kind: str, hashes: list[str | None]) -> pa.Table:
    rows = np.array([row for row, value in enumerate(hashes) if value], np.int64)
    values = np.array([int(value[:16], 16) for value in hashes if value], np.uint64)
    return pa.table(
        {"row": rows, "bucket": values, "kind": pa.array([kind] * len(rows), pa.string())}
    )
