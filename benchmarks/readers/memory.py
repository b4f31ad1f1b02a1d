"""What no loader can beat: pictures in memory decoded by threads, and a tar read as plain bytes."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from . import crop
from .tars import pictures
from .task import BATCH_PAIRS, TAR_PAIRS, WORKERS, Batches, Task

PIECE_BYTES = 1 << 20


def raw(task: Task) -> Batches:
    """All bytes of the tars, for ever, and nothing done with them."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    for name in cycle(task.tars):
        with Path(name).open("rb", buffering=0) as tar:
            while tar.readinto(buffer):
                pass
        yield range(TAR_PAIRS)


def decoded(task: Task) -> Batches:
    """Random pieces of pictures that are in memory, a batch to a thread, for ever."""
    encoded = cycle(list(pictures(task)))
    cropped = crop.with_simplejpeg(task.px)

    def pieces(batch: list[bytes]) -> torch.Tensor:
        made = np.empty((len(batch), task.px, task.px, 3), np.uint8)
        for picture, out in zip(batch, made, strict=True):
            cropped(picture, out)
        return torch.from_numpy(made)

    with ThreadPoolExecutor(WORKERS) as threads:
        ahead = deque(
            threads.submit(pieces, list(islice(encoded, BATCH_PAIRS))) for _ in range(2 * WORKERS)
        )
        while True:
            yield ahead.popleft().result()
            ahead.append(threads.submit(pieces, list(islice(encoded, BATCH_PAIRS))))
