"""Stream a folder as batches: endless, resumable, the same for any number of ranks and workers."""

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import torch
from tokenizers import Tokenizer

from .access import choose_access
from .batch import Batch
from .engine import LENT_SLOTS, choose_workers, start_engine
from .errors import PoolError, Refused
from .folder import Folder
from .losses import Losses
from .noise import resolve_noise
from .pipeline import Making, Pipeline
from .plan import Order
from .position import lineage, make_state, position_in
from .reader import AUGMENTS
from .shared_batches import Sizes
from .stall import StallReport, Stopwatch
from .subset import Subset, resolve_subset
from .weights import resolve_weights

BUDGET_PPM = 100
THE_SUBSETS = " that the subset names"


class Stream:
    """Yield batches for ever, from the position after the last one that was yielded.

    Global batch b is positions [b G, (b + 1) G) of the order, ``batch_pairs`` = G, over all ranks;
    rank r of W takes the r-th of W equal slices. Positions run on through the epochs, so every
    batch is full and every rank makes equal steps. ``subset`` and ``weights`` choose and mix pairs
    (``resolve_subset``, ``resolve_weights``), ``shuffle`` is that of ``Order``. A pair with several
    captions gives one of them at a time (``Captions``); ``caption_noise`` is the share of captions
    that go to wrong pairs (``resolve_noise``).

    ``augment`` is "center", or "random_resized_crop" by a hash of the position. ``workers`` are
    threads that decode, 0 none, by default half the cores; they run in a process of their own, or
    here with ``process=False``, which is the default where the decoded pictures fit
    ``cache_bytes``: then each is decoded once and kept. None of it changes what is yielded.

    A pair that cannot be read is replaced by one that its position draws; no other moves. Each is
    written to the folder ``quarantine`` (``read_quarantine``). More than ``budget_ppm`` in a
    million of an epoch's pairs, or of those that this rank has had if that is more, are an error.
    ``check`` compares every picture's CRC with the index's. ``access`` says how pictures are read
    and why: of a far folder alone what is kept, or whole shards where that is quicker.

    Raises Refused where G is not a multiple of W, PoolError where there are fewer pairs than G,
    OutputError where ``state`` is of another stream. While iterating, raises ShardError beyond the
    budget, Failed within seconds where the loader process was killed.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        batch_pairs: int,
        seed: int,
        image_px: int,
        augment: str = "center",
        tokenizer: Tokenizer | None = None,
        context_length: int = 32,
        subset: Subset | None = None,
        weights: Mapping[str, float] | None = None,
        shuffle: str = "block",
        caption_noise: float = 0.0,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        process: bool | None = None,
        cache_bytes: int = 1 << 30,
        check: bool = False,
        state: Mapping[str, Any] | None = None,
        quarantine: str | Path | None = None,
        budget_ppm: float = BUDGET_PPM,
    ) -> None:
        _check_request(batch_pairs, rank, world, augment)
        rows = resolve_subset(folder, subset)
        visits = resolve_weights(folder, rows, weights)
        self.order = Order(
            folder.shard_of, rows, seed=seed, digest=folder.digest, shuffle=shuffle, visits=visits
        )
        _check_number(len(self.order), batch_pairs, "" if subset is None else THE_SUBSETS)
        self.noise = resolve_noise(folder, self.order.visited, caption_noise, seed)
        self.access = choose_access(folder, rows, remote=folder.storage.is_remote)
        if self.access.kind == "stream":
            folder.fetch_whole_shards()
        self._folder, self._tokenizer = folder, tokenizer
        self._batch_pairs, self._rank = batch_pairs, rank
        length = context_length if tokenizer else 0
        keeps = augment == "center" and len(rows) * (3 * image_px**2 + 4 * length) <= cache_bytes
        self._workers = choose_workers(workers, process, keeps)
        slots = max(1, self._workers.ahead) + LENT_SLOTS
        self._sizes = Sizes(slots, batch_pairs // world, image_px, length)
        kept = len(rows) if keeps else 0
        self._reading = {"augment": augment, "seed": seed, "check": check, "kept_pairs": kept}
        self._position = 0 if state is None else self.position_in(state)
        self._losses = Losses(folder, self.order, batch_pairs, rank, quarantine, budget_ppm)
        self._watch = Stopwatch()
        self._pipeline: Pipeline | None = None
        self._close: Callable[[], Any] = lambda: None
        self._process = os.getpid()

    def __len__(self) -> int:
        """Return the pairs of an epoch, those that come twice counted twice."""
        return len(self.order)

    @property
    def steps_per_epoch(self) -> int:
        """The least number of batches after which every pair has been seen."""
        return -(-len(self.order) // self._batch_pairs)

    def state(self) -> dict[str, Any]:
        """Return where the stream is, as JSON values; equal on all ranks.

        It counts the batches that were yielded, not those in the making.
        """
        return self.state_at(self._position)

    def state_at(self, position: int) -> dict[str, Any]:
        """Return the state after all positions below ``position``."""
        return make_state(self.order, position, len(self.noise))

    def position_in(self, state: Mapping[str, Any]) -> int:
        """Return the position of a state; raises OutputError where it is of another stream."""
        return position_in(state, self.order, len(self.noise))

    def lineage(self, step: int) -> list[str]:
        """Return the uids of global batch ``step``, counted from position 0 in batches of G.

        Where pairs were quarantined, by this stream or any rank that wrote to the same folder, the
        uids are those of their substitutes.
        """
        uids = lineage(self.order, self._folder, step, self._batch_pairs)
        for position, uid in self._losses.substitutes().items():
            if step * self._batch_pairs <= position < (step + 1) * self._batch_pairs:
                uids[position - step * self._batch_pairs] = uid
        return uids

    def accounts(self) -> dict[str, int]:
        """Return how many pairs this stream has yielded: planned = delivered + quarantined."""
        return self._losses.accounts()

    def report(self) -> StallReport:
        """Return where the time has gone so far."""
        return StallReport(self._watch.sums(), self._workers.threads)

    def close(self) -> None:
        """End the threads or the process; to iterate again starts them anew."""
        self._close()
        self._pipeline = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            batch = self._next()
            began = perf_counter()
            yield batch
            self._watch.add("step", perf_counter() - began)

    def _next(self) -> Batch:
        began, stage = perf_counter(), "wait"
        if self._pipeline is None or self._process != os.getpid():
            self._pipeline, stage = self._start(), "start"
        try:
            bearable = self._losses.bearable(self._sizes.pairs)
            made = self._pipeline.next_batch(bearable, self._watch)
            self._watch.add(stage, perf_counter() - began)
            self._losses.count(made, self._batches.rows[made.slot])
        except Exception:
            self.close()
            raise
        self._position += self._batch_pairs
        return self._lent(made)

    def _start(self) -> Pipeline:
        engine = start_engine(
            self._folder, self._sizes, self._workers, self._tokenizer, self._reading
        )
        self._process, self._batches = os.getpid(), engine.batches
        self._close = weakref.finalize(self, engine.close)
        start = self._position + self._rank * self._sizes.pairs
        step, ahead = self._batch_pairs, self._workers.ahead
        return Pipeline(engine, self.order, self.noise, start, step, ahead)

    def _lent(self, made: Making) -> Batch:
        """Hand out the slot itself; or a copy, where the consumer keeps more than two batches."""
        batches, slot = self._batches, made.slot
        uids = self._folder.uids_of(batches.rows[slot])
        tokens, positions = batches.tokens[slot].copy(), batches.positions[slot].copy()
        if batches.lent < LENT_SLOTS:
            images = batches.lend(slot)
        else:
            images = batches.images[slot].copy()
            batches.release(slot)
        channels_first = torch.from_numpy(images).permute(0, 3, 1, 2)
        return Batch(uids, channels_first, torch.from_numpy(tokens), positions)


def _check_number(pairs: int, batch_pairs: int, whose: str) -> None:
    if pairs < batch_pairs:
        raise PoolError(
            f"{pairs} pairs{whose} are fewer than a batch of {batch_pairs}: give more or a smaller "
            "batch"
        )


def _check_request(batch_pairs: int, rank: int, world: int, augment: str) -> None:
    if batch_pairs < 1 or batch_pairs % world or not 0 <= rank < world:
        raise Refused(
            f"a batch of {batch_pairs} cannot be cut for rank {rank} of {world}: "
            "make it a multiple of the number of ranks"
        )
    if augment not in AUGMENTS:
        raise Refused(f"there is no augment {augment!r}: choose {' or '.join(AUGMENTS)}")
