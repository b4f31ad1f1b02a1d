"""Pictures whose label only the low frequencies tell, only the high ones, or either.

Every picture is the sum of a coarse and a fine grating and noise, so that none lacks a band; a
grating's class is its direction, its phase and contrast are drawn. Frequencies are whole numbers
of cycles per picture: a band filter takes one grating away and leaves the other as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import Refused

DIRECTIONS = 4  # a multiple of 45 degrees each
COARSE = 3.0  # cycles per picture
_CONTRAST = (20.0, 34.0)  # grey levels; with ground and noise seldom beyond 0 to 255
_NOISE = 8.0
_FEWEST_PX = 24


@dataclass(frozen=True)
class Gratings:
    """A world of gratings; where they ``agree`` both have the class of the picture.

    Else the two classes are drawn independently, and each band tells its own alone.
    """

    seed: int = 0
    agree: bool = False

    def draw(self, indices: Sequence[int], px: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Draw pictures: uint8 [n, px, px, 3], and their classes by task, int64 [n].

        Tasks are ``low`` and ``high``, or ``both`` where they agree. Raises Refused where a
        picture is too small for two bands.
        """
        if px < _FEWEST_PX:
            raise Refused(f"two bands need pictures of {_FEWEST_PX} pixels or more, not {px}")
        drawn = [self._one(index, px) for index in indices]
        pictures = np.stack([picture for picture, _ in drawn])
        low, high = np.array([classes for _, classes in drawn], dtype=np.int64).T
        return pictures, {"both": low} if self.agree else {"low": low, "high": high}

    def _one(self, index: int, px: int) -> tuple[np.ndarray, tuple[int, int]]:
        rng = np.random.default_rng([self.seed, index, 4])
        low, high = (int(c) for c in rng.integers(DIRECTIONS, size=2))
        high = low if self.agree else high
        canvas = rng.uniform(118, 138, 3) + np.zeros((px, px, 1))
        for radius, direction in ((COARSE, low), (fine(px), high)):
            wave = np.cos(_angle(radius, direction, px) + rng.uniform(0, 2 * np.pi))
            canvas += rng.uniform(*_CONTRAST) * wave[:, :, None]
        canvas += rng.normal(0, _NOISE, canvas.shape)
        return np.clip(np.round(canvas), 0, 255).astype(np.uint8), (low, high)


def fine(px: int) -> float:
    """Return the frequency of the fine grating, 3/4 of the finest there is, in cycles a picture."""
    return 3 * px / 8


def between(px: int) -> float:
    """Return the frequency that divides the bands, halfway on a log scale."""
    return float(np.sqrt(COARSE * fine(px)))


def wave_vector(radius: float, direction: int) -> tuple[int, int]:
    """Return the whole numbers of cycles down and across nearest to a radius and direction."""
    turn = np.pi * direction / DIRECTIONS
    return round(radius * np.sin(turn)), round(radius * np.cos(turn))


def _angle(radius: float, direction: int, px: int) -> np.ndarray:
    down, across = wave_vector(radius, direction)
    y, x = np.mgrid[0:px, 0:px] / px
    return 2 * np.pi * (down * y + across * x)
