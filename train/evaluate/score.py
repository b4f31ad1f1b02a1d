"""What a score is: a mean, how sure it is, and what guessing would give."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any

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

    @classmethod
    def clustered(cls, hits: np.ndarray, groups: np.ndarray, chance: float) -> "Score":
        """Average ``hits`` of which those of a group may go together, as questions on a picture.

        groups: ints [n]. The error is that of drawing other groups.
        """
        value, error = mean_by_group(hits, groups)
        return cls(value, len(hits), error, chance)

    def as_dict(self) -> dict[str, float]:
        """Return the four numbers by name."""
        return asdict(self)


def mean_by_group(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return the mean of values and its standard error where only groups are independent."""
    _, group = np.unique(groups, return_inverse=True)
    return ratio(np.bincount(group, values), np.bincount(group))


def ratio(above_n: np.ndarray, below_n: np.ndarray) -> tuple[float, float]:
    """Return sum(above) / sum(below) over independent items, and its standard error.

    The error is that of the delta method; with ``below`` all 1 it is ``Score.of``'s.
    Source: Cochran, Sampling Techniques (1977), section 2.11.
    """
    total = float(np.sum(below_n))
    if not total:
        return float("nan"), float("nan")
    value = float(np.sum(above_n)) / total
    return value, sqrt(float(np.sum((above_n - value * below_n) ** 2))) / abs(total)


def classified(hits_n: np.ndarray, labels_n: np.ndarray, classes: int) -> Mapping[str, Any]:
    """Score a classification beside its chance, 1 / classes, and the largest class's share.

    labels_n: the right classes, of any kind that can be compared.
    """
    _, counts = np.unique(labels_n, return_counts=True)
    majority = float(counts.max() / len(labels_n)) if len(labels_n) else float("nan")
    score = Score.of(hits_n, 1 / classes).as_dict()
    return {**score, "majority": majority, "classes": classes}


def errors_above(score: Mapping[str, Any], floor: float) -> float:
    """Return how many standard errors a score's ``value`` lies above ``floor``.

    The error is the larger of the score's own, which may be that of groups, and that of guessing at
    ``floor``, so that a score of exactly 0 or 1, whose own error is 0, is not taken for certain.
    """
    guessing = sqrt(floor * (1 - floor) / score["n"])
    error = max(score["standard_error"], guessing)
    return float((score["value"] - floor) / error) if error else 0.0


def without_nan(value: Any) -> Any:
    """Return scores with None where there is no number, as of no items: JSON has no NaN."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return value
