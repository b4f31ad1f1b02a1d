"""The learning rate of every step, the optimiser and what it clips."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .parallel import clip_norm_
from .recipe import TrainRecipe

MAX_LOGIT_SCALE = math.log(100.0)  # CLIP, section 2.5

Named = list[tuple[str, nn.Parameter]]


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Return the rate of update ``step`` (from 0): a linear rise, then half a cosine."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    floor = recipe.final_lr
    return recipe.lr * (floor + (1 - floor) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


DECODERS = ("decoder.", "captioner.", "projector.", "token_head.")
"""What only some of the terms have; all else is the encoder, which CLIP has too."""


def split_decoder(parameters: Iterable[tuple[str, nn.Parameter]]) -> tuple[Named, Named]:
    """Part encoder and decoder, which are clipped apart: a heavy decoder must not damp CLIP."""
    named = list(parameters)
    encoder = [(n, p) for n, p in named if not n.startswith(DECODERS)]
    return encoder, [(n, p) for n, p in named if n.startswith(DECODERS)]


def make_optimiser(recipe: TrainRecipe, model: nn.Module) -> torch.optim.AdamW:
    """Make AdamW; norms, biases, single tokens and the logit scale do not decay."""
    parameters = list(model.parameters())
    decayed = {"params": [p for p in parameters if p.ndim >= 2]}
    others = {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}
    # By themselves: ranks that share out parameters keep these whole.
    numbers = {"params": [p for p in parameters if p.ndim == 0], "weight_decay": 0.0}
    return torch.optim.AdamW(
        [group for group in (decayed, others, numbers) if group["params"]],
        lr=recipe.lr,
        betas=(0.9, recipe.beta2),
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def clip_gradients(recipe: TrainRecipe, model: nn.Module) -> Tensor:
    """Clip the encoder's and the decoder's gradient, each by its norm; return their norms."""
    groups = split_decoder(model.named_parameters())
    norms = [clip_norm_([p for _, p in group], recipe.clip_norm) for group in groups if group]
    return torch.stack(norms)
