"""Fresh weights: each parameter from a stream of its own name, so that runs begin alike."""

import math

import torch
from torch import nn

from .blocks import Stack
from .seeds import generator

LOGIT_SCALE = {"InfoNCE": math.log(1 / 0.07), "Sigmoid": math.log(10.0)}
"""CLIP, section 2.5; SigLIP, section 3.2."""

LOGIT_BIAS = -10.0  # SigLIP, section 3.2


def initialise(model: nn.Module, seed: int, logit_scale: float) -> None:
    """Set every parameter from a stream of its own name, whatever else the model holds."""
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in named.items():
            draws = generator(seed, f"init/{name}")
            if name == "logit_scale":
                parameter.fill_(logit_scale)
            elif name == "logit_bias":
                parameter.fill_(LOGIT_BIAS)
            elif name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            elif name == "text.token.weight":
                # As large as the fixed positions, which would drown a small start in one layer.
                parameter.normal_(std=0.7, generator=draws)
            elif parameter.ndim == 1 or "positions" in name:
                parameter.normal_(std=0.02, generator=draws)
            else:
                nn.init.xavier_uniform_(parameter, generator=draws)
        for stack in (m for m in model.modules() if isinstance(m, Stack)):
            stack.quieten()
