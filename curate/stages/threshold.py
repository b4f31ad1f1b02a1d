"""Keep pairs whose value in any column is within limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.errors import RecipeError

from ..options import check_name, check_number
from ..stage import Filter


@dataclass(frozen=True)
class Threshold(Filter, name="threshold"):
    """Keep pairs with ``min <= value <= max`` in a column of numbers; either may be left out.

    A pair without a value is dropped as "missing".
    """

    column: str
    min: float | None = None
    max: float | None = None

    thresholds = ("column", "min", "max")
    example: ClassVar[Mapping[str, Any]] = {"column": "original_width", "min": 64, "max": 2048}

    def __post_init__(self) -> None:
        check_name(self, "column")
        if self.min is None and self.max is None:
            raise RecipeError("threshold: set min, max or both")
        for option in ("min", "max"):
            if getattr(self, option) is not None:
                check_number(self, option)
        if self.min is not None and self.max is not None and self.min > self.max:
            raise RecipeError(f"threshold: min {self.min:g} is above max {self.max:g}")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Name the column."""
        return (self.column,)

    def keep(self, pairs: pa.Table) -> pa.BooleanArray:
        """Keep values inside the limits."""
        values = self._values(pairs)
        inside = ~np.isnan(values)
        if self.min is not None:
            inside &= values >= self.min
        if self.max is not None:
            inside &= values <= self.max
        return pa.array(inside)

    def reason(self, dropped: pa.Table) -> pa.Array:
        """Say on which side of the limits the value is."""
        values = self._values(dropped)
        below = values < self.min if self.min is not None else np.zeros(len(values), bool)
        return pa.array(np.where(np.isnan(values), "missing", np.where(below, "below", "above")))

    def _values(self, pairs: pa.Table) -> np.ndarray:
        column = pairs[self.column]
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise RecipeError(
                f"threshold: column {self.column!r} holds {kind}; name a column of numbers"
            )
        return pc.fill_null(column.cast(pa.float64(), safe=False), np.nan).to_numpy()
