"""Exact selection over parts, against a sort of everything in one place."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate import radix
from breadth.curate.stages.random_subset import RandomSubset
from breadth.curate.stages.top_fraction import TopFraction
from breadth.loaders.errors import RecipeError


def table(column: str, values: pa.Array) -> pa.Table:
    """Make pairs with one column of values."""
    return pa.table({"uid": [f"{i:032x}" for i in range(len(values))], column: values})


def select(stage, pairs: pa.Table, cuts: list[int]) -> np.ndarray:
    """Do what the engine does: merge the parts' sketches look by look, then judge by part."""
    borders = [0, *sorted(cuts), len(pairs)]
    parts = [pairs.slice(a, b - a) for a, b in pairwise(borders)]
    states: tuple[np.ndarray, ...] = ()
    for _ in range(stage.passes):
        sketches = [stage.sketch(part, states) for part in parts]
        assert all(s.dtype == np.int64 for s in sketches)
        states = (*states, np.sum(sketches, axis=0))
    return np.concatenate([stage.keep(part, states).to_numpy(False) for part in parts])


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.one_of(
            st.none(),
            st.sampled_from([0.0, -0.0, 1.5, -1.5, float("nan"), float("inf"), -float("inf")]),
            st.floats(allow_nan=True),
        ),
        max_size=60,
    ),
    fraction=st.floats(0, 1),
    cut=st.integers(0, 60),
)
def test_top_fraction_keeps_what_a_sort_would(values, fraction, cut):
    """The kept values are the highest round(fraction * n) of those that are numbers."""
    pairs = table("score", pa.array(values, pa.float64()))
    kept = select(TopFraction("score", fraction), pairs, [min(cut, len(values))])
    numbers = np.array([v for v in values if v is not None and v == v], np.float64)
    wanted = np.sort(numbers)[::-1][: round(fraction * len(numbers))]
    got = [values[row] for row in np.flatnonzero(kept)]
    assert None not in got
    assert np.array_equal(np.sort(np.array(got, np.float64))[::-1], wanted)


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.bool_()]
)
def test_order_is_kept_for_every_type_of_number(kind):
    """Unsigned keys sort as the numbers do, from the least to the greatest of the type."""
    small = [-2, -1, 0, 1, 2]
    values = {
        pa.uint64(): [0, 1, 2**63 - 1, 2**63, 2**64 - 1],
        pa.int64(): [-(2**63), -1, 0, 1, 2**63 - 1],
        pa.bool_(): [False, True],
    }.get(kind, [np.float16(v) for v in small] if kind == pa.float16() else small)
    keys, valid = radix.ordered(pa.chunked_array([pa.array(values, kind)]), "x")
    assert valid.all()
    assert (keys[1:] > keys[:-1]).all()


def test_zeros_of_both_signs_tie():
    """0.0 and -0.0 are equal numbers, so they have equal keys; NaN and null have none."""
    keys, valid = radix.ordered(pa.chunked_array([pa.array([0.0, -0.0, np.nan, None])]), "x")
    assert keys[0] == keys[1]
    assert valid.tolist() == [True, True, False, False]


def test_ties_are_broken_exactly_and_independently_of_parts():
    """With many equal values the count is exact, and other cuts and orders keep the same pairs."""
    rng = np.random.default_rng(0)
    pairs = table("score", pa.array(rng.integers(-3, 3, 5000), pa.int32()))
    stage = TopFraction("score", 0.237)
    kept = select(stage, pairs, [])
    assert kept.sum() == round(0.237 * 5000)
    assert np.array_equal(kept, select(stage, pairs, [1, 17, 17, 2500, 4999]))
    order = rng.permutation(5000)
    assert np.array_equal(kept[order], select(stage, pairs.take(order), [100, 3000]))
    values = pairs["score"].to_numpy()
    assert values[kept].min() >= values[~kept].max()


def test_a_column_of_words_is_refused_in_one_line():
    """Ranking strings raises an error that names the column."""
    with pytest.raises(RecipeError, match="'caption' holds string"):
        TopFraction("caption").sketch(table("caption", pa.array(["a"])), ())


@pytest.mark.parametrize("options", [{"fraction": 0.313}, {"pairs": 700}, {"pairs": 9000}])
def test_random_subset_is_exact_and_independent_of_parts(options):
    """The number kept is exact; the draw depends on neither order nor parts, but on the seed."""
    pairs = table("x", pa.array(range(4000)))
    stage = RandomSubset(**options)
    kept = select(stage, pairs, [])
    assert kept.sum() == min(options.get("pairs", round(0.313 * 4000)), 4000)
    order = np.random.default_rng(1).permutation(4000)
    assert np.array_equal(kept[order], select(stage, pairs.take(order), [3, 2000]))
    if kept.sum() < 4000:
        assert not np.array_equal(kept, select(RandomSubset(**options, seed=1), pairs, []))


def test_random_subsets_of_one_seed_are_nested_and_even():
    """A smaller draw lies inside a larger one, and every stretch of uids is drawn from alike."""
    pairs = table("x", pa.array(range(8000)))
    small = select(RandomSubset(pairs=1000), pairs, [])
    large = select(RandomSubset(pairs=4000), pairs, [])
    assert not (small & ~large).any()
    tenths = large.reshape(10, 800).sum(axis=1)
    # Hypergeometric: mean 400, standard deviation 13.4; five of them on each side.
    assert (abs(tenths - 400) < 67).all()


@pytest.mark.parametrize("options", [{}, {"fraction": 0.5, "pairs": 3}, {"fraction": 1.2}])
def test_random_subset_wants_exactly_one_amount(options):
    """Neither, both or an impossible amount is refused."""
    with pytest.raises(RecipeError, match="random_subset: "):
        RandomSubset(**options)


def test_nothing_to_choose_from_is_no_error():
    """An empty pool and a column without a value keep nothing."""
    assert not select(TopFraction("x"), table("x", pa.array([None] * 3, pa.float32())), [1]).any()
    assert len(select(RandomSubset(pairs=5), table("x", pa.array([], pa.int8())), [])) == 0
