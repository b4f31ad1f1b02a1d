"""One update of the weights: draw, take the gradient, clip, step, and say what was measured."""

from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from breadth.loaders.batch import Batch
from breadth.loaders.errors import Failed

from .gradients import BALANCE_STEPS, compare, gradient_units, term_gradients
from .inputs import Inputs, draw_inputs
from .schedule import MAX_LOGIT_SCALE, clip_gradients, learning_rate
from .step import weights_at
from .trainee import Trainee

Metrics = dict[str, Any]


def take_step(trainee: Trainee, batch: Batch, out: Path) -> Metrics:
    """Update the weights with one batch; return the step's metrics."""
    recipe, model, step = trainee.recipe, trainee.model, trainee.step
    vocabulary, rank = trainee.vocabulary, trainee.step_of.ranks.rank
    inputs = draw_inputs(recipe, batch.images, batch.tokens, step, vocabulary=vocabulary, rank=rank)
    compared = look_at_gradients(trainee, inputs)
    weights = weights_at(recipe.objective, step / recipe.steps, trainee.units)
    trainee.optimiser.zero_grad(set_to_none=True)
    means = trainee.step_of.backward(inputs, weights)
    loss = torch.stack([weights[name] * mean for name, mean in means.items()]).sum()
    norms = clip_gradients(recipe, model)
    rate = learning_rate(recipe, step)
    if not bool((loss.isfinite() & norms.isfinite().all()).item()):
        report_not_finite(trainee, loss, rate, batch, out)
    for group in trainee.optimiser.param_groups:
        group["lr"] = rate
    trainee.optimiser.step()
    trainee.step += 1
    metrics: Metrics = {"step": trainee.step, "loss": loss.item(), "lr": rate}
    metrics |= {name: mean.item() for name, mean in means.items()} | compared
    if "image" in model.views:
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        metrics["logit_scale"] = model.logit_scale.exp().item()
    trainee.follow()
    return metrics


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


def report_not_finite(
    trainee: Trainee, loss: Tensor, rate: float, batch: Batch, out: Path
) -> NoReturn:
    """Raise Failed, with the batch's uids in a file; weights and checkpoint stay as they are."""
    listed = out / "not_finite.txt"
    listed.write_text("\n".join(batch.uids) + "\n", encoding="utf-8")
    raise Failed(
        f"loss or gradient is not finite at step {trainee.step + 1} (loss {loss.item():.4g},"
        f" learning rate {rate:.3g}, uids of the batch from {batch.uids[0]} on in {listed});"
        " the last checkpoint is kept: train again in another folder with a smaller lr"
    )
