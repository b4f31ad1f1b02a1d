"""One model on several ranks: a copy on each (DDP), or a share of each parameter (FSDP2)."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from .blocks import Block
from .model import Model
from .ranks import Ranks
from .terms import Views


def spread_model(model: Model, ranks: Ranks, *, compiled: bool, shard: bool) -> nn.Module:
    """Return what a step calls: the model, or what averages its gradients over the ranks.

    With ``shard`` each rank keeps a share of every parameter, gradient and optimiser state, and
    gathers a block's parameters while it computes the block; numbers alone stay whole. The model
    must be the same on all ranks and on its device.
    """
    if shard:
        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (ranks.world,))
        for block in (module for module in model.modules() if isinstance(module, Block)):
            if compiled:
                block.compile()
            fully_shard(block, mesh=mesh)
        model.register_forward_hook(_fresh_numbers)
        fully_shard(model, mesh=mesh, ignored_params=set(single_numbers(model)))
        return model
    if compiled:
        model.compile()
    if ranks.world == 1:
        return model
    with warnings.catch_warnings():
        # torch 2.13 renames broadcast_buffers; torch 2.7 does not know the new name
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def single_numbers(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are one number, which cannot be shared out."""
    return [parameter for parameter in model.parameters() if parameter.ndim == 0]


def _fresh_numbers(_module: nn.Module, _inputs: Any, views: Views) -> Views:
    """Give copies of parameters: sharding hangs a hook on every output, for good on a parameter."""
    return {n: v.clone() if isinstance(v, nn.Parameter) else v for n, v in views.items()}


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as it is without ranks; of a shared one all ranks must ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def mine(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that lies on this rank; changes to it are changes to both."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def share_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a whole tensor as the parameter lies: on its device, and this rank's part alone."""
    value = value.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def clip_norm_(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """Scale gradients in place to a norm of at most ``most``; return the norm before, whole."""
    if not any(isinstance(parameter, DTensor) for parameter in parameters):
        return nn.utils.clip_grad_norm_(parameters, most)
    graded = [parameter for parameter in parameters if parameter.grad is not None]
    shared = [mine(p.grad) for p in graded if isinstance(p, DTensor) and p.grad is not None]
    single = [p.grad for p in graded if not isinstance(p, DTensor) and p.grad is not None]
    squared = nn.utils.get_total_norm(shared) ** 2
    dist.all_reduce(squared)
    norm = (squared + sum(gradient.square().sum() for gradient in single)).sqrt()
    factor = (most / (norm + 1e-6)).clamp(max=1)
    for gradient in (*shared, *single):
        gradient.mul_(factor)
    return norm
