"""Keep pictures that were large enough and not too long."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..options import check_number, check_whole
from ..stage import Filter


@dataclass(frozen=True)
class ImageSize(Filter, name="image_size"):
    """Keep pairs whose picture, as it was found, has a sensible size and shape.

    Source: DataComp (arXiv 2304.14108), basic filtering.
    """

    min_side_px: int = 200  # DataComp; shorter side
    max_aspect: float = 3.0  # DataComp; longer side over shorter side

    reads = ("original_width", "original_height")
    thresholds = ("min_side_px", "max_aspect")

    def __post_init__(self) -> None:
        check_whole(self, "min_side_px", 0)
        check_number(self, "max_aspect", 1)

    def keep(self, pairs: pa.Table) -> pa.BooleanArray:
        """Keep pairs with a size inside both limits."""
        small, long = self._faults(pairs)
        return pa.array(~small & ~long)

    def reason(self, dropped: pa.Table) -> pa.Array:
        """Name the first limit that is broken; "missing" where no size is known."""
        small, _ = self._faults(dropped)
        known = pc.and_(*(pc.is_valid(dropped[column]) for column in self.reads)).to_numpy()
        return pa.array(np.where(~known, "missing", np.where(small, "small", "aspect")))

    def _faults(self, pairs: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        sides = [pc.fill_null(pairs[c].cast(pa.float64()), 0).to_numpy() for c in self.reads]
        short, long = np.minimum(*sides), np.maximum(*sides)
        # A side of 0 px is what is left of an unknown size: small under every limit.
        small = short < max(self.min_side_px, 1)
        return small, long / np.maximum(short, 1) > self.max_aspect
