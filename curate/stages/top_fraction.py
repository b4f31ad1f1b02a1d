"""Keep the pairs with the highest values in any column."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..options import check_name, check_number
from ..radix import LOOKS_PER_WORD, count, first, ordered, uid_hash
from ..stage import Selector


@dataclass(frozen=True)
class TopFraction(Selector, name="top_fraction"):
    """Keep exactly ``round(fraction * n)`` of the n pairs that have a value, the highest.

    Ties are broken by a hash of the uid; pairs without a value are dropped.
    Cost: eight looks at one column, each a sketch of 512 KB; later looks only where values tie.
    Source: DataComp (arXiv 2304.14108), CLIP score filtering keeps the top 30 %.
    """

    column: str
    fraction: float = 0.3  # DataComp

    passes = 2 * LOOKS_PER_WORD
    thresholds = ("column", "fraction")
    example: ClassVar[Mapping[str, Any]] = {"column": "original_width", "fraction": 0.3}

    def __post_init__(self) -> None:
        check_name(self, "column")
        check_number(self, "fraction", 0, 1)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Name the column, and the uid for ties."""
        return tuple(dict.fromkeys((self.column, "uid")))

    def sketch(self, pairs: pa.Table, states: tuple[np.ndarray, ...]) -> np.ndarray:
        """Count the next 16 bits of the undecided values, then of their uids' hashes."""
        values, valid = ordered(pairs[self.column], self.column)
        pairs, values = pairs.filter(pa.array(valid)), values[valid]
        return count(self._words(values, pairs, len(states) + 1), states, self._wanted)

    def keep(self, pairs: pa.Table, states: tuple[np.ndarray, ...]) -> pa.BooleanArray:
        """Keep the pairs above the border that the looks have found."""
        values, valid = ordered(pairs[self.column], self.column)
        return pa.array(
            valid & first(self._words(values, pairs, len(states)), states, self._wanted)
        )

    def _words(self, values: np.ndarray, pairs: pa.Table, looks: int) -> list[np.ndarray]:
        # The highest value comes first. Uids are hashed only once values alone do not decide.
        words = [~values]
        if looks > LOOKS_PER_WORD:
            words.append(uid_hash(pairs["uid"]))
        return words

    def _wanted(self, n: int) -> int:
        return round(self.fraction * n)
