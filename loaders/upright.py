"""Look at stored pixels the right way up, in any of Exif's eight orientations."""

import numpy as np

LYING = 5
"""From this orientation on, the width of what is stored is the height of what is shown."""

_MIRRORED = (2, 3, 6, 7)
_FLIPPED = (3, 4, 7, 8)
_UNDONE_BY = {6: 8, 8: 6}  # every other orientation undoes itself


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Look at stored pixels [h, w, c] the right way up: a view."""
    turned = pixels.swapaxes(0, 1) if orientation >= LYING else pixels
    if orientation in _MIRRORED:
        turned = turned[:, ::-1]
    if orientation in _FLIPPED:
        turned = turned[::-1]
    return turned


def as_stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Look at upright pixels as they are stored: a view, the inverse of ``upright``."""
    return upright(pixels, _UNDONE_BY.get(orientation, orientation))
