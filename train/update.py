"""One update of the weights: draw, take the gradient, clip, step; and say what was measured."""

from typing import Any

import torch
from torch import Tensor

from breadth.loaders.batch import Batch

from .digests import add_batch, digest_metrics, over_ranks
from .flops import Lengths, lengths_of
from .gradients import BALANCE_STEPS, compare, gradient_units, term_gradients
from .inputs import Inputs, draw_inputs
from .schedule import MAX_LOGIT_SCALE, clip_gradients, learning_rate
from .step import weights_at
from .trainee import Trainee

Metrics = dict[str, Any]


class Taken:
    """What one step measured, still on the device: to read it makes the host wait."""

    def __init__(self, rate: float, scalars: dict[str, Tensor], known: Metrics, inputs: Inputs):
        self._rate, self._scalars, self._known, self._inputs = rate, scalars, known, inputs

    def metrics(self, trainee: Trainee) -> Metrics:
        """Return the step's log line but for speed; all ranks ask together."""
        values = torch.stack([s.detach().float() for s in self._scalars.values()]).tolist()
        read = dict(zip(self._scalars, values, strict=True))
        scale = {"logit_scale": read.pop("logit_scale")} if "logit_scale" in read else {}
        seen = digest_metrics(over_ranks(trainee.seen, trainee.ranks))
        head = {"step": trainee.step, "loss": read.pop("loss"), "lr": self._rate}
        return {**head, **read, **self._known, **scale, **seen}

    @property
    def lengths(self) -> Lengths:
        """How long this rank's captions were."""
        return lengths_of(self._inputs)


def take_step(trainee: Trainee, batch: Batch) -> Taken:
    """Update the weights with one batch; only a look at gradients waits for the device."""
    recipe, model, step = trainee.recipe, trainee.model, trainee.step
    vocabulary, rank = trainee.vocabulary, trainee.ranks.rank
    inputs = draw_inputs(recipe, batch.images, batch.tokens, step, vocabulary=vocabulary, rank=rank)
    add_batch(trainee.seen, batch.uids, batch.positions, inputs)
    compared = look_at_gradients(trainee, inputs)
    weights = weights_at(recipe.objective, step / recipe.steps, trainee.units)
    moving = [name for name, entry in recipe.objective.items() if not entry.is_constant]
    known = {f"weight/{name}": weights[name] for name in moving} | compared
    trainee.optimiser.zero_grad(set_to_none=True)
    means = trainee.step_of.backward(inputs, weights)
    loss = torch.stack([weights[name] * mean for name, mean in means.items()]).sum()
    trainee.watch.note(step, loss, clip_gradients(recipe, model), batch.uids)
    rate = learning_rate(recipe, step)
    for group in trainee.optimiser.param_groups:
        group["lr"] = rate
    trainee.optimiser.step()
    trainee.step += 1
    scalars = {"loss": loss, **means}
    if recipe.has_joint_space:
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
            scalars["logit_scale"] = model.logit_scale.exp()
    trainee.follow()
    return Taken(rate, scalars, known, inputs)


def look_at_gradients(trainee: Trainee, inputs: Inputs) -> Metrics:
    """Measure the terms' gradients where a log line or a weight needs them; return the log's."""
    recipe, done = trainee.recipe, trainee.step
    is_weighed = any(entry.unit == "gradient" for entry in recipe.objective.values())
    is_due = is_weighed and done % BALANCE_STEPS == 0
    is_logged = recipe.gradient_steps > 0 and (done + 1) % recipe.gradient_steps == 0
    if not (is_due or is_logged):
        return {}
    gradients = term_gradients(trainee.step_of, trainee.model, inputs)
    if is_due:
        trainee.units = gradient_units(trainee.step_of, gradients)
    return compare(gradients) if is_logged else {}
