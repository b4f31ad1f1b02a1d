"""What fills batches: threads in a process of their own, threads here, or nobody else."""

import os
import queue
from typing import Any, NamedTuple, Protocol

import numpy as np
from tokenizers import Tokenizer

from .folder import Folder
from .loader_process import LoaderProcess
from .reader import Answer, Reader, ReaderThreads
from .shared_batches import SharedBatches, Sizes

AHEAD = 2  # batches in the making while one is used
LENT_SLOTS = 2  # the batch in use, and the one before it that a loop's variable still holds


class Workers(NamedTuple):
    """How many threads decode, whether in a process of their own, and how many batches ahead."""

    threads: int
    in_process: bool
    ahead: int


class Engine(Protocol):
    """Fills slots of ``batches`` by their rows and positions."""

    batches: SharedBatches

    def ask(self, slot: int, places: np.ndarray) -> None:
        """Begin to fill some places of a slot."""

    def answer(self) -> Answer:
        """Wait for the next slot that is ready; raises what went wrong."""

    def close(self) -> None:
        """Stop; what is being made is lost."""


class LoaderThreads:
    """An engine in this process; without threads it fills a slot while it is asked to."""

    def __init__(self, reader: Reader, batches: SharedBatches, threads: int) -> None:
        self.batches = batches
        self._made: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
        self._threads = ReaderThreads(reader, threads, batches.sizes.slots, self._made.put)

    def ask(self, slot: int, places: np.ndarray) -> None:
        """Begin to fill some places of a slot."""
        self._threads.ask(slot, places)

    def answer(self) -> Answer:
        """Wait for the next slot that is ready; raises what went wrong in a thread."""
        made = self._made.get()
        if isinstance(made, Exception):
            raise made
        return made

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()


def choose_workers(workers: int | None, process: bool | None, keeps: bool) -> Workers:
    """Choose what was left open: half the cores, in a process, but for pictures that are kept.

    What is kept is decoded once, so there it pays to take every core at the beginning, here.
    """
    cores = len(os.sched_getaffinity(0))
    usual = cores if keeps else max(1, cores // 2)
    threads = usual if workers is None else workers
    apart = not keeps if process is None else process
    return Workers(threads, apart and threads > 0, AHEAD if threads else 0)


def start_engine(
    folder: Folder,
    sizes: Sizes,
    workers: Workers,
    tokenizer: Tokenizer | None,
    options: dict[str, Any],
) -> Engine:
    """Start an engine; ``options`` are the rest of Reader's. Raises as LoaderProcess does."""
    if workers.in_process:
        written = None if tokenizer is None else tokenizer.to_str()
        return LoaderProcess(folder, sizes, options | {"tokenizer": written}, workers.threads)
    batches = SharedBatches(sizes)
    reader = Reader(folder, batches, tokenizer=tokenizer, **options)
    return LoaderThreads(reader, batches, workers.threads)
