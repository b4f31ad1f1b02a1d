"""Standard errors against repeated draws."""

import numpy as np
import pytest

from breadth.train.evaluate.score import Score, classified, mean_by_group, ratio


def _answers(rng, draws):
    """Questions in groups of 1 to 5 that are mostly all right or all wrong."""
    sizes = rng.integers(1, 6, size=(draws, 150))
    known = rng.random((draws, 150)) < 0.6
    for size, know in zip(sizes, known, strict=True):
        group = np.repeat(np.arange(150), size)
        flip = rng.random(len(group)) < 0.1
        yield (know[group] ^ flip).astype(float), group


def test_the_error_by_group_is_that_of_drawing_other_groups():
    """Answers that go together by picture have the spread that fresh pictures show."""
    rng = np.random.default_rng(0)
    found = [mean_by_group(hits, group) for hits, group in _answers(rng, 1500)]
    values, errors = np.array(found).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.06)
    hits, group = next(_answers(rng, 1))
    assert mean_by_group(hits, group)[1] > 1.4 * Score.of(hits, 0).standard_error


def test_groups_of_one_are_independent_items():
    """With a group for each item the score is that without groups."""
    hits = np.random.default_rng(1).random(80)
    alone = Score.clustered(hits, np.arange(80)[::-1], 0.5)
    assert alone.as_dict() == pytest.approx(Score.of(hits, 0.5).as_dict())


def test_the_error_of_a_ratio_is_that_of_repeated_draws():
    """A ratio of two losses that go together has the spread of fresh items."""
    rng = np.random.default_rng(2)
    below = rng.gamma(4.0, size=(3000, 200))
    above = below * 0.6 + rng.normal(scale=0.3, size=below.shape)
    found = np.array([ratio(a, b) for a, b in zip(above, below, strict=True)])
    assert found[:, 0].mean() == pytest.approx(0.6, abs=0.001)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.06)
    assert np.isnan(ratio(np.zeros(3), np.zeros(3))).all()


def test_the_largest_class_is_that_of_the_labels():
    """A classification carries its chance and what always naming one class would score."""
    found = classified(np.array([1.0, 0, 0, 1]), np.array(["a", "b", "b", "b"]), 5)
    assert (found["value"], found["chance"], found["majority"]) == (0.5, 0.2, 0.75)
