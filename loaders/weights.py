"""Mix a folder's pairs: how often each is visited in an epoch, by weights on its columns."""

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from .errors import PoolError
from .predicate import column_table, parse
from .shuffle import keys_of, mixed

if TYPE_CHECKING:
    from .folder import Folder

MAX_WEIGHT = 1000.0
UNIT_BITS = 32  # visits are counted in 2^-32, so that sums are exact


def resolve_weights(
    folder: "Folder", rows: np.ndarray, weights: Mapping[str, float] | None
) -> np.ndarray | None:
    """Return the mean visits of each of ``rows`` in an epoch: float64 [rows]; None is once each.

    A pair's visits are the product of the weights whose expression it fulfils; 1 without any.
    Raises PoolError for a wrong expression or weight. Cost: reads the columns that are named.
    """
    if not weights:
        return None
    for text, weight in weights.items():
        if not (isfinite(weight) and 0 <= weight <= MAX_WEIGHT):
            raise PoolError(
                f"weight {weight} of {text!r} is not between 0 and {MAX_WEIGHT:g}: correct it"
            )
    predicates = [parse(text) for text in weights]
    table = column_table(folder, predicates)
    visits = np.ones(len(rows))
    for predicate, weight in zip(predicates, weights.values(), strict=True):
        visits[predicate.mask(table)[rows]] *= weight
    if visits.max(initial=0) > MAX_WEIGHT:
        raise PoolError(f"a pair's weights give it {visits.max():g} visits, above {MAX_WEIGHT:g}")
    if len(rows) and not total_visits(in_units(visits)):
        raise PoolError("the weights leave no visit to any pair: correct them")
    return visits


def in_units(visits: np.ndarray) -> np.ndarray:
    """Return mean visits as whole numbers of 2^-32: int64."""
    return np.rint(visits * (1 << UNIT_BITS)).astype(np.int64)


def total_visits(units: np.ndarray) -> int:
    """Return how many visits every epoch has: the whole ones and the rounded sum of the rest."""
    parts = int((units & ((1 << UNIT_BITS) - 1)).sum())
    return int((units >> UNIT_BITS).sum()) + _rounded(parts)


def draw_visits(rows: np.ndarray, units: np.ndarray, purpose: str) -> np.ndarray:
    """Return one epoch's visits: rows ascending, each as often as it is visited.

    A mean of 2.3 visits gives two, and a third with probability 0.3; the sum is always
    ``total_visits``. Source: systematic sampling (Madow 1949) of the parts in an order by hash.
    Cost: O(n log n).
    """
    counts = units >> UNIT_BITS
    parts = units & ((1 << UNIT_BITS) - 1)
    total = int(parts.sum())
    draws = _rounded(total)
    if draws:
        order_key, start_key = keys_of(purpose, 2)
        order = np.argsort(mixed(rows, order_key))
        step = total // draws
        start = int(start_key) % (total - (draws - 1) * step)
        ticks = start + step * np.arange(draws)
        hit = order[np.searchsorted(np.cumsum(parts[order]), ticks, side="right")]
        counts = counts + np.bincount(hit, minlength=len(rows))
    return np.repeat(rows, counts)


def _rounded(units: int) -> int:
    return (units + (1 << (UNIT_BITS - 1))) >> UNIT_BITS
