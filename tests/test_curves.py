"""Curves: round ticks around all values, and no extreme lost where points are left out."""

from math import log10

import numpy as np
import pytest

from breadth.train.page.curves import MOST_POINTS, Axis, thinned


@pytest.mark.parametrize("seed", range(40))
def test_ticks_are_round_and_around_everything(seed):
    """Ticks lie a step of 1, 2 or 5 times a power of ten apart, the first and last outside."""
    rng = np.random.default_rng(seed)
    low = float(rng.normal() * 10.0 ** rng.integers(-4, 5))
    high = low + float(rng.exponential() * 10.0 ** rng.integers(-3, 5))
    axis = Axis.around(low, high, 4, 0, 1)
    step = axis.ticks[1] - axis.ticks[0]
    factor = step / 10.0 ** np.floor(log10(step * (1 + 1e-6)))
    assert np.isclose(factor, [1, 2, 5], rtol=1e-4).any()
    assert np.allclose(np.diff(axis.ticks), step, rtol=1e-4)
    slack = 1e-6 * step
    assert axis.ticks[0] - slack <= low < axis.ticks[1] + slack
    assert axis.ticks[-2] - slack < high <= axis.ticks[-1] + slack
    assert 2 <= len(axis.ticks) <= 7


@pytest.mark.parametrize("value", [0.0, 14.3, -2.0])
def test_a_constant_has_an_axis(value):
    """Values that are all equal stand between two ticks."""
    axis = Axis.around(value, value, 4, 0, 100)
    assert 0 < axis.place(value) < 100


@pytest.mark.parametrize("n", [1, 2, MOST_POINTS, MOST_POINTS + 1, 5000])
def test_thinning_keeps_ends_spikes_and_order(n):
    """At most MOST_POINTS of the points stay, in order, with both ends and each spike."""
    rng = np.random.default_rng(n)
    values = rng.normal(size=n)
    spikes = rng.choice(n, 5)
    values[spikes] += 100 * rng.choice([-1, 1], 5)
    points = list(enumerate(values.tolist()))
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS and set(kept) <= set(points) and kept == sorted(set(kept))
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert max(values) in [y for _, y in kept] and min(values) in [y for _, y in kept]
    assert n > MOST_POINTS or kept == points
