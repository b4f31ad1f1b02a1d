"""What paired differences say, and how many draws it would take for them to say more."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, isfinite, sqrt

import numpy as np
from scipy.stats import chi2, nct, t

MOST_DRAWS = 1_000_000
ERRORS_ABOVE_FLOOR = 3


@dataclass(frozen=True)
class Spread:
    """The standard deviation of n differences and its 95 % interval, in the differences' unit."""

    n: int
    sd: float
    low: float
    high: float


def spread(differences: Sequence[float]) -> Spread | None:
    """Return the sample standard deviation and its chi-square interval; None below two draws.

    The interval takes the differences to be independent and normal. With three draws it reaches
    from 0.5 to 6.3 times the estimate.
    """
    n = len(differences)
    if n < 2:
        return None
    sd = float(np.std(differences, ddof=1))
    low, high = (sd * sqrt((n - 1) / chi2.ppf(q, n - 1)) for q in (0.975, 0.025))
    return Spread(n, sd, float(low), float(high))


def draws_needed(sd: float, effect: float, power: float = 0.8, level: float = 0.05) -> int:
    """Return the fewest draws for which a two-sided paired t-test finds ``effect``.

    Exact for normal differences with standard deviation ``sd``: the power is that of the
    noncentral t distribution. At least 2, at most MOST_DRAWS.
    """
    if sd == 0:
        return 2
    low, high = 2, MOST_DRAWS
    while low < high:
        middle = (low + high) // 2
        if paired_power(middle, sd, effect, level) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def paired_power(n: int, sd: float, effect: float, level: float = 0.05) -> float:
    """Return the power of a two-sided paired t-test with n differences.

    Only the tail on the side of the effect counts: a wrong sign is no discovery.
    """
    shift = effect / sd * sqrt(n)
    found = float(nct.sf(t.ppf(1 - level / 2, n - 1), n - 1, shift))
    return found if isfinite(found) else 1.0  # scipy gives nan where the shift is enormous


def equal_caption_share(captions: Sequence[str], batch_pairs: int) -> float:
    """Return the expected share of a batch's pairs whose caption another pair of the batch has.

    Exact for a batch drawn without return. Such pairs are negatives of each other that are not.
    """
    n = len(captions)
    batch = min(batch_pairs, n)
    alone = sum(
        count * comb(n - count, batch - 1) / comb(n - 1, batch - 1)
        for count in Counter(captions).values()
    )
    return 1 - alone / n
