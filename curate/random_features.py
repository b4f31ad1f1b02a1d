"""The built-in embedder: colours and coarse shapes of a picture, with no weights to fetch.

It sees where which colour is and the coarse layout of light, and nothing of what is shown: good
for a first look at variety that no training data has shaped.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from breadth.loaders.decode import DecodeError, decode
from breadth.loaders.errors import Refused

VERSION = 1
SIDE_PX = 32  # pictures are looked at in this size
THUMBNAIL_PX = 8
TERMS = 8  # DCT terms per direction
GREY = np.array([0.299, 0.587, 0.114])  # of red, green, blue (BT.601)
COLOUR_SPREAD = 0.25  # typical standard deviation of a thumbnail's values, range [0, 1]
DCT_SPREAD = 2.0  # typical standard deviation of a DCT term at frequency 1; it falls as 1/frequency


def colour_features(picture: np.ndarray) -> np.ndarray:
    """Return the thumbnail about mid-grey, in typical deviations: float64 [3 * 8 * 8].

    Mid-grey is taken off because without it all values are positive, every cosine is close to 1,
    and any set looks narrow. Half of the mean colour is taken off too: else it, mostly the
    background, weighs four times as much as where the colours are.
    """
    block = SIDE_PX // THUMBNAIL_PX
    blocks = picture.reshape(THUMBNAIL_PX, block, THUMBNAIL_PX, block, 3)
    thumbnail = (blocks.mean((1, 3)) / 255 - 0.5) / COLOUR_SPREAD
    return (thumbnail - thumbnail.mean((0, 1)) / 2).ravel()


def layout_features(picture: np.ndarray) -> np.ndarray:
    """Return the low DCT terms of grey but the first, weighted by frequency: float64 [63].

    The weights undo the 1/frequency fall of natural pictures, so that edges count as much as
    gradients.
    """
    grey = picture @ GREY / 255
    waves = _cosines()
    frequency = np.hypot(*np.indices((TERMS, TERMS)))
    return (waves @ grey @ waves.T * frequency / DCT_SPREAD).ravel()[1:]


def _cosines() -> np.ndarray:
    """Return the first rows of the orthonormal DCT-II matrix: float64 [TERMS, SIDE_PX]."""
    term, pixel = np.indices((TERMS, SIDE_PX))
    waves = np.cos(np.pi * term * (2 * pixel + 1) / (2 * SIDE_PX)) * np.sqrt(2 / SIDE_PX)
    waves[0] /= np.sqrt(2)
    return waves


@dataclass(frozen=True)
class RandomFeatures:
    """Embed pictures by a fixed random projection of colour and layout; captions not at all.

    Source: Johnson and Lindenstrauss 1984 for the projection, which keeps cosines within about
    1 / sqrt(width). Cost: one decode per picture; nothing is learned or downloaded.
    """

    width: int = 128
    seed: int = 0
    name: str = "random_features"
    embeds_captions: bool = False

    @cached_property
    def projection(self) -> np.ndarray:
        """The random directions: float64 [255, width]."""
        features = 3 * THUMBNAIL_PX**2 + TERMS**2 - 1
        # RandomState's stream is frozen by numpy's promise; Generator's may change between releases
        return np.random.RandomState(self.seed).standard_normal((features, self.width))

    @cached_property
    def digest(self) -> str:
        """Identify the code's version and the projection."""
        return hashlib.sha256(b"%d" % VERSION + self.projection.tobytes()).hexdigest()

    def pictures(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Embed encoded pictures: float32 [n, width], rows of norm 1 (zero where undecodable)."""
        # one product a picture: in a batched one the last bits depend on the neighbours
        vectors = [self._embed(picture) for picture in encoded]
        return np.array(vectors, dtype=np.float32).reshape(len(encoded), self.width)

    def captions(self, captions: Sequence[str]) -> np.ndarray:
        """Refuse: this embedder sees pictures only."""
        raise Refused("random_features embeds no captions: name a run that was trained with both")

    def _embed(self, encoded: bytes) -> np.ndarray:
        try:
            picture = decode(encoded, SIDE_PX)
        except DecodeError:
            return np.zeros(self.width)
        features = np.concatenate([colour_features(picture), layout_features(picture)])
        vector = features @ self.projection
        return vector / max(float(np.linalg.norm(vector)), 1e-12)
