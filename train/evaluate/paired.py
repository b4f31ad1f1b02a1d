"""The difference that a change makes to the same items, with the error of the difference."""

from math import sqrt

import numpy as np


def difference(before_n: np.ndarray, after_n: np.ndarray) -> dict[str, float]:
    """Average ``after - before`` over items, which are taken to be independent.

    What an item scores before and after goes together, so the error is that of the differences.
    """
    gained = np.asarray(after_n, np.float64) - np.asarray(before_n, np.float64)
    n = len(gained)
    if not n:
        return {"value": float("nan"), "standard_error": float("nan"), "n": 0}
    return {
        "value": float(gained.mean()),
        "standard_error": float(gained.std()) / sqrt(n),
        "n": n,
    }
