"""What training changes: weights, their average, the optimiser's state and the count of steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .model import Model, build_model
from .ranks import ALONE, Ranks
from .recipe import TrainRecipe
from .schedule import make_optimiser
from .step import Step

EMA = "ema."


@dataclass
class Trainee:
    """A model in training; ``average`` are its averaged weights where the recipe wants them.

    ``units`` are the lengths of the terms that are weighed in units of gradient.
    """

    recipe: TrainRecipe
    model: Model
    optimiser: torch.optim.Optimizer
    step_of: Step
    vocabulary: int
    step: int = 0
    units: dict[str, float] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.step_of.device

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights a little towards the weights."""
        for name, parameter in self.model.named_parameters():
            if name in self.average:
                self.average[name].lerp_(parameter, 1 - self.recipe.ema)


def make_trainee(
    recipe: TrainRecipe, vocabulary: int, device: torch.device, ranks: Ranks = ALONE
) -> Trainee:
    """Make a model and its optimiser at step 0."""
    model = build_model(recipe, vocabulary).to(device).train()
    runs: nn.Module = torch.compile(model) if recipe.compiled else model  # type: ignore[assignment]
    trainee = Trainee(
        recipe,
        model,
        make_optimiser(recipe, model),
        Step(recipe, runs, device, ranks),
        vocabulary,
    )
    if recipe.ema:
        trainee.average = {n: p.detach().clone() for n, p in model.named_parameters()}
    return trainee


def start_from(trainee: Trainee, weights: Mapping[str, Tensor]) -> list[str]:
    """Give a fresh trainee another run's weights where name and shape agree; return their names."""
    taken = []
    with torch.no_grad():
        for name, parameter in trainee.model.named_parameters():
            given = weights.get(name)
            if given is not None and given.shape == parameter.shape:
                parameter.copy_(given)
                taken.append(name)
            if name in trainee.average:
                trainee.average[name].copy_(parameter)
    return taken
