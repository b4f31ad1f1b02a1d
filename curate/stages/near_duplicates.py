"""Keep one pair of those whose pictures look the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ..options import check_name, check_number, check_whole
from ..perceptual import look_at
from ..stage import Matcher

_HASH_BITS = 64
_CELLS_AT_ONCE = 1 << 17  # of the matrix of differences: 1 MB stays in the cache


@dataclass(frozen=True)
class NearDuplicates(Matcher, name="near_duplicates"):
    """Keep one pair of those whose pictures differ by little: re-encoded, resized, retouched.

    Two pictures are near where their DCT hashes differ in at most ``radius_bits`` of 64 bits and
    the mean colours of all four quarters are closer than ``colour_distance``. Hashes are cut into
    ``radius_bits + 1`` bands: two hashes within the radius are equal in one, so none is missed.
    Cost: decodes every picture; about n^2 / 150 comparisons of hashes (100,000 pictures: 1.5 s).
    Source: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010;
    Manku et al., WWW 2007 (bands).
    """

    radius_bits: int = 6  # of 64; see the colour check
    # Euclidean, 8-bit levels. Of 92 pairs of 4,000 distinct drawn scenes within 6 bits this leaves
    # none (the mean of the whole picture 4); re-encoding at quality 30 moves a quarter by 3.2.
    colour_distance: float = 12.0
    prefer: str | None = None

    writes = {"dct_hash": pa.uint64(), "quarter_colours": pa.string()}
    thresholds = ("radius_bits", "colour_distance", "prefer")

    def __post_init__(self) -> None:
        check_whole(self, "radius_bits", 0, 15)  # more makes bands too narrow to be of use
        check_number(self, "colour_distance", 0)
        if self.prefer is not None:
            check_name(self, "prefer")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Name the picture, and the column that says which pair stays."""
        return ("image", *((self.prefer,) if self.prefer else ()))

    def annotate(self, pairs: pa.Table) -> dict[str, pa.Array]:
        """Hash pictures and average their quarters; null where one cannot be decoded."""
        looks = look_at(pairs["image"].to_pylist())
        return {
            "dct_hash": pa.array([look and look.dct_hash for look in looks], pa.uint64()),
            "quarter_colours": pa.array(
                [look and look.quarter_colours for look in looks], pa.string()
            ),
        }

    def keys(self, pairs: pa.Table) -> pa.Table:
        """Put each picture in one bucket per band of its hash."""
        rows = np.flatnonzero(pairs["dct_hash"].is_valid().to_numpy())
        seen = pairs.select(["dct_hash", "quarter_colours"]).take(rows)
        hashes = seen["dct_hash"].to_numpy()
        edges = np.linspace(0, _HASH_BITS, self.radius_bits + 2).round().astype(int)
        buckets = [_band(hashes, low, high) for low, high in pairwise(edges.tolist())]
        bands = len(buckets)
        kind = pa.array(["near"] * (bands * len(rows)), pa.string())
        keys = pa.table(
            {"row": np.tile(rows, bands), "bucket": np.concatenate(buckets), "kind": kind}
        )
        for name, column in zip(seen.column_names, seen.columns, strict=True):
            keys = keys.append_column(name, pa.chunked_array(column.chunks * bands, column.type))
        return keys

    def edges(self, bucket: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compare all pictures of a bucket; the distance is in bits."""
        hashes = bucket["dct_hash"].to_numpy()
        digits = "".join(bucket["quarter_colours"].to_pylist())
        colours = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, 4, 3)
        colours = colours.astype(np.float32)
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
        for left, right, bits in _within(hashes, self.radius_bits):
            apart = colours[left] - colours[right]
            squares = np.einsum("nqc,nqc->qn", apart, apart)
            close = np.maximum.reduce(squares) < self.colour_distance**2
            found.append((left[close], right[close], bits[close]))
        left, right, bits = (np.concatenate(column) for column in zip(*found, strict=True))
        return left, right, bits


def _band(hashes: np.ndarray, low: int, high: int) -> np.ndarray:
    """Name the bucket of bits low to high; buckets of different bands are different."""
    if high - low == _HASH_BITS:
        return hashes
    value = hashes >> np.uint64(low) & np.uint64((1 << (high - low)) - 1)
    return value | np.uint64(low << 32 if high - low <= 32 else 0)


def _within(hashes: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield all pairs of hashes within the radius that there are, a block of rows at a time."""
    block = max(1, _CELLS_AT_ONCE // max(len(hashes), 1))
    for start in range(0, len(hashes), block):
        bits = np.bitwise_count(hashes[start : start + block, None] ^ hashes[None, start:])
        left, right = np.nonzero(bits <= radius)
        upper = left < right
        left, right = left[upper], right[upper]
        if len(left):
            yield left + start, right + start, bits[left, right].astype(np.float32)
