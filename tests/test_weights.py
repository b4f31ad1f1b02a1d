"""Weights: how often a pair is visited, exactly in sum and rightly on average."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import PoolError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.plan import Order
from breadth.loaders.weights import draw_visits, in_units, resolve_weights, total_visits

PNG = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Write 40 pairs with a score, of which every tenth is null, and a source."""
    path = tmp_path_factory.mktemp("weights")
    pairs = pa.table(
        {
            "uid": [f"{i:032x}" for i in range(40)],
            "caption": [""] * 40,
            "image": [PNG] * 40,
            "score": [None if i % 10 == 9 else i / 40 for i in range(40)],
            "source": ["web" if i % 2 else "book" for i in range(40)],
        }
    )
    write_folder(path, pairs, name="weights", pairs_per_shard=15)
    return open_folder(path)


def test_weights_multiply_where_their_expression_is_true(folder: Folder) -> None:
    """A pair has the product of what it fulfils; an unknown value fulfils nothing."""
    rows = np.arange(5, 40)
    found = resolve_weights(folder, rows, {"score >= 0.5": 3, "source == 'web'": 0.5})
    expected = [
        (3 if r >= 20 and r % 10 != 9 else 1) * (0.5 if r % 2 else 1) for r in rows.tolist()
    ]
    assert found.tolist() == expected
    assert resolve_weights(folder, rows, None) is None
    assert resolve_weights(folder, rows, {}) is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"score > 0": -1.0}, "weight -1.0 of 'score > 0' is not between 0 and 1000"),
        ({"score > 0": float("nan")}, "is not between"),
        ({"scoer > 0": 1.0}, "did you mean score"),
        ({"score > 0": 1000, "score > 0.1": 10}, "gives? it 10000 visits"),
        ({"uid != ''": 0}, "leave no visit"),
    ],
)
def test_wrong_weights_are_one_line(folder: Folder, weights, message: str) -> None:
    """What is no weight, and weights that leave nothing, say so before anything is read."""
    with pytest.raises(PoolError, match=message) as error:
        resolve_weights(folder, np.arange(40), weights)
    assert "\n" not in str(error.value)


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=60),
    st.text(max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_an_epoch_has_the_exact_number_of_visits(means: list[float], purpose: str) -> None:
    """Each pair has its mean rounded down or up, and the sum is the same in every epoch."""
    units = in_units(np.array(means))
    rows = 7 * np.arange(len(means))
    visits = draw_visits(rows, units, purpose)
    assert len(visits) == total_visits(units)
    assert abs(len(visits) - sum(means)) <= 0.5 + 1e-6
    assert (np.diff(visits) >= 0).all()
    counts = np.bincount(visits // 7, minlength=len(means))
    off = counts - np.array(means)
    # Where the parts do not sum to a whole number they are stretched a little to do so.
    parts = sum(mean % 1 for mean in means)
    assert (off > -1 - 1e-6).all()
    assert (off < (1 if round(parts) <= parts else 2) + 1e-6).all()


def test_pairs_are_visited_as_often_as_their_weights_say() -> None:
    """Over 2,000 epochs means of 0.3, 1 and 2.5 are met; those of whole numbers in each one."""
    means = np.tile([0.3, 1.0, 2.5, 0.0], 20)
    units = in_units(means)
    total = np.zeros(80)
    for epoch in range(2000):
        counts = np.bincount(draw_visits(np.arange(80), units, f"{epoch}"), minlength=80)
        assert (counts[means == 1.0] == 1).all()
        assert (counts[means == 0.0] == 0).all()
        total += counts
    assert np.abs(total / 2000 - means).max() < 0.05  # 4.5 sigma of a draw with p = 1/2
    assert total[means == 0.3].mean() / 2000 == pytest.approx(0.3, abs=0.01)


def test_pairs_are_drawn_independently_of_their_neighbours() -> None:
    """With weight 1/2 any two pairs meet in about a quarter of the epochs, neighbours too."""
    units, together = in_units(np.full(40, 0.5)), np.zeros(39)
    for epoch in range(3000):
        chosen = np.bincount(draw_visits(np.arange(40), units, f"{epoch}"), minlength=40)
        together += chosen[1:] * chosen[:-1]
    assert np.abs(together / 3000 - 0.25 * 38 / 39).max() < 0.04


def test_epochs_draw_unlike_pairs_and_repeat_them() -> None:
    """Each epoch has its own draw, which a second order of the same kind gives again."""
    shard_of = np.repeat(np.arange(5), 20).astype(np.int32)
    options = {"seed": 0, "digest": "d", "visits": np.full(100, 0.5)}
    order, again = (Order(shard_of, np.arange(100), **options) for _ in range(2))
    first, second = order.rows(0, 50), order.rows(50, 100)
    assert len(order) == 50
    assert len(np.intersect1d(first, second)) < 45
    assert again.rows(50, 100).tolist() == second.tolist()
