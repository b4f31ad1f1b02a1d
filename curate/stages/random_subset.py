"""Keep a number of pairs drawn at random."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from breadth.loaders.errors import RecipeError

from ..options import check_number, check_whole
from ..radix import LOOKS_PER_WORD, count, first, uid_hash
from ..stage import Selector


@dataclass(frozen=True)
class RandomSubset(Selector, name="random_subset"):
    """Keep exactly ``round(fraction * n)`` pairs, or ``pairs`` of them (all where there are fewer).

    The draw is by a hash of uid and seed: it depends on neither order nor parts, and with one seed
    a smaller subset lies inside a larger one.
    """

    fraction: float | None = None
    pairs: int | None = None
    seed: int = 0

    reads = ("uid",)
    passes = LOOKS_PER_WORD
    thresholds = ("fraction", "pairs", "seed")
    example: ClassVar[Mapping[str, Any]] = {"fraction": 0.5}

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.pairs is None):
            raise RecipeError("random_subset: set either fraction or pairs")
        if self.fraction is not None:
            check_number(self, "fraction", 0, 1)
        if self.pairs is not None:
            check_whole(self, "pairs", 0)
        check_whole(self, "seed", -(2**63), 2**63 - 1)

    def sketch(self, pairs: pa.Table, states: tuple[np.ndarray, ...]) -> np.ndarray:
        """Count the next 16 bits of the undecided hashes."""
        return count([uid_hash(pairs["uid"], self.seed)], states, self._wanted)

    def keep(self, pairs: pa.Table, states: tuple[np.ndarray, ...]) -> pa.BooleanArray:
        """Keep the pairs whose hashes come first."""
        return pa.array(first([uid_hash(pairs["uid"], self.seed)], states, self._wanted))

    def _wanted(self, n: int) -> int:
        return min(self.pairs, n) if self.pairs is not None else round((self.fraction or 0) * n)
