"""Several processes on one batch: what they exchange, exactly and with its gradient."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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
