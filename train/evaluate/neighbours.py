"""Read a label off frozen features by the nearest neighbours: nothing is fitted.

Source: Wu et al. 2018 (arXiv 1805.01978), section 3.4, with the temperature that DINO
(arXiv 2104.14294) keeps. The features are as they are, divided by their norm.
"""

from typing import Any

import numpy as np

from .probe import Split
from .score import classified

# n pairs asked, m pairs known, D width, C classes

KS = (1, 5, 20, 100)
"""What the number of neighbours is chosen from."""
TEMPERATURE = 0.07
"""A neighbour's vote weighs exp(cosine / TEMPERATURE)."""

_CHUNK = 1024
_DIGITS = 6  # a matrix product gives equal vectors unequal last bits; what differs less is a tie


def knn(
    features_nD: np.ndarray, labels_n: np.ndarray, classes: int, split: Split
) -> dict[str, Any]:
    """Score the vote of the nearest neighbours on the test rows; chance is 1 / classes."""
    predicted, k = vote_of_nearest(features_nD, labels_n, classes, split)
    truth = labels_n[split.test]
    return {**classified(predicted == truth, truth, classes), "k": k}


def vote_of_nearest(
    features_nD: np.ndarray, labels_n: np.ndarray, classes: int, split: Split
) -> tuple[np.ndarray, int]:
    """Return the classes named for the test rows, and how many neighbours voted.

    k is the one of KS with the best validation accuracy among the training rows (of equal ones
    the largest); the test rows then ask training and validation rows together. Cost: O(n * m * D)
    and 1024 * m similarities at a time.
    """
    train, validation = split.train, split.validation
    index, cosine = nearest(features_nD[train], features_nD[validation], KS[-1])
    best, chosen = -1.0, KS[0]
    for k in (k for k in KS if k <= len(train)):
        named = vote(labels_n[train][index[:, :k]], cosine[:, :k], classes)
        hits = float((named == labels_n[validation]).mean())
        if hits >= best:
            best, chosen = hits, k
    known = np.concatenate([train, validation])
    index, cosine = nearest(features_nD[known], features_nD[split.test], chosen)
    return vote(labels_n[known][index], cosine, classes), chosen


def nearest(known_mD: np.ndarray, asked_nD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest known rows of each asked one, and their cosines: [n, min(k, m)] each.

    The nearest come first; of equally near ones the earlier row.
    """
    known, asked = _unit(known_mD), _unit(asked_nD)
    k, m = min(k, len(known)), len(known)
    index = np.empty((len(asked), k), np.int64)
    cosine = np.empty((len(asked), k))
    for start in range(0, len(asked), _CHUNK):
        rows = slice(start, start + _CHUNK)
        level = np.rint(asked[rows] @ known.T * 10**_DIGITS).astype(np.int64)
        rank = np.arange(m) - level * m  # distinct: a partition of it is unique
        first = np.argpartition(rank, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(rank, first, axis=1), axis=1)
        index[rows] = np.take_along_axis(first, order, axis=1)
        cosine[rows] = np.take_along_axis(level, index[rows], axis=1) / 10**_DIGITS
    return index, cosine


def vote(labels_nk: np.ndarray, cosine_nk: np.ndarray, classes: int) -> np.ndarray:
    """Return the class of most weight for each row; of equal ones the first."""
    weight_nk = np.exp((cosine_nk - 1) / TEMPERATURE)  # the factor exp(1 / T) changes no vote
    votes_nC = np.zeros((len(labels_nk), classes))
    np.add.at(votes_nC, (np.arange(len(labels_nk))[:, None], labels_nk), weight_nk)
    return votes_nC.argmax(axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return vectors / np.where(norm == 0, 1, norm)
