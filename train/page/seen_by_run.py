"""What one run makes of the pairs that the page shows: filled in, described, searched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checkpoint import Run
from ..evaluate.heat_maps import heat_maps
from ..generate import describe, reconstruct
from .pictures import ShownPair, heat_png, pictures, png

METHOD_NAMES = {"cosine": "patch by patch", "grad_cam": "Grad-CAM"}
_SEED = 0  # of the patches that are hidden: the same for all runs of one grid and share


@dataclass(frozen=True)
class FilledIn:
    """A picture with patches hidden and filled in, and the loss beside that of a flat guess."""

    masked: str
    predicted: str
    loss: float
    flat_loss: float


@dataclass(frozen=True)
class Heat:
    """A map over a picture, and its coldest and hottest value."""

    picture: str
    low: float
    high: float


@dataclass(frozen=True)
class Seen:
    """For each shown pair what a run made of it; None where its terms have not taught it that."""

    originals: list[str]
    filled_in: list[FilledIn] | None
    written: list[str] | None
    heat: list[Mapping[str, Heat]] | None

    def figures(self) -> dict[str, Any]:
        """Return the numbers and captions, without pictures."""
        return {
            "loss": self.filled_in and [one.loss for one in self.filled_in],
            "flat_loss": self.filled_in and [one.flat_loss for one in self.filled_in],
            "written": self.written,
            "heat": self.heat
            and [{name: [one.low, one.high] for name, one in maps.items()} for maps in self.heat],
        }


def look(run: Run, pairs: list[ShownPair]) -> Seen:
    """Return what a run that sees pictures makes of some pairs."""
    images_nCHW = pictures(pairs, run.recipe.image_px)
    return Seen(
        [png(picture) for picture in _upright(images_nCHW)],
        _filled_in(run, images_nCHW) if run.has_pixels else None,
        describe(run, images_nCHW) if run.has_captioner else None,
        _heat(run, images_nCHW, pairs) if run.has_joint_space else None,
    )


def _filled_in(run: Run, images_nCHW: np.ndarray) -> list[FilledIn]:
    made = reconstruct(run, images_nCHW, _SEED)
    rows = zip(
        _upright(made.masked), _upright(made.predicted), made.loss_n, made.flat_loss_n, strict=True
    )
    return [FilledIn(png(a), png(b), float(loss), float(flat)) for a, b, loss, flat in rows]


def _heat(run: Run, images_nCHW: np.ndarray, pairs: list[ShownPair]) -> list[Mapping[str, Heat]]:
    captions = [pair.caption for pair in pairs]
    maps = {name: heat_maps(run, images_nCHW, captions, name) for name in METHOD_NAMES}
    return [
        {
            name: Heat(heat_png(picture, heat[i]), float(heat[i].min()), float(heat[i].max()))
            for name, heat in maps.items()
        }
        for i, picture in enumerate(_upright(images_nCHW))
    ]


def _upright(images_nCHW: np.ndarray) -> np.ndarray:
    """Put channels last, as pictures are written."""
    return np.ascontiguousarray(images_nCHW.transpose(0, 2, 3, 1))
