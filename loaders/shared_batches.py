"""Memory for a few batches that two processes share, with no name that could be left behind."""

# S slots, B pairs, H = W = image_px, T tokens

import math
import mmap
import os
import weakref
from typing import NamedTuple

import numpy as np


class Sizes(NamedTuple):
    """How many batches there is room for, and how large each is."""

    slots: int
    pairs: int
    image_px: int
    context_length: int


class SharedBatches:
    """Slots for batches; those with the same ``file`` see the same memory.

    rows, givers, positions: int64 [S, B] · tokens: int64 [S, B, T] · images: uint8 [S, B, H, W, 3];
    ``givers`` are the rows whose captions are to be taken.
    Without a file the memory is this process's own. It goes with the last array of it in every
    process, however that ends: it has no name and lies in no folder.
    """

    def __init__(self, sizes: Sizes, file: int | None = None) -> None:
        slots, pairs, px, length = sizes
        numbers = slots * pairs
        words = numbers * (3 + length)
        size = 8 * words + numbers * px * px * 3
        if file is not None:
            os.truncate(file, size)
        self.sizes = sizes
        self._memory = memory = mmap.mmap(-1 if file is None else file, size)
        integers = np.frombuffer(memory, np.int64, words)
        self.rows = integers[:numbers].reshape(slots, pairs)
        self.givers = integers[numbers : 2 * numbers].reshape(slots, pairs)
        self.positions = integers[2 * numbers : 3 * numbers].reshape(slots, pairs)
        self.tokens = integers[3 * numbers :].reshape(slots, pairs, length)
        self._images_at = 8 * words
        pixels = np.frombuffer(memory, np.uint8, offset=self._images_at)
        self.images = pixels.reshape(slots, pairs, px, px, 3)
        self._free = list(range(slots))
        self._lent: set[int] = set()

    @property
    def lent(self) -> int:
        """How many slots somebody holds the images of."""
        return len(self._lent)

    def claim(self) -> int | None:
        """Return a slot that nobody uses, or None where there is none."""
        return self._free.pop() if self._free else None

    def release(self, slot: int) -> None:
        """Give a claimed slot back."""
        self._lent.discard(slot)
        self._free.append(slot)

    def lend(self, slot: int) -> np.ndarray:
        """Return a slot's images, uint8 [B, H, W, 3]; when that array goes, the slot is free again.

        The array must be handed on as it is: a tensor keeps it, a slice by NumPy does not.
        """
        shape = self.images.shape[1:]
        pixels = math.prod(shape)
        start = self._images_at + slot * pixels
        lent = np.frombuffer(self._memory, np.uint8, pixels, start).reshape(shape)
        self._lent.add(slot)
        weakref.finalize(lent, self.release, slot).atexit = False
        return lent


def make_file() -> int:
    """Return a file that lies in memory, has no name and counts for no limit of /dev/shm."""
    return os.memfd_create("breadth-batches")
