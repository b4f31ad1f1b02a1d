"""What a stream yields: one rank's share of a global batch."""

# B pairs of this rank, H height, W width, T tokens

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Batch(NamedTuple):
    """Pairs in order; ``positions`` are their places in the endless canonical order.

    images: uint8 [B, 3, H, W], channels last in memory · tokens: int64 [B, T], 0 is padding ·
    positions: int64 [B]. A batch is valid for as long as it is held.
    """

    uids: list[str]
    images: Tensor
    tokens: Tensor
    positions: np.ndarray
