"""Put a run in words: what it learns, how large it is, how much it has seen."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from ..objective import Weighted
from ..recipe import TrainRecipe

PICTURES = frozenset({"image", "masked image", "two crops"})
CAPTIONS = frozenset({"text", "masked text", "corrupted text"})
"""The views that take a tower for pictures, and one for captions."""


def in_words(
    recipe: TrainRecipe, data: Mapping[str, Any], step: int, parameters: int | None
) -> dict[str, str]:
    """Return the lines of a run's card by name.

    ``data`` is what config.json says of the pairs; ``step`` the last one that was logged.
    """
    count = "" if parameters is None else f", {parameters:,} parameters"
    size = recipe.size if isinstance(recipe.size, str) else "a size of its own"
    words = {
        "terms": objective_words(recipe),
        "size": f"{size}: {tower_words(recipe)}{count}",
        "pictures": f"{recipe.image_px} px in {recipe.grid} x {recipe.grid} patches, pool "
        f"{recipe.pool}",
        "steps": f"{step:,} of {recipe.steps:,}, each of {recipe.batch_pairs:,} pairs, "
        f"learning rate {recipe.lr:g}",
        "pairs seen": seen_words(step * recipe.batch_pairs, data),
    }
    if not recipe.views & PICTURES:
        del words["pictures"]
    return words


def tower_words(recipe: TrainRecipe) -> str:
    """Say which towers the terms need, how wide they are and how deep."""
    size = recipe.widths
    pictures = f"{size.width} wide, {size.depth} deep"
    captions = f"{size.text_width} wide, {size.text_depth} deep"
    if recipe.towers == "shared":
        return f"one tower, {pictures}"
    needed = {f"picture tower {pictures}": PICTURES, f"caption tower {captions}": CAPTIONS}
    return ", ".join(words for words, views in needed.items() if recipe.views & views)


def objective_words(recipe: TrainRecipe) -> str:
    """Write the terms with their weights."""
    placebo = " (placebo: the decoder's gradient stays in it)" if recipe.placebo else ""
    return ", ".join(term_words(*entry) for entry in recipe.objective.items()) + placebo


def seen_words(seen: int, data: Mapping[str, Any]) -> str:
    """Say how many pairs were seen and how often each."""
    pairs = int(data.get("pairs") or 0)
    if data.get("subset"):
        return f"{seen:,}, of a subset of {pairs:,}"
    return f"{seen:,}" + (f": {seen / pairs:.1f} times {pairs:,}" if pairs else "")


def term_words(name: str, weighted: Weighted) -> str:
    """Write a term's weight, its unit and the options that are not its defaults."""
    points = weighted.weight
    weight = f"{points[0][1]:g}"
    if len(points) > 1:
        weight = " → ".join(f"{w:g} at {100 * share:g} %" for share, w in points)
    unit = " of the first term's gradient" if weighted.unit == "gradient" else ""
    options = [
        f"{field.name} {getattr(weighted.term, field.name)}"
        for field in fields(weighted.term)
        if field.default is MISSING or getattr(weighted.term, field.name) != field.default
    ]
    return f"{name} {weight}{unit}" + (f" ({', '.join(options)})" if options else "")


def term_meaning(weighted: Weighted) -> str:
    """Return the first sentence of a term's own description."""
    return (type(weighted.term).__doc__ or "").strip().split("\n")[0].rstrip(".")


def differences(recipes: Sequence[TrainRecipe]) -> list[tuple[str, list[str]]]:
    """Return the options in which recipes differ, with each one's value; names do not count."""
    rows = []
    for option in fields(TrainRecipe):
        values = [option_text(recipe, option.name) for recipe in recipes]
        if option.name != "name" and len(set(values)) > 1:
            rows.append((option.name, values))
    return rows


def option_text(recipe: TrainRecipe, name: str) -> str:
    """Write an option's value for people."""
    value = getattr(recipe, name)
    if name == "terms":
        return objective_words(recipe)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner:g}" for key, inner in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
