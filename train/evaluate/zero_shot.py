"""Name the class of a picture by the prompt that lies nearest."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .retrieval import KS, recall_hits
from .score import Score

# n pictures, C classes, T templates, D width


@dataclass(frozen=True)
class ZeroShot:
    """Accuracy beside its chance, 1 / classes, and ``majority``, the largest class's share."""

    score: Score
    majority: float
    classes: int
    templates: int

    def as_dict(self) -> dict[str, Any]:
        """Return one flat row."""
        rest = {"majority": self.majority, "classes": self.classes, "templates": self.templates}
        return {**self.score.as_dict(), **rest}


def fill(templates: tuple[str, ...], classes: tuple[str, ...]) -> list[str]:
    """Write every prompt, class by class: C * T captions."""
    return [template.replace("{}", str(name)) for name in classes for template in templates]


def class_vectors(prompts_CTD: np.ndarray) -> np.ndarray:
    """Average each class's prompts, normalised before and after: [C, D] of norm 1.

    Source: CLIP (arXiv 2103.00020), section 3.1.4.
    """
    return _unit(_unit(prompts_CTD).mean(axis=1))


def zero_shot(pictures_nD: np.ndarray, prompts_CTD: np.ndarray, labels_n: np.ndarray) -> ZeroShot:
    """Score pictures against prompts; ``labels_n`` are indices into the classes.

    Of equally near classes each is named with equal probability, as in retrieval.
    """
    classes, templates = prompts_CTD.shape[:2]
    vectors = class_vectors(prompts_CTD)
    hits = recall_hits(pictures_nD, vectors, labels_n, np.arange(classes))[:, KS.index(1)]
    return ZeroShot(Score.of(hits, 1 / classes), majority_share(labels_n), classes, templates)


def majority_share(labels_n: np.ndarray) -> float:
    """Return the share of the most frequent label: what always saying it would score."""
    return float(np.bincount(labels_n).max() / len(labels_n)) if len(labels_n) else float("nan")


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm == 0, 1, norm)
