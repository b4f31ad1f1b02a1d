"""The linear probe against scikit-learn's logistic regression."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from breadth.train.evaluate.probe import STRENGTHS, fit, probe, split_by_uid

from .blobs import blobs, thirds


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_weights_are_those_of_scikit_learn(strength):
    """With the same strength (its C) weights and biases agree, biases up to their mean."""
    features, labels = blobs(300, 6, 4, 0.7)
    ours = fit(features, labels, 4, strength, tolerance=1e-8)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(features, labels)
    assert np.allclose(ours.weights_DC, theirs.coef_.T, atol=1e-4)
    bias = theirs.intercept_ - theirs.intercept_.mean()
    assert np.allclose(ours.bias_C - ours.bias_C.mean(), bias, atol=1e-4)


def test_a_coarse_fit_predicts_as_scikit_learn_does():
    """At the tolerance the probe uses, predictions agree on all but a few pairs."""
    features, labels = blobs(600, 10, 5, 0.5)
    ours = fit(features, labels, 5, 1.0).predict(features)
    theirs = LogisticRegression(C=1.0, max_iter=5000).fit(features, labels).predict(features)
    assert (ours == theirs).mean() > 0.99


def test_a_warm_start_changes_nothing_but_time():
    """Fits from zero and from another strength's weights agree."""
    features, labels = blobs(200, 5, 3, 0.7)
    cold = fit(features, labels, 3, 1.0, tolerance=1e-8)
    warm = fit(features, labels, 3, 1.0, fit(features, labels, 3, 0.001), tolerance=1e-8)
    assert np.allclose(cold.weights_DC, warm.weights_DC, atol=1e-4)


def test_separable_classes_are_read_without_error():
    """Features far apart by class give 100 % on the test rows, whatever their scale and offset."""
    features, labels = blobs(600, 8, 5, 20)
    result = probe(features * 1e-3 + 7, labels, 5, thirds(600))
    assert result["value"] == 1
    assert result["n"] == 200
    assert result["chance"] == 0.2


def test_noise_scores_near_chance():
    """Features that know nothing of the label score within four standard errors of chance."""
    rng = np.random.default_rng(1)
    result = probe(rng.normal(size=(900, 5)), rng.integers(4, size=900), 4, thirds(900))
    assert abs(result["value"] - 0.25) < 4 * result["standard_error"]


def test_validation_chooses_the_strength():
    """Many noisy dimensions choose a small strength, a fine difference of two a large one."""
    noisy, labels = blobs(150, 200, 3, 0.15)
    rng = np.random.default_rng(3)
    wide, fine = rng.normal(size=3000), rng.normal(size=3000) * 0.01
    pair = np.stack([wide, wide + fine], axis=1)
    small = probe(noisy, labels, 3, thirds(150))["strength"]
    large = probe(pair, (fine > 0).astype(int), 2, thirds(3000))
    assert small < large["strength"] == STRENGTHS[-1]
    assert large["value"] > 0.9


def test_a_constant_feature_is_harmless():
    """A feature without spread is no division by zero."""
    features, labels = blobs(300, 4, 3, 5)
    result = probe(np.hstack([features, np.full((300, 1), 3.0)]), labels, 3, thirds(300))
    assert result["value"] > 0.9


def test_the_split_goes_by_uid_alone():
    """Order and company of a pair do not change its place; the places hold 60, 20 and 20 %."""
    rng = np.random.default_rng(2)
    uids = [rng.bytes(16).hex() for _ in range(5000)]
    split = split_by_uid(uids)
    shuffled = rng.permutation(5000)
    again = split_by_uid([uids[i] for i in shuffled])
    assert {uids[i] for i in split.test} == {uids[shuffled[i]] for i in again.test}
    sizes = [len(split.train), len(split.validation), len(split.test)]
    assert sum(sizes) == 5000
    assert np.allclose(sizes, [3000, 1000, 1000], atol=150)
