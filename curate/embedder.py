"""Turn pictures and captions into unit vectors, and find who does it by name."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np

from breadth.loaders.errors import Refused

from .random_features import RandomFeatures


class Embedder(Protocol):
    """Embed pictures and captions in one space of ``width`` dimensions.

    ``digest`` identifies weights and code: equal digests give equal vectors. It enters the
    fingerprint of every stage that reads an embedding.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def embeds_captions(self) -> bool: ...  # noqa: D102

    def pictures(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Embed encoded pictures: float32 [n, width], rows of norm 1 (zero where undecodable)."""
        ...

    def captions(self, captions: Sequence[str]) -> np.ndarray:
        """Embed captions: float32 [n, width], rows of norm 1; raises where it embeds none."""
        ...


def open_embedder(name_or_path: str) -> Embedder:
    """Open a built-in embedder by its name, or a run by its folder; once per process.

    Raises Refused where it is neither.
    """
    if name_or_path == "random_features":
        return RandomFeatures()
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise Refused(
            f"no embedder {name_or_path!r}: say random_features, or the folder of a run "
            "(made by: breadth train)"
        )
    return _open_run(folder.resolve())


@lru_cache
def _open_run(folder: Path) -> Embedder:
    # through the entry point, so that curate/ does not import train/
    for entry in entry_points(group="breadth.embedders", name="run"):
        return entry.load()(folder)
    raise Refused("no entry point breadth.embedders:run: install the package (pip install -e .)")
