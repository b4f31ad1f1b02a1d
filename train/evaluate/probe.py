"""Read a label off frozen features by logistic regression: no learning rate, no seed."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from .score import classified

# n pairs, D width, C classes

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""What the regularisation is chosen from: the weight of the summed loss beside |W|^2 / 2."""

_WORTH_THREADS = 2e9
"""Operations of one look at all rows from which on several threads are faster than one."""


@dataclass(frozen=True)
class Linear:
    """A linear classifier: scores are ``features @ weights_DC + bias_C``."""

    weights_DC: np.ndarray
    bias_C: np.ndarray

    def predict(self, features_nD: np.ndarray) -> np.ndarray:
        """Return the index of the best class for each row."""
        return np.argmax(features_nD @ self.weights_DC + self.bias_C, axis=1)


def fit(
    features_nD: np.ndarray,
    labels_n: np.ndarray,
    classes: int,
    strength: float,
    start: Linear | None = None,
    tolerance: float = 1e-4,
) -> Linear:
    """Minimise strength * summed cross entropy + |W|^2 / 2 (the bias is free) by L-BFGS.

    labels_n: ints in [0, classes). The objective is convex: ``start`` saves time, nothing else.
    ``tolerance`` bounds the gradient per pair.
    """
    n, width = features_nD.shape
    features = features_nD.astype(np.float64)
    right = (np.arange(n), labels_n)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: width * classes].reshape(width, classes), flat[width * classes :]
        scores = features @ weights + bias
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores)
        total = p.sum(axis=1, keepdims=True)
        loss = (np.log(total).sum() - scores[right].sum()) / n
        loss += (weights**2).sum() / (2 * strength * n)
        slope = p / total
        slope[right] -= 1.0
        d_weights = features.T @ slope / n + weights / (strength * n)
        return loss, np.concatenate([d_weights.ravel(), slope.mean(axis=0)])

    first = np.zeros((width + 1) * classes)
    if start is not None:
        first = np.concatenate([start.weights_DC.ravel(), start.bias_C])
    options = {"maxiter": 1000, "maxfun": 2000, "gtol": tolerance, "ftol": 1e-12}
    with _threads(4.0 * n * width * classes):
        found = minimize(objective, first, jac=True, method="L-BFGS-B", options=options)
    return Linear(found.x[: width * classes].reshape(width, classes), found.x[width * classes :])


def _threads(operations: float) -> AbstractContextManager[Any]:
    """Keep small products to one thread: NumPy's and SciPy's spin for work that the other has."""
    if operations >= _WORTH_THREADS:
        return nullcontext()
    limit: AbstractContextManager[Any] = _pools().limit(limits=1, user_api="blas")
    return limit


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


@dataclass(frozen=True)
class Split:
    """Which rows fit the probe, which choose its regularisation, which score it."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_by_uid(uids: list[str]) -> Split:
    """Put each pair in train (60 %), validation (20 %) or test (20 %) by its uid alone."""
    # The low bits: keep-lists and draws by uid go by the high ones.
    fifth = np.array([int(uid[-12:], 16) % 5 for uid in uids], dtype=np.int64)
    return Split(np.flatnonzero(fifth > 1), np.flatnonzero(fifth == 1), np.flatnonzero(fifth == 0))


def probe(
    features_nD: np.ndarray, labels_n: np.ndarray, classes: int, split: Split
) -> dict[str, Any]:
    """Score a linear probe on the test rows; chance is 1 / classes."""
    predicted, strength = read_off(features_nD, labels_n, classes, split)
    truth = labels_n[split.test]
    return {
        **classified(predicted == truth, truth, classes),
        "strength": strength,
        "train": len(split.train),
        "validation": len(split.validation),
    }


def read_off(
    features_nD: np.ndarray, labels_n: np.ndarray, classes: int, split: Split
) -> tuple[np.ndarray, float]:
    """Return the classes that a linear probe names for the test rows, and its strength.

    Features are standardised by the training rows. The strength is the one with the best
    validation accuracy (of equal ones the most regularised); the probe is then fitted once more
    on training and validation rows together.
    """
    mean, spread = _moments(features_nD[split.train])
    features = (features_nD - mean) / spread
    strength = _choose(features, labels_n, classes, split)
    both = np.concatenate([split.train, split.validation])
    linear = fit(features[both], labels_n[both], classes, strength)
    return linear.predict(features[split.test]), strength


def _choose(features: np.ndarray, labels: np.ndarray, classes: int, split: Split) -> float:
    best, chosen, linear = -1.0, STRENGTHS[0], None
    for strength in STRENGTHS:
        linear = fit(features[split.train], labels[split.train], classes, strength, linear)
        hits = linear.predict(features[split.validation]) == labels[split.validation]
        if hits.mean() > best:
            best, chosen = float(hits.mean()), strength
    return chosen


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread < 1e-8, 1, spread)
