"""The learning rate, and what decays and is clipped."""

import pytest
import torch

from breadth.train.model import build_model
from breadth.train.recipe import TrainRecipe
from breadth.train.schedule import clip_gradients, learning_rate, make_optimiser

RECIPE = TrainRecipe(
    name="t", terms={"InfoNCE": 1, "Pixels": 1, "Tokens": 1}, steps=100, warmup_steps=10, lr=0.5
)


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine():
    """It is lr at the end of the rise, half of it in the middle and final_lr at the end."""
    assert learning_rate(RECIPE, 4) == pytest.approx(0.25)
    assert learning_rate(RECIPE, 9) == learning_rate(RECIPE, 10) == pytest.approx(0.5)
    assert learning_rate(RECIPE, 55) == pytest.approx(0.25)
    assert learning_rate(RECIPE, 100) == pytest.approx(0.0)


def test_only_matrices_decay():
    """Norms, biases, single tokens and the logit scale are free of weight decay."""
    model = build_model(RECIPE, 300)
    decays = {
        id(p): group["weight_decay"] > 0
        for group in make_optimiser(RECIPE, model).param_groups
        for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        free = name.endswith(("norm.weight", "bias", "filler", "kind", "class_token", "scale"))
        assert decays[id(parameter)] is not free, name


def test_the_decoder_is_clipped_by_itself():
    """A huge gradient in the decoder leaves the encoder's as it is."""
    model = build_model(RECIPE, 300)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, 1e6 if name.startswith("decoder.") else 1e-6)
    clip_gradients(RECIPE, model)
    assert model.image.class_token.grad[0] == torch.tensor(1e-6)
    decoder = torch.cat([p.grad.flatten() for p in model.decoder.parameters()])
    assert decoder.norm().item() == pytest.approx(1.0, rel=1e-4)
