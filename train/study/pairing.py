"""Check that two runs differ in their objective alone."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from breadth.loaders.errors import Failed, PoolError, RecipeError, Refused

from ..checkpoint import read_checkpoint
from ..model import build_model
from ..recipe import TrainRecipe, load_recipe
from .design import Study

_MAY_DIFFER = {"name", "terms"}


def training_recipes(study: Study) -> dict[str, TrainRecipe]:
    """Return each objective's recipe at the first seed, checked to differ in its terms alone."""
    recipes = {o: training_recipe(study, o, study.seeds[0]) for o in study.objectives}
    check_paired(list(recipes.values()))
    batch = recipes[study.objectives[0]].batch_pairs
    if study.pairs < batch:
        raise Refused(f"a study of {study.pairs} pairs cannot fill a batch of {batch}; give more")
    return recipes


def training_recipe(study: Study, objective: str, seed: int) -> TrainRecipe:
    """Return the shipped recipe (or file) of an objective with the study's options set."""
    options = {**load_recipe(objective).to_json(), **study.training, "seed": seed}
    return TrainRecipe.from_options(options)


def initial_weights(recipe: TrainRecipe, vocabulary: int) -> dict[str, str]:
    """Return a digest of every parameter as a run of this recipe starts with it."""
    model = build_model(recipe, vocabulary)
    return {
        name: sha256(parameter.detach().to(torch.float32).numpy().tobytes()).hexdigest()
        for name, parameter in model.named_parameters()
    }


def check_paired(recipes: Sequence[TrainRecipe]) -> None:
    """Raise RecipeError unless the recipes share every option but their terms.

    Order and initialisation are pure functions of the seed and the other options; that the
    parameters two recipes share start equal is checked on the parameters themselves.
    """
    first, *rest = recipes
    start = initial_weights(first, first.vocabulary)
    for recipe in rest:
        for name in sorted({f.name for f in fields(recipe)} - _MAY_DIFFER):
            if getattr(recipe, name) != getattr(first, name):
                raise RecipeError(
                    f"{first.name} and {recipe.name} are no pair: {name} is "
                    f"{getattr(first, name)!r} and {getattr(recipe, name)!r}; set it in [training]"
                )
        other = initial_weights(recipe, recipe.vocabulary)
        unequal = [name for name in start if name in other and start[name] != other[name]]
        if unequal:
            raise RecipeError(
                f"{first.name} and {recipe.name} are no pair: {unequal[0]} starts differently"
            )


def trained_order(run: Path) -> str:
    """Return what identifies the order in which a finished run saw its pairs, and how far it got.

    It is read from what the trainer stored, not computed again.
    """
    saved = read_checkpoint(run)
    if saved is None:
        raise PoolError(f"{run} has no checkpoint: run the same command again")
    stream = saved[1]["stream"]
    return " ".join(f"{name}={value}" for name, value in sorted(stream.items()))


def check_orders(study: Study, rows: Mapping[tuple[str, int, str], Mapping[str, Any]]) -> None:
    """Raise Failed unless the objectives of each draw saw the same pairs in the same order."""
    for world in study.worlds:
        for seed in study.seeds:
            found = {o: rows[world, seed, o] for o in study.objectives if (world, seed, o) in rows}
            if len({(row["order"], row["data"]) for row in found.values()}) > 1:
                raise Failed(
                    f"the runs of {world}-{seed} did not see the same pairs in the same order: "
                    "their differences mean nothing; report this"
                )
