"""Give a stream to torch's DataLoader: its workers share the batches, and its state resumes."""

import os
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from .batch import Batch
from .errors import OutputError, PoolError, Refused
from .folder import Folder, open_folder
from .stream import Stream

MOST_WORKERS = 1024
WORKER_FIELDS = ("workers", "batch_pairs", "end")
_left_by_the_parent: list[Iterator] = []  # to end them is the parent's


class EpochDataset(IterableDataset):
    """Batches of a folder in order, cut into iterations of one epoch each.

    An iteration takes the batches that begin in its epoch, ``len(dataset)`` of them on every rank;
    the next goes on with the batch after the last one, so that over the epochs no pair is left out
    or comes twice, whatever the batch size. Worker processes of a DataLoader take the batches in
    turn, so that their order is that of one process. Workers do not know where others were: call
    ``set_epoch(epoch)`` before every iteration, as with torch's DistributedSampler; one that could
    repeat another raises Refused.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        batch_pairs: int,
        rank: int = 0,
        world: int = 1,
        state: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._folder, self._options = folder, options
        self._batch_pairs, self._rank, self._world = batch_pairs, rank, world
        self._first = state
        self._planned: Stream | None = None
        self._pairs = len(self._plan().order)
        # Shared with the workers: where to begin, how often that was said, and for each worker
        # with which saying it has begun.
        self._said = torch.zeros(2 + MOST_WORKERS, dtype=torch.int64).share_memory_()
        self._batches: Iterator = iter(())
        self._open_at, self._end, self._told, self._is_fresh = -1, 0, 0, True
        self._begin_process()
        self._say(0)
        if state is not None:
            self.load_state_dict(state)

    def _plan(self) -> Stream:
        """Return a stream that knows the order and the place where this dataset began."""
        if self._planned is None:
            self._planned = Stream(
                self._folder,
                batch_pairs=self._batch_pairs,
                rank=self._rank,
                world=self._world,
                state=self._first,
                **self._plan_options(),
            )
        return self._planned

    @abstractmethod
    def _plan_options(self) -> dict[str, Any]:
        """Return the options of a Stream on which its order depends, or more of them."""

    @abstractmethod
    def _open(self, state: dict[str, Any], batch_pairs: int, rank: int, world: int) -> Iterator:
        """Return the batches of a rank from a state on, for ever."""

    @abstractmethod
    def _hand_out(self, batch: Any, after: int) -> Iterator:
        """Yield what an iteration gives for a batch; ``_count(after)`` before the last of it."""

    def __len__(self) -> int:
        """Return the batches of this iteration, or of the next; equal on every rank."""
        return -(-(self._end_of(self._begun) - self._begun) // self._batch_pairs)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration begin with the first batch of an epoch, counted from 0."""
        gap = epoch * self._pairs - self._begun
        # In steps from where it is: after another batch size that need be no multiple of this one.
        self._say(self._begun + -(-gap // self._batch_pairs) * self._batch_pairs)

    def state_after(self, batches: int) -> dict[str, Any]:
        """Return the state after some batches of this iteration, without asking a worker.

        It is equal on all ranks, under 200 bytes as JSON, and any number of ranks and workers may
        continue it.
        """
        return self._state(self._begun + batches * self._batch_pairs)

    def state_dict(self) -> dict[str, Any]:
        """Return the state after what this process has yielded; StatefulDataLoader asks for it.

        In a worker it is of that worker: as many workers with the same batches may continue it.
        """
        info = self._worker()
        if info is None:
            return self._state(self._next)
        own = (info.num_workers, self._batch_pairs, self._end)
        return self._state(self._next) | dict(zip(WORKER_FIELDS, own, strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; raises OutputError where it is of another stream or other workers."""
        info = self._worker()
        position = self._plan().position_in(state)
        workers, batch_pairs, end = (state.get(name) for name in WORKER_FIELDS)
        mine = (info.num_workers, self._batch_pairs) if info else (None, None)
        if (workers, batch_pairs) != mine:
            raise OutputError(
                "that state is of other DataLoader workers or batches: give as many of the same "
                "size, or save dataset.state_after(batches), which any number may continue"
            )
        if info is None:
            self._say(position)
            return
        self._next, self._end, self._resumes = position, int(end or 0), True
        if self._next >= self._end:
            self._said[0] = self._end  # the loader begins the next epoch with new workers

    def __iter__(self) -> Iterator:
        info = self._worker()
        if info is None:
            self._begun, self._end = self._next, self._end_of(self._next)
            self._said[2:] = self._said[1]  # no worker may repeat what is read here
            return self._iterate(self._begun, 0, 1)
        start = self._begin_worker(info.id)
        self._next = start + info.id * self._batch_pairs
        return self._iterate(start, info.id, info.num_workers)

    def _count(self, after: int) -> None:
        """Note that a batch was handed out, and that the next one begins at ``after``."""
        self._next = after

    def _begin_worker(self, worker: int) -> int:
        """Find out where worker 0 begins, in a worker; the others begin a batch later each."""
        said, slot = int(self._said[1]), 2 + worker
        if self._is_fresh:
            # Its own copy of what was said counts: the loader may be one that was left since.
            begin = int(self._said[0]) if said == self._told else self._begun
            said, is_new = self._told, int(self._said[slot]) < self._told
        else:
            begin, is_new = int(self._said[0]), said != self._told
        goes_on = not self._is_fresh and self._next >= self._end
        if not (self._resumes or is_new or goes_on):
            raise Refused(
                "DataLoader workers cannot know which epoch comes next: call "
                "dataset.set_epoch(epoch) before every iteration"
            )
        if self._resumes:
            begin = self._next - worker * self._batch_pairs
        else:
            begin = begin if is_new else self._end
            self._end = self._end_of(begin)
        if not self._resumes or self._next < self._end:
            self._said[slot] = said
        self._told, self._resumes, self._is_fresh = said, False, False
        return begin

    def _iterate(self, start: int, worker: int, workers: int) -> Iterator:
        """Yield a worker's share of the iteration that worker 0 begins at ``start``.

        Worker w of n on rank r of W takes every n-th batch, which is what rank w W + r of n W
        takes of batches that are n times as big.
        """
        stride = workers * self._batch_pairs
        if self._pairs < stride:
            raise PoolError(
                f"{self._pairs} pairs are fewer than a batch of {self._batch_pairs} for each of "
                f"{workers} DataLoader workers: take fewer workers or a smaller batch"
            )
        for at in range(start, self._end - worker * self._batch_pairs, stride):
            if self._open_at != at:
                rank, world = worker * self._world + self._rank, workers * self._world
                self._batches = self._open(self._state(at), stride, rank, world)
            self._open_at = at + stride
            yield from self._hand_out(next(self._batches), self._next + stride)

    def _say(self, position: int) -> None:
        self._said[0] = self._begun = self._next = position
        self._said[1] += 1
        self._told = int(self._said[1])

    def _worker(self) -> Any:
        """Return what torch says of this DataLoader worker, or None in any other process."""
        if os.getpid() != self._process:
            _left_by_the_parent.append(self._batches)
            if self._folder.storage.is_remote:
                self._folder = open_folder(**self._folder.source)
            self._begin_process()
        return get_worker_info()

    def _begin_process(self) -> None:
        self._process, self._is_fresh, self._resumes = os.getpid(), True, False
        self._batches, self._open_at = iter(()), -1

    def __getstate__(self) -> dict[str, Any]:
        gone = {"_batches": iter(()), "_planned": None}
        return self.__dict__ | {"_folder": self._folder.source} | gone

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._folder = open_folder(**state["_folder"])

    def _state(self, position: int) -> dict[str, Any]:
        return self._plan().state_at(position)

    def _end_of(self, start: int) -> int:
        """Return where the iteration that begins at ``start`` ends: with its epoch's last pair."""
        border = (start // self._pairs + 1) * self._pairs
        return start + -(-(border - start) // self._batch_pairs) * self._batch_pairs


class StreamDataset(EpochDataset):
    """The batches of a Stream for ``DataLoader(dataset, batch_size=None)``.

    Takes a Stream's options. Best without DataLoader workers: a stream has its own process. In a
    worker it has only threads. What is yielded belongs to the caller.
    """

    def _plan_options(self) -> dict[str, Any]:
        return self._options

    def _open(self, state: dict[str, Any], batch_pairs: int, rank: int, world: int) -> Iterator:
        options: dict[str, Any] = {"batch_pairs": batch_pairs, "rank": rank, "world": world}
        plan = self._plan()
        if get_worker_info() is not None:
            # A DataLoader's worker may have no children, and is one of several.
            options |= {"workers": 0} | self._options | {"process": False}
        elif plan.state() == state:
            return iter(plan)
        else:
            options |= self._options
        return iter(Stream(self._folder, state=state, **options))

    def _hand_out(self, batch: Batch, after: int) -> Iterator[Batch]:
        self._count(after)
        yield batch
