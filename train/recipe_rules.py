"""What the options of a training recipe may be, each by itself and with the others."""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from typing import TYPE_CHECKING, Any

from breadth.loaders.errors import RecipeError

from .architecture import ARCHITECTURES
from .mask import kept_patches
from .objective import is_number
from .pool import POOLS, is_pool
from .size import SIZES, Size

if TYPE_CHECKING:
    from .recipe import TrainRecipe

CHOICES = {
    "architecture": tuple(ARCHITECTURES),
    "towers": ("two", "shared"),
    "decoder": ("joint", "apart"),
    "augment": ("center", "random_resized_crop"),
    "pixel_target": ("raw", "patch"),
    "precision": ("float32", "bfloat16"),
}
ABOVE_0 = (
    *("steps", "batch_pairs", "log_steps", "checkpoint_steps", "lr", "clip_norm"),
    "caption_queries",
)
AT_LEAST_0 = (
    *("warmup_steps", "weight_decay", "variance_floor", "seed", "micro_batch_pairs"),
    "gradient_steps",
)


def check_types(recipe: TrainRecipe) -> None:
    """Refuse a value of another type than the option's; an int may stand for a float."""
    for option in fields(recipe):
        value, kind = getattr(recipe, option.name), str(option.type)
        by_type: dict[str, bool] = {
            str(int): isinstance(value, int) and not isinstance(value, bool),
            str(float): _is_finite(value),
            str(str): isinstance(value, str),
            str(bool): isinstance(value, bool),
        }
        fits = by_type.get(kind, _fits_else(value, kind))
        if not fits:
            raise RecipeError(f"option {option.name} = {value!r} is not {_expected(kind)}")


def check_ranges(recipe: TrainRecipe) -> None:
    """Refuse values that no run can use, each with the values that it can."""
    _ = recipe.objective  # refuses terms that are none
    for rule, holds in {**_single_rules(recipe), **_joint_rules(recipe)}.items():
        if not holds:
            option = rule.split()[0]
            raise RecipeError(f"{rule}, not {getattr(recipe, option)!r}")


def _single_rules(recipe: TrainRecipe) -> dict[str, bool]:
    table = f"a table of {', '.join(_size_fields())}; widths are multiples of 4 and of their heads"
    sizes = f"size must be one of {', '.join(SIZES)}, or {table}"
    rules = {
        sizes: _is_size(recipe.size),
        f"pool must be one of {', '.join(POOLS)}": is_pool(recipe.pool),
        "vocabulary must be at least 260 (bytes and special tokens)": recipe.vocabulary >= 260,
        "context_length must be at least 3 (begin, a word, end)": recipe.context_length >= 3,
        "context_length must be at most 4096": recipe.context_length <= 4096,
        "final_lr must lie between 0 and 1": 0 <= recipe.final_lr <= 1,
        "pixel_std must be above 0": min(recipe.pixel_std) > 0,
        "crop_area must be above 0 and at most 1": 0 < recipe.crop_area <= 1,
        "caption_noise must lie between 0 and 1": 0 <= recipe.caption_noise <= 1,
    }
    for option, choices in CHOICES.items():
        rules[f"{option} must be {' or '.join(choices)}"] = getattr(recipe, option) in choices
    for option in ABOVE_0:
        rules[f"{option} must be above 0"] = getattr(recipe, option) > 0
    for option in AT_LEAST_0:
        rules[f"{option} must be at least 0"] = getattr(recipe, option) >= 0
    for option in ("image_mask", "text_mask"):
        rules[f"{option} must lie between 0 and 1"] = 0 < getattr(recipe, option) < 1
    for option in ("beta2", "ema", "patch_dropout"):
        rules[f"{option} must be at least 0 and below 1"] = 0 <= getattr(recipe, option) < 1
    return rules


def _joint_rules(recipe: TrainRecipe) -> dict[str, bool]:
    patch_fits = 0 < recipe.patch_px <= recipe.image_px and recipe.image_px % recipe.patch_px == 0
    rules = {"patch_px must divide image_px": patch_fits}
    if not patch_fits or recipe.architecture not in ARCHITECTURES or not _is_size(recipe.size):
        return rules
    size, chosen = recipe.widths, recipe.towers_architecture
    micro = recipe.micro_batch_pairs
    rules["micro_batch_pairs must divide batch_pairs"] = (
        not micro or recipe.batch_pairs % micro == 0
    )
    rules["pool must be another than cls: this architecture has no class token"] = (
        recipe.pool != "cls" or chosen.class_token
    )
    rules["size must have one width for both towers and their space in this architecture"] = (
        chosen.projects or size.width == size.text_width == size.embedding
    )
    rules["architecture must have a causal caption tower for the term Caption: coca or clip"] = (
        "caption" not in recipe.views or chosen.causal_text
    )
    rules["architecture must read captions both ways for corrupted Tokens, as breadth does"] = (
        "corrupted text" not in recipe.views or not chosen.causal_text
    )
    rules["towers must be two for the term Caption"] = (
        "caption" not in recipe.views or recipe.towers == "two"
    )
    rules["batch_pairs must be at least 2 for terms that compare pairs"] = (
        recipe.batch_pairs > 1 or not any(w.term.coupled for w in recipe.objective.values())
    )
    rules["pool must ask for no more patches than the tower is given"] = _has_pooled(recipe)
    rules[
        "placebo must be left out unless terms on masked views, in units of loss, are to teach"
    ] = not recipe.placebo or _has_placebo(recipe)
    if "masked image" in recipe.views:
        rules["image_px must be above patch_px: of two patches one is hidden"] = recipe.grid > 1
    return rules


def _has_pooled(recipe: TrainRecipe) -> bool:
    """Tell whether a picture has as many patches as are pooled."""
    kind, _, count = recipe.pool.partition(":")
    given = kept_patches(recipe.grid**2, recipe.patch_dropout)
    return kind != "topk" or not is_pool(recipe.pool) or int(count) <= given


def _has_placebo(recipe: TrainRecipe) -> bool:
    """Tell whether detached features leave every term that does not compare pairs without a say.

    A gradient that is none has no length to weigh a term by.
    """
    teaching = [w for w in recipe.objective.values() if not w.term.coupled]
    return bool(teaching) and all(
        w.unit == "loss" and w.term.views <= {"masked image", "masked text"} for w in teaching
    )


def _size_fields() -> list[str]:
    return [field.name for field in fields(Size)]


def _is_size(value: Any) -> bool:
    if isinstance(value, str):
        return value in SIZES
    if set(value) != set(_size_fields()):
        return False
    numbers = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value.values())
    # Fixed positions need channels in fours on a grid, in twos on a line.
    return numbers and all(
        value[f"{tower}width"] % value[f"{tower}heads"] == value[f"{tower}width"] % 4 == 0
        for tower in ("", "text_", "decoder_")
    )


def _fits_else(value: Any, kind: str) -> bool:
    if "tuple" in kind:
        return isinstance(value, tuple) and len(value) == 3 and all(map(_is_finite, value))
    if "str |" in kind:
        return isinstance(value, str | dict)
    if "float" in kind:
        return isinstance(value, dict) and all(map(_is_finite, value.values()))
    return isinstance(value, dict)


def _is_finite(value: Any) -> bool:
    return is_number(value) and isfinite(value)


def _expected(kind: str) -> str:
    """Say in words which values an option takes."""
    words = {
        str(int): "a whole number",
        str(float): "a number",
        str(str): "a text in quotes",
        str(bool): "true or false",
    }
    if "str |" in kind:
        return "a text in quotes, or a table of whole numbers"
    return words.get(kind, "three numbers" if "tuple" in kind else "a table of weights")
