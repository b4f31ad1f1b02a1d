"""A run as an embedder: what ``embedder = "run"`` in a curation recipe opens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from breadth.loaders.decode import DecodeError, decode
from breadth.loaders.errors import Refused

from .checkpoint import Run, load_run


class RunEmbedder:
    """Embed with a trained run; one without a joint space embeds pictures alone, by features."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.name = run.recipe.name
        self.digest = run.digest
        self.embeds_captions = run.has_joint_space
        size = run.recipe.widths
        self.width = size.embedding if run.has_joint_space else size.width

    def pictures(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Embed encoded pictures: float32 [n, width], rows of norm 1 (zero where undecodable)."""
        vectors = np.zeros((len(encoded), self.width), np.float32)
        pictures = [self.decode(one) for one in encoded]
        rows = [row for row, picture in enumerate(pictures) if picture is not None]
        if not rows:
            return vectors
        images = np.stack([picture for picture in pictures if picture is not None])
        vectors[rows] = self.embed(images.transpose(0, 3, 1, 2))
        return vectors

    def decode(self, encoded: bytes) -> np.ndarray | None:
        """Decode a picture to the recipe's size, or to None where it is none."""
        try:
            return decode(encoded, self.run.recipe.image_px)
        except DecodeError:
            return None

    def embed(self, images_BCHW: np.ndarray) -> np.ndarray:
        """Embed decoded pictures in the joint space where there is one."""
        if self.embeds_captions:
            return self.run.embed_pictures(images_BCHW)
        features = self.run.features(images_BCHW)
        return features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)

    def captions(self, captions: Sequence[str]) -> np.ndarray:
        """Embed captions: float32 [n, width], rows of norm 1; or raises Refused."""
        if not self.embeds_captions:
            raise Refused(f"{self.run.path} was trained without InfoNCE: it embeds no captions")
        return self.run.embed_captions(captions)


def open_run(path: str | Path) -> RunEmbedder:
    """Open a run's folder as an embedder; raises PoolError where it holds no trained run."""
    return RunEmbedder(load_run(path))
