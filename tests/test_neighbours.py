"""Nearest neighbours against scikit-learn's."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from breadth.train.evaluate.neighbours import KS, TEMPERATURE, knn, nearest, vote, vote_of_nearest

from .blobs import blobs, thirds


@pytest.mark.parametrize("k", KS)
def test_the_vote_is_scikit_learns(k):
    """Cosine neighbours that vote by exp(cosine / temperature) name scikit-learn's classes."""
    known, labels = blobs(700, 8, 5, 0.6)
    asked, _ = blobs(1500, 8, 5, 0.6, seed=1)
    theirs = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / TEMPERATURE)
    ).fit(known, labels)
    index, cosine = nearest(known, asked, k)
    ours = vote(labels[index], cosine, 5)
    assert (ours == theirs.predict(asked)).mean() > 0.999  # cosines are rounded to 6 digits


def test_equal_vectors_are_taken_in_order():
    """Of equally near neighbours the earlier rows count, whatever their length."""
    known = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [1.0, 1e-9], [5.0, 0.0]])
    index, cosine = nearest(known, np.array([[3.0, 0.0]]), 3)
    assert index.tolist() == [[1, 2, 3]]
    assert np.allclose(cosine, 1)


def test_more_neighbours_than_rows_are_all_rows():
    """A k beyond the known rows takes each of them once."""
    known, _ = blobs(7, 3, 2, 1)
    index, _ = nearest(known, known[:2], 100)
    assert [sorted(row) for row in index.tolist()] == [list(range(7))] * 2


def test_validation_chooses_k_and_the_test_rows_have_no_say():
    """The k is the best on the validation rows alone; test rows are named by the others' labels."""
    features, labels = blobs(600, 6, 3, 0.5)
    split = thirds(600)
    predicted, k = vote_of_nearest(features, labels, 3, split)
    shares = {}
    for candidate in KS:
        index, cosine = nearest(features[split.train], features[split.validation], candidate)
        named = vote(labels[split.train][index], cosine, 3)
        shares[candidate] = (named == labels[split.validation]).mean()
    assert k == max(c for c in KS if shares[c] == max(shares.values()))
    scrambled = labels.copy()
    scrambled[split.test] = 0
    again, same = vote_of_nearest(features, scrambled, 3, split)
    assert same == k and (again == predicted).all()


def test_noise_scores_near_chance_and_far_blobs_without_error():
    """Features that know nothing score near chance; classes far apart are all named rightly."""
    rng = np.random.default_rng(1)
    noise = knn(rng.normal(size=(900, 5)), rng.integers(4, size=900), 4, thirds(900))
    assert abs(noise["value"] - 0.25) < 4 * noise["standard_error"]
    clear = knn(*blobs(600, 8, 5, 20), 5, thirds(600))
    assert clear["value"] == 1
    assert (clear["n"], clear["chance"], clear["classes"]) == (200, 0.2, 5)
