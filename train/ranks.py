"""Several processes on one batch: what they exchange, exactly and with its gradient."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from breadth.loaders.errors import BreadthError, Failed, Refused

T = TypeVar("T")

ENDED = "ended by rank"
"""The note that a rank leaves for the others when it cannot go on."""
KNOWN = "all ranks know"
"""What an error says of itself that no rank has to be told of."""

DEVICES = ("cpu", "cuda")
TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What each process must be told of its place among the others; torchrun also says more."""


@dataclass(frozen=True)
class Ranks:
    """This process's number among those that train together; alone it is rank 0 of 1."""

    rank: int = 0
    world: int = 1

    def total(self, value: Tensor) -> Tensor:
        """Sum a tensor over the ranks, without a gradient."""
        if self.world == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value

    def gather(self, rows_bX: Tensor) -> Tensor:
        """Stack the rows of all ranks, [world * b, ...], through which gradients flow back."""
        if self.world == 1:
            return rows_bX
        gathered: Tensor = _Gather.apply(rows_bX, self)
        return gathered

    def each(self, value: T) -> list[T]:
        """Return every rank's value, in order; they travel pickled."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def agree(self, act: Callable[[], T]) -> T:
        """Do the same on every rank, and go on only if it went well on all of them.

        The lowest rank at which it did not raises its error; the others leave with that exit
        status and say nothing, so that one mistake is one line.
        """
        made, error = None, None
        try:
            made = act()
        except BreadthError as found:
            error = found
        statuses = self.each(None if error is None else error.exit_status)
        wrong = [rank for rank, status in enumerate(statuses) if status is not None]
        if wrong and self.rank != wrong[0]:
            raise SystemExit(statuses[wrong[0]])
        if error is not None:
            error.add_note(KNOWN)
            raise error
        return made  # type: ignore[return-value]

    def first(self, act: Callable[[], T]) -> T:
        """Do it on rank 0 alone and give all ranks what it returned; errors as in ``agree``."""
        made = self.agree(lambda: act() if self.rank == 0 else None)
        if self.world == 1:
            return made  # type: ignore[return-value]
        box = [made]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    """All ranks' rows; the gradient of mine is the sum of what every rank's loss says of them."""

    @staticmethod
    def forward(ctx: Any, rows_bX: Tensor, ranks: Ranks) -> Tensor:
        """Exchange the rows."""
        ctx.ranks = ranks
        pieces = [torch.empty_like(rows_bX) for _ in range(ranks.world)]
        dist.all_gather(pieces, rows_bX.contiguous())
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Sum the gradients of all ranks and keep those of mine."""
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(ctx.ranks.world)[ctx.ranks.rank], None


@contextmanager
def join_ranks(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that torchrun started, or be alone; give the ranks and this one's device.

    "cuda" is the card of this process's number. A rank that ends with an error ends the others:
    they leave silently, or raise Failed where it was killed. Raises Refused where this machine has
    no such device, or where it was not torchrun that said that there are others.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    lacking = [name for name in TORCHRUN if name not in os.environ]
    if world > 1 and lacking:
        raise Refused(
            f"WORLD_SIZE is {world} and {lacking[0]} is not set: start by torchrun, or unset"
            " WORLD_SIZE to train in one process"
        )
    place = open_device(device, os.environ.get("LOCAL_RANK", "0") if world > 1 else None)
    if world == 1:
        yield ALONE, place
        return
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    every, rank, world = _meeting()
    store = dist.PrefixStore(f"{next(_JOINED)}", every)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world), place
    except SystemExit:
        raise
    except Exception as error:
        if KNOWN in getattr(error, "__notes__", ()):
            raise
        note = _note(store)
        if note is None and not _is_broken(error):
            _leave_note(store, rank)
            raise
        if note is not None and note != str(rank):
            raise SystemExit(1) from None
        raise Failed(
            f"rank {rank} lost the others; what they said, or what ended them, is above: the last"
            " checkpoint is kept and the same command continues"
        ) from error
    gc.collect()  # a wrapped model that outlives its group waits for it for ever
    dist.destroy_process_group()


_JOINED = count()
"""Numbers the times that this process joined the others: each has names of its own."""


@lru_cache(maxsize=1)
def _meeting() -> tuple[Any, int, int]:
    """Return the store that torchrun set up, this process's rank and how many there are."""
    store, rank, world = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    return store, rank, world


def best_device() -> str:
    """Name the device to use where nobody chose one: a CUDA card if there is any."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def open_device(name: str, local_rank: str | None = None) -> torch.device:
    """Return the device of that name; raises Refused where this machine has none.

    ``local_rank`` numbers the processes on one machine; without it "cuda" is the current card.
    """
    if name.partition(":")[0] not in DEVICES:
        raise Refused(f"a run cannot be trained on {name!r}: use cpu, cuda or cuda:N")
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None and local_rank is not None:
            device = torch.device("cuda", int(local_rank))
            torch.cuda.set_device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"there is no device {name!r} here ({reason}); use cpu") from error
    return device


def _leave_note(store: Any, rank: int) -> None:
    """Say that a rank ended, unless the store is gone: rank 0, which holds it, ended before."""
    with suppress(RuntimeError, dist.DistError):
        store.set(ENDED, str(rank))


def _note(store: Any) -> str | None:
    """Return which rank said that it ended; None where none did or nobody can tell."""
    try:
        return store.get(ENDED).decode() if store.check([ENDED]) else None
    except (RuntimeError, dist.DistError):
        return None


def _is_broken(error: Exception) -> bool:
    """Tell whether it is the exchange that failed, not what this rank did itself."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
