"""What a run learns and how: a flat TOML file of options and a table of weighted terms."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from breadth.loaders.errors import RecipeError

from .pool import POOLS, is_pool
from .terms import TERMS


@dataclass(frozen=True)
class Size:
    """Widths and depths that one word of a recipe sets."""

    width: int
    depth: int
    heads: int
    text_width: int
    text_depth: int
    text_heads: int
    embedding: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


SIZES: Mapping[str, Size] = {
    "nano": Size(64, 3, 2, 64, 1, 2, 64, 32, 1, 2),
    "micro": Size(128, 6, 4, 128, 2, 4, 128, 128, 1, 4),
    "tiny": Size(192, 12, 3, 192, 4, 3, 192, 128, 2, 4),
    "small": Size(384, 12, 6, 384, 6, 6, 384, 256, 4, 8),
    "base": Size(768, 12, 12, 512, 12, 8, 512, 512, 8, 16),  # ViT-B and CLIP's text tower
}


@dataclass(frozen=True)
class TrainRecipe:
    """Everything that decides what a run becomes, data and device excepted.

    Raises RecipeError where an option does not fit. A term of weight 0 is dropped, so that
    ``{"InfoNCE": 1, "Pixels": 0}`` is CLIP bit for bit.
    """

    name: str
    terms: Mapping[str, float]
    steps: int
    size: str = "nano"  # nano, micro, tiny, small, base
    image_px: int = 32
    patch_px: int = 8
    pool: str = "gap"  # cls, gap, max or topk:K
    context_length: int = 32  # tokens, begin and end included
    vocabulary: int = 1024  # tokens at most; used where RUN has no tokenizer yet
    batch_pairs: int = 256
    lr: float = 1e-3  # at the top of the schedule
    warmup_steps: int = 20
    final_lr: float = 0.0  # share of lr at the last step
    weight_decay: float = 0.1
    beta2: float = 0.95  # MAE, M3AE
    clip_norm: float = 1.0  # of the encoder's gradient, and of the decoder's
    image_mask: float = 0.75  # share of patches hidden; MAE, M3AE
    text_mask: float = 0.75  # share of caption tokens hidden; M3AE
    pixel_target: str = "raw"  # raw, or patch: each patch brought to mean 0 and variance 1
    variance_floor: float = 1e-2  # of target "patch": else a flat patch's noise is the target
    pixel_mean: tuple[float, float, float] = (0.481, 0.458, 0.408)  # CLIP's
    pixel_std: tuple[float, float, float] = (0.269, 0.261, 0.276)  # CLIP's
    log_steps: int = 10
    checkpoint_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every option by itself and with the others."""
        check_types(self)
        check_terms(self)
        check_ranges(self)

    @property
    def weights(self) -> dict[str, float]:
        """The terms that count, by name."""
        return {name: weight for name, weight in self.terms.items() if weight}

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON knows them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "TrainRecipe":
        """Make a recipe of what a TOML or JSON file holds."""
        known = [f.name for f in fields(cls)]
        for option in options:
            if option not in known:
                raise RecipeError(unknown("option", option, known))
        for option in (f.name for f in fields(cls) if f.default is MISSING):
            if option not in options:
                raise RecipeError(f"a training recipe needs the option {option}; add it")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
        }
        return cls(**values)


def check_types(recipe: TrainRecipe) -> None:
    """Refuse a value of another type than the option's; an int may stand for a float."""
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        by_type: dict[Any, bool] = {
            int: isinstance(value, int) and not isinstance(value, bool),
            float: is_number(value) and isfinite(value),
            str: isinstance(value, str),
            Mapping[str, float]: isinstance(value, Mapping),
        }
        if not by_type.get(field.type, is_colour(value)):
            raise RecipeError(f"option {field.name} = {value!r} is not {expected(field.type)}")


def check_terms(recipe: TrainRecipe) -> None:
    """Refuse unknown terms, weights that are no weights, and a recipe without any."""
    for name, weight in recipe.terms.items():
        if name not in TERMS:
            raise RecipeError(unknown("term", name, list(TERMS)))
        if not is_number(weight) or not isfinite(weight) or weight < 0:
            raise RecipeError(f"term {name} = {weight!r}: a weight is a number of at least 0")
    if not recipe.weights:
        raise RecipeError("no term has a weight above 0; set one under [terms]")


def check_ranges(recipe: TrainRecipe) -> None:
    """Refuse values that no run can use, each with the values that it can."""
    rules = {
        f"size must be one of {', '.join(SIZES)}": recipe.size in SIZES,
        f"pool must be one of {', '.join(POOLS)}": is_pool(recipe.pool),
        "pixel_target must be raw or patch": recipe.pixel_target in ("raw", "patch"),
        "patch_px must divide image_px": 0 < recipe.patch_px <= recipe.image_px
        and recipe.image_px % recipe.patch_px == 0,
        "vocabulary must be at least 260 (bytes and special tokens)": recipe.vocabulary >= 260,
        "context_length must be at least 3 (begin, a word, end)": recipe.context_length >= 3,
        "beta2 must lie between 0 and 1": 0 <= recipe.beta2 < 1,
        "final_lr must lie between 0 and 1": 0 <= recipe.final_lr <= 1,
        "pixel_std must be above 0": min(recipe.pixel_std) > 0,
    }
    for option in ("steps", "batch_pairs", "log_steps", "checkpoint_steps", "lr", "clip_norm"):
        rules[f"{option} must be above 0"] = getattr(recipe, option) > 0
    for option in ("warmup_steps", "weight_decay", "variance_floor", "seed"):
        rules[f"{option} must be at least 0"] = getattr(recipe, option) >= 0
    if "Pixels" in recipe.weights:
        patches = (recipe.image_px // max(1, recipe.patch_px)) ** 2
        rules["image_mask must hide one patch at least"] = int(patches * recipe.image_mask) > 0
    for option in ("image_mask", "text_mask"):
        rules[f"{option} must lie between 0 and 1"] = 0 < getattr(recipe, option) < 1
    for rule, holds in rules.items():
        if not holds:
            option = rule.split()[0]
            raise RecipeError(f"{rule}, not {getattr(recipe, option)!r}")


def is_number(value: object) -> bool:
    """Tell a number from a truth value or anything else."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_colour(value: object) -> bool:
    """Tell three numbers, for red, green and blue, from anything else."""
    return isinstance(value, tuple) and len(value) == 3 and all(map(is_number, value))


def expected(kind: Any) -> str:
    """Say in words which values an option takes."""
    words = {int: "a whole number", float: "a number", str: "a text in quotes"}
    return words.get(kind, "three numbers" if "tuple" in str(kind) else "a table of weights")


def unknown(kind: str, name: str, known: list[str]) -> str:
    """Say that a recipe has no such thing, and which one may be meant."""
    return f"a training recipe has no {kind} {name!r}; {suggest(name, known)}"


def suggest(name: str, known: list[str]) -> str:
    """Name the known name that is most like ``name``, or all."""
    lowered = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), lowered, n=1)
    return f"did you mean {lowered[close[0]]}?" if close else f"there are {', '.join(known)}"


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = files("breadth.train") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml")


def load_recipe(name: str | Path) -> TrainRecipe:
    """Read a shipped recipe by its name, or a TOML file by its path."""
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(f"there is no recipe file {path}")
        text = path.read_bytes()
    elif str(name) in shipped_recipes():
        text = (files("breadth.train") / "recipes" / f"{name}.toml").read_bytes()
    else:
        known = suggest(str(name), shipped_recipes())
        raise RecipeError(f"no training recipe {name} is shipped; {known}")
    try:
        options = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{name} is not TOML: {error}") from error
    return TrainRecipe.from_options({"name": path.stem, **options})
