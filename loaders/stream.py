"""Stream a folder as batches: endless, resumable, the same for any number of ranks and workers."""

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from .batch import Batch
from .errors import OutputError, PoolError, Refused
from .folder import Folder
from .plan import Order
from .reader import Reader, Reading

AHEAD = 2  # batches in the making while one is used
STATE_VERSION = 1


class Stream:
    """Yield batches for ever, from the position after the last one that was yielded.

    Global batch b is positions [b G, (b + 1) G) of the order, ``batch_pairs`` = G, over all ranks;
    rank r of W takes the r-th of W equal slices. Positions run on through the epochs, so every
    batch is full and every rank makes equal steps. Workers are threads and change nothing but
    speed; where the decoded pictures fit ``cache_bytes``, each is decoded once and kept.

    Raises Refused where G is not a multiple of W, PoolError where there are fewer pairs than G,
    OutputError where ``state`` is of another stream. While iterating, raises ShardError for a pair
    that cannot be decoded.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        batch_pairs: int,
        seed: int,
        image_px: int,
        tokenizer: Tokenizer | None = None,
        context_length: int = 32,
        subset: Iterable[str] | pa.Array | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        cache_bytes: int = 1 << 30,
        state: dict[str, Any] | None = None,
    ) -> None:
        if batch_pairs < 1 or batch_pairs % world or not 0 <= rank < world:
            raise Refused(
                f"a batch of {batch_pairs} cannot be cut for rank {rank} of {world}: "
                "make it a multiple of the number of ranks"
            )
        rows = np.arange(len(folder)) if subset is None else folder.rows_of(subset)
        if len(rows) < batch_pairs:
            found = f"{len(rows)} pairs" + ("" if subset is None else " that the subset names")
            raise PoolError(
                f"{found} are fewer than a batch of {batch_pairs}: give more or a smaller batch"
            )
        self.order = Order(folder.shard_of, rows, seed=seed, digest=folder.digest)
        self._batch_pairs, self._rank, self._world = batch_pairs, rank, world
        self._reader = Reader(
            folder,
            rows,
            image_px=image_px,
            tokenizer=tokenizer,
            context_length=context_length,
            cache_bytes=cache_bytes,
        )
        self._workers = workers
        self._position = 0 if state is None else self._position_of(state)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def steps_per_epoch(self) -> int:
        """The least number of batches after which every pair has been seen."""
        return -(-len(self.order) // self._batch_pairs)

    def state(self) -> dict[str, Any]:
        """Return where the stream is, as JSON values; equal on all ranks.

        It counts the batches that were yielded, not those in the making.
        """
        return self._state_at(self._position)

    def _state_at(self, position: int) -> dict[str, Any]:
        return {
            "v": STATE_VERSION,
            "plan": self.order.digest,
            "position": position,
            "seed": self.order.seed,
        }

    def __iter__(self) -> Iterator[Batch]:
        # What is kept is decoded once, so there it pays to take every core at the beginning.
        threads = self._workers or (os.cpu_count() or 1 if self._reader.keeps_all else 1)
        pool = ThreadPoolExecutor(threads)
        try:
            for reading in self._readings(pool, threads):
                batch = self._reader.finish(reading)
                self._position += self._batch_pairs
                yield batch
        finally:
            if not sys.is_finalizing():  # a stream left open at exit: the threads are gone
                pool.shutdown(wait=True, cancel_futures=True)

    def _readings(self, pool: ThreadPoolExecutor, threads: int) -> Iterator[Reading]:
        """Yield batches in order, some begun ahead of their use where there are workers."""
        share = self._batch_pairs // self._world
        ahead: deque[Reading] = deque()
        for start in count(self._position + self._rank * share, self._batch_pairs):
            rows = self.order.rows(start, start + share)
            positions = np.arange(start, start + share)
            ahead.append(self._reader.start(pool, threads, rows, positions))
            if len(ahead) > (AHEAD if self._workers else 0):
                yield ahead.popleft()

    def _position_of(self, state: dict[str, Any]) -> int:
        mine = self._state_at(0)
        wrong = [key for key in ("v", "seed", "plan") if state.get(key) != mine[key]]
        if wrong:
            raise OutputError(
                f"this stream cannot go on from that state: {wrong[0]} was {state.get(wrong[0])} "
                f"and is {mine[wrong[0]]}; give the same data, subset and seed, or start anew"
            )
        return int(state["position"])
