"""Diversity figures against closed forms, brute force and each other."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.diversity import (
    cluster_entropy,
    compare_diversity,
    distinct_n,
    diversity,
    vendi_score,
)
from breadth.curate.random_features import RandomFeatures
from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import PoolError

ORDERS = (0.5, 1.0, 2.0, 3.5, math.inf)


def brute_force_vendi(rows: np.ndarray, order: float) -> float:
    """Follow the definition: eigenvalues of the n x n cosine kernel over n."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    p = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    p = p[p > 1e-12]
    if order == 1:
        return math.exp(-(p * np.log(p)).sum())
    return 1 / p.max() if math.isinf(order) else (p**order).sum() ** (1 / (1 - order))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from(ORDERS))
def test_vendi_score_is_the_definition_at_every_shape(n, d, seed, order):
    """The dual agrees with the n x n definition whether n or d is larger."""
    rows = np.random.default_rng(seed).standard_normal((n, d))
    assert vendi_score(rows, order) == pytest.approx(brute_force_vendi(rows, order), rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_equal_orthogonal_groups_count_as_groups(order):
    """k orthogonal groups of equal size score k at every order."""
    rows = np.repeat(np.eye(16)[:7], 11, axis=0) * 3.0
    assert vendi_score(rows, order) == pytest.approx(7)


def test_unequal_groups_follow_their_shares():
    """Orthogonal groups of unequal size score the Hill number of their shares."""
    rows = np.repeat(np.eye(4)[:3], [6, 3, 1], axis=0)
    share = np.array([0.6, 0.3, 0.1])
    assert vendi_score(rows) == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert vendi_score(rows, 2) == pytest.approx(1 / (share**2).sum())


def test_zero_rows_are_left_out_and_nothing_else_is_refused():
    """Undecodable pictures do not count; a set of them alone, or order 0, is an error."""
    rows = np.vstack([np.eye(5), np.zeros((9, 5))])
    assert vendi_score(rows) == pytest.approx(5)
    with pytest.raises(ValueError, match="not zero"):
        vendi_score(rows[5:])
    with pytest.raises(ValueError, match="order"):
        vendi_score(rows, 0)


def blobs(seed: int, centres: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Return ``sizes`` rows close to each centre."""
    noise = np.random.default_rng(seed).standard_normal((sum(sizes), centres.shape[1]))
    return np.repeat(centres, sizes, axis=0) + 0.02 * noise


def test_cluster_entropy_is_that_of_well_separated_groups():
    """Groups that k-means cannot miss give the entropy of their sizes."""
    sizes = [40, 30, 20, 10]
    rows = blobs(0, np.eye(12)[:4], sizes)
    share = np.array(sizes) / 100
    assert cluster_entropy(rows, 4, seed=0) == pytest.approx(-(share * np.log(share)).sum())


def test_common_centres_tell_a_narrow_set_from_a_wide_one():
    """By its own centres a narrow set looks wide; by common ones it does not."""
    wide, narrow = blobs(1, np.eye(16), [20] * 16), blobs(2, np.eye(16)[:2], [160] * 2)
    union = np.vstack([wide, narrow])
    assert cluster_entropy(narrow, 16, 0, union) < 0.5 * cluster_entropy(wide, 16, 0, union)
    assert cluster_entropy(narrow, 16, 0) > 2 * math.log(2)


def test_cluster_entropy_is_deterministic_and_bounded():
    """A seed fixes the clusters, and equal rows have entropy 0 however many are asked for."""
    rows = np.random.default_rng(3).standard_normal((200, 8))
    assert cluster_entropy(rows, 16, 5) == cluster_entropy(rows, 16, 5) <= math.log(16)
    assert cluster_entropy(np.ones((10, 3)), 4, 0) == 0


def test_distinct_n_counts_by_hand():
    """Words are case folded and without punctuation; no n-gram at all is NaN."""
    assert distinct_n(["A red, red circle", "a RED square"], 1) == pytest.approx(4 / 7)
    assert distinct_n(["a red red circle", "a red square"], 2) == pytest.approx(4 / 5)
    assert math.isnan(distinct_n(["word", ""], 2))


def test_plug_in_figures_grow_with_n():
    """The bias that makes equal n necessary is there: more pairs of one source score higher."""
    rows = np.random.default_rng(4).standard_normal((2000, 64))
    assert vendi_score(rows[:50]) < vendi_score(rows[:200]) < vendi_score(rows)


def make_folder(path, n, colours, seed):
    """Write n noisy pictures that take turns in so many patterns."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (colours, 3, 3, 3), dtype=np.uint8)
    pairs = []
    for row in range(n):
        picture = cv2.resize(palette[row % colours], (32, 32), interpolation=cv2.INTER_CUBIC)
        picture = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)
        columns = {"uid": f"{seed:02x}{row:030x}", "url": "", "caption": f"number {row % colours}"}
        pairs.append((columns, cv2.imencode(".png", picture)[1].tobytes(), "png"))
    write_folder(path, pairs, name=path.name)
    return path


def test_folders_are_compared_at_equal_n(tmp_path):
    """The larger folder is measured on as many pairs as the smaller has, and the wider wins."""
    narrow = make_folder(tmp_path / "narrow", 90, 3, 1)
    wide = make_folder(tmp_path / "wide", 60, 60, 2)
    first, second = compare_diversity([narrow, wide], RandomFeatures())
    assert first["pairs"] == second["pairs"] == 60
    assert first["vendi"] < 3.5 and second["vendi"] > 3 * first["vendi"]
    assert first["cluster_entropy"] < 0.8 * second["cluster_entropy"]
    assert (first["distinct_captions"], second["distinct_captions"]) == (3, 60)
    assert first["kernel"] == "cosine" and first["embedder"] == "random_features"
    assert "caption_vendi" not in first
    assert diversity(wide, RandomFeatures(), pairs=25)["pairs"] == 25
    with pytest.raises(PoolError, match="no folder"):
        diversity(tmp_path / "missing", RandomFeatures())
