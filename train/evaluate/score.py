"""What a score is: a share, how sure it is, and what guessing would give."""

from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np


@dataclass(frozen=True)
class Score:
    """A share of right answers in [0, 1] beside what guessing gives."""

    value: float
    n: int
    standard_error: float
    chance: float

    @classmethod
    def of(cls, hits: np.ndarray, chance: float) -> "Score":
        """Average ``hits`` ([n], each in [0, 1]), which are taken to be independent."""
        n = len(hits)
        spread = float(np.std(hits)) / sqrt(n) if n else float("nan")
        return cls(float(np.mean(hits)) if n else float("nan"), n, spread, chance)

    def as_dict(self) -> dict[str, float]:
        """Return the four numbers by name."""
        return asdict(self)


def errors_above(value: float, n: int, floor: float) -> float:
    """Return how many standard errors ``value`` lies above ``floor``.

    The error is the larger of the score's own and that of guessing at ``floor``, so that a score
    of exactly 0 or 1, whose own error is 0, is not taken for certain.
    """
    own = sqrt(value * (1 - value) / n)
    guessing = sqrt(floor * (1 - floor) / n)
    error = max(own, guessing)
    return (value - floor) / error if error else 0.0
