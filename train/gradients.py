"""How the terms' gradients on the encoder compare: their lengths and the cosines between them."""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from .inputs import Inputs
from .parallel import whole
from .schedule import split_decoder
from .step import Step

BALANCE_STEPS = 50
"""How often the unit "gradient" is measured anew."""


def term_gradients(step: Step, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Return each term's own gradient on the encoder as one vector, float32 [parameters].

    Cost: one more step, forwards and backwards, for every term. Gradients are cleared.
    """
    found = {}
    for name in step.recipe.objective:
        model.zero_grad(set_to_none=True)
        step.backward(inputs, {name: 1.0})
        encoder, _ = split_decoder(model.named_parameters())
        found[name] = torch.cat(
            [
                whole(torch.zeros_like(p) if p.grad is None else p.grad).detach().float().flatten()
                for _, p in encoder
            ]
        )
    model.zero_grad(set_to_none=True)
    return found


def compare(gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Return lengths and cosines under the names that a log line has for them."""
    norms = {name: g.norm().item() for name, g in gradients.items()}
    said = {f"gradient/{name}": norm for name, norm in norms.items()}
    for one, other in combinations(gradients, 2):
        product = norms[one] * norms[other]
        cosine = (gradients[one] @ gradients[other]).item() / product if product else 0.0
        said[f"cosine/{one}/{other}"] = cosine
    return said


def gradient_units(step: Step, gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the factors that make "gradient" terms as long as the first term's gradient."""
    lengths = {name: g.norm().item() for name, g in gradients.items()}
    measure = next(iter(lengths.values()))
    return {
        name: measure / lengths[name] if lengths[name] else 0.0
        for name, entry in step.recipe.objective.items()
        if entry.unit == "gradient"
    }
