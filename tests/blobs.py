"""Clouds of features with labels, and a split of rows, for tests of probes and neighbours."""

import numpy as np

from breadth.train.evaluate.probe import Split


def blobs(
    n: int, width: int, classes: int, apart: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw features [n, width], normal around a centre for each class, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    centres = rng.normal(size=(classes, width)) * apart
    return centres[labels] + rng.normal(size=(n, width)), labels


def thirds(n: int) -> Split:
    """Deal rows out in turn."""
    rows = np.arange(n)
    return Split(rows[rows % 3 == 0], rows[rows % 3 == 1], rows[rows % 3 == 2])
