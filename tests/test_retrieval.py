"""Retrieval with repeated captions against brute force and simulation."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.train.evaluate.retrieval import KS, chance_at, distinct, recall_hits, retrieve


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _first_k_hold_one(similarity, right, k):
    order = sorted(range(len(similarity)), key=lambda i: -similarity[i])
    return any(right[i] for i in order[:k])


def test_it_equals_a_loop_where_nothing_ties():
    """Both directions equal sorting by similarity and looking for a caption equal to its own."""
    rng = np.random.default_rng(0)
    captions = [f"caption {i}" for i in rng.integers(25, size=80)]
    names, _ = distinct(captions)
    pictures, vectors = _unit(rng.normal(size=(80, 6))), _unit(rng.normal(size=(len(names), 6)))
    result = retrieve(pictures, captions, vectors)
    for k in KS:
        by_picture = [
            _first_k_hold_one(vectors @ p, [name == own for name in names], k)
            for p, own in zip(pictures, captions, strict=True)
        ]
        by_caption = [
            _first_k_hold_one(pictures @ v, [own == name for own in captions], k)
            for v, name in zip(vectors, names, strict=True)
        ]
        assert result["picture_to_caption"][f"R@{k}"]["value"] == pytest.approx(np.mean(by_picture))
        assert result["caption_to_picture"][f"R@{k}"]["value"] == pytest.approx(np.mean(by_caption))
    assert result["picture_to_caption"]["items"] == len(names)
    assert result["caption_to_picture"]["queries"] == len(names)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_ties_count_by_expectation(levels, right):
    """With ties the hit is the share of all orders of the tied items that have a hit."""
    right = np.array(right[: len(levels)])
    if not right.any():
        right[0] = True
    similarity = np.array(levels) / 2
    hits = recall_hits(
        np.array([[1.0]]), similarity[:, None], np.array([1]), right.astype(np.int64)
    )[0]
    orders = [
        order
        for order in permutations(range(len(levels)))
        if all(levels[a] >= levels[b] for a, b in pairwise(order))
    ]
    for column, k in enumerate(KS):
        expected = np.mean([right[list(order[:k])].any() for order in orders])
        assert hits[column] == pytest.approx(expected)


def test_a_model_that_sees_nothing_scores_exactly_chance():
    """Equal vectors for everything give each score its own chance."""
    captions = ["a", "a", "b", "c", "c", "c", "d", *"efghijklmnop"]
    names, _ = distinct(captions)
    result = retrieve(np.ones((len(captions), 1)), captions, np.ones((len(names), 1)))
    for way in result.values():
        for k in KS:
            assert way[f"R@{k}"]["value"] == pytest.approx(way[f"R@{k}"]["chance"])


def test_chance_equals_simulated_random_rankings():
    """Chance at k is the share of random orders with one of the right items among the first k."""
    rng = np.random.default_rng(3)
    for n, right in ((12, 1), (12, 4), (30, 25)):
        orders = rng.permuted(np.tile(np.arange(n), (20_000, 1)), axis=1)
        for k in KS:
            found = (orders[:, :k] < right).any(axis=1).mean()
            assert chance_at(n, right, k) == pytest.approx(found, abs=0.015)
    assert chance_at(5, 1, 10) == 1
    assert chance_at(100, 1, 5) == pytest.approx(0.05)


def test_any_picture_with_the_same_caption_is_right():
    """Two pictures of one caption may be found for each other's caption without loss."""
    pictures = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    result = retrieve(pictures, ["dog", "dog", "cat"], np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert result["picture_to_caption"]["R@1"]["value"] == 1
    assert result["caption_to_picture"]["R@1"]["value"] == 1
    assert result["caption_to_picture"]["R@1"]["chance"] == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_more_queries_than_one_chunk_are_scored_alike():
    """Queries beyond the first thousand are scored as the first."""
    rng = np.random.default_rng(4)
    vectors = _unit(rng.normal(size=(1500, 4)))
    own = np.arange(1500)
    assert (recall_hits(vectors, vectors, own, own) == 1).all()
