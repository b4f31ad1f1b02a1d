"""What training changes: weights, their average, the optimiser's state and the count of steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .digests import Sums
from .finite import FiniteWatch
from .model import Model, build_model
from .parallel import mine, share_like, single_numbers, spread_model
from .ranks import ALONE, Ranks
from .recipe import TrainRecipe
from .schedule import make_optimiser
from .step import Step


@dataclass
class Trainee:
    """A model in training; ``average`` are its averaged weights where the recipe wants them.

    ``units`` are the lengths of the terms that are weighed in units of gradient; ``seen`` are this
    rank's sums of what it was given (``digests``), ``watch`` what became of its loss.
    """

    recipe: TrainRecipe
    model: Model
    optimiser: torch.optim.Optimizer
    step_of: Step
    vocabulary: int
    watch: FiniteWatch
    step: int = 0
    units: dict[str, float] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    seen: Sums = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.step_of.device

    @property
    def ranks(self) -> Ranks:
        """Which part of every batch is given to it."""
        return self.step_of.ranks

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights a little towards the weights, at first by more.

        The decay is at most (1 + t) / (10 + t) after t steps, so that the random weights of the
        beginning are soon forgotten. Source: TensorFlow's ExponentialMovingAverage, num_updates.
        """
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, parameter in self.model.named_parameters():
            if name in self.average:
                mine(self.average[name]).lerp_(mine(parameter), 1 - decay)


def make_trainee(
    recipe: TrainRecipe,
    vocabulary: int,
    device: torch.device,
    ranks: Ranks = ALONE,
    *,
    shard: bool = False,
) -> Trainee:
    """Make a model and its optimiser at step 0, a share of both where ranks ``shard`` it."""
    model = build_model(recipe, vocabulary).to(device).train()
    runs = spread_model(model, ranks, compiled=recipe.compiled, shard=shard)
    numbers = single_numbers(model) if shard else ()
    trainee = Trainee(
        recipe,
        model,
        make_optimiser(recipe, model),
        Step(recipe, runs, device, ranks, numbers),
        vocabulary,
        FiniteWatch(device),
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
                parameter.copy_(share_like(given, parameter))
                taken.append(name)
            if name in trainee.average:
                trainee.average[name].copy_(parameter)
    return taken
