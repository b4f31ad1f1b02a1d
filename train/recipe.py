"""What a run learns and how: a flat TOML file of options and a table of weighted terms."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from breadth.loaders.errors import RecipeError

from .architecture import ARCHITECTURES, Architecture
from .objective import Weighted, planned_views, read_terms, suggest
from .recipe_rules import check_ranges, check_types
from .size import SIZES, Size


@dataclass(frozen=True)
class TrainRecipe:
    """Everything that decides what a run becomes, data and device excepted.

    A term is a weight, or a table of ``weight`` (a number, or points [share of the steps, weight]),
    ``unit`` and the term's own options. Raises RecipeError where an option does not fit. A term of
    weight 0 is dropped, so that ``{"InfoNCE": 1, "Pixels": 0}`` is CLIP bit for bit.
    """

    name: str
    terms: Mapping[str, Any]
    steps: int
    size: str | Mapping[str, int] = "nano"  # nano, micro, tiny, small, base, or a table of Size
    architecture: str = "breadth"  # breadth, clip, clip_gelu, mae, siglip, coca, align
    towers: str = "two"  # or shared: one for both kinds of tokens (M3AE)
    decoder: str = "joint"  # or apart: hidden words are not predicted from the picture
    placebo: bool = False  # the decoder learns, from features that its gradient does not reach
    image_px: int = 32
    patch_px: int = 8
    pool: str = "gap"  # cls, gap, max, map or topk:K
    context_length: int = 32  # tokens, begin and end included
    vocabulary: int = 1024  # tokens at most; used where RUN has no tokenizer yet
    caption_queries: int = 16  # what a caption writer asks of a picture; CoCa has 256
    batch_pairs: int = 256
    micro_batch_pairs: int = 0  # at a time, to bound memory; 0 is the whole batch
    lr: float = 1e-3  # at the top of the schedule
    warmup_steps: int = 20
    final_lr: float = 0.0  # share of lr at the last step
    weight_decay: float = 0.1
    beta2: float = 0.95  # MAE, M3AE
    clip_norm: float = 1.0  # of the encoder's gradient, and of the decoder's
    ema: float = 0.0  # decay, at the end, of averaged weights, which a run is then used with
    augment: str = "center"  # or random_resized_crop, while decoding
    patch_dropout: float = 0.0  # share of patches that the contrasted picture loses (FLIP)
    crop_area: float = 0.08  # least share of the picture in each of two crops (SimCLR)
    image_mask: float = 0.75  # share of patches hidden; MAE, M3AE
    text_mask: float = 0.75  # share of caption tokens hidden; M3AE, while BERT hides 0.15
    caption_noise: float = 0.0  # share of pairs that get the caption of another one
    weights: Mapping[str, float] = field(default_factory=dict)  # mean visits by expression
    pixel_target: str = "raw"  # raw, or patch: each patch brought to mean 0 and variance 1
    variance_floor: float = 1e-2  # of target "patch": else a flat patch's noise is the target
    pixel_mean: tuple[float, float, float] = (0.481, 0.458, 0.408)  # CLIP's
    pixel_std: tuple[float, float, float] = (0.269, 0.261, 0.276)  # CLIP's
    precision: str = "float32"  # or bfloat16, where that costs nothing
    compiled: bool = False  # worth its minute from some thousand steps on
    recomputes: bool = False  # activations, block by block: half the memory, a third more time
    log_steps: int = 10
    gradient_steps: int = 0  # log each term's gradient every so many steps; 0 never
    checkpoint_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every option by itself and with the others."""
        check_types(self)
        check_ranges(self)

    @cached_property
    def objective(self) -> dict[str, Weighted]:
        """The terms that count, by name, in the recipe's order."""
        return read_terms(self.terms)

    @cached_property
    def views(self) -> frozenset[str]:
        """The views that the terms need."""
        return planned_views(self.objective)

    @property
    def has_joint_space(self) -> bool:
        """Tell whether pictures and captions are compared: InfoNCE and Sigmoid do so."""
        both = {"image", "text"}
        return any(w.term.coupled and w.term.views >= both for w in self.objective.values())

    @property
    def widths(self) -> Size:
        """The numbers behind the size."""
        return SIZES[self.size] if isinstance(self.size, str) else Size(**self.size)

    @property
    def towers_architecture(self) -> Architecture:
        """The choices behind the architecture."""
        return ARCHITECTURES[self.architecture]

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_px // self.patch_px

    @property
    def keeps_length(self) -> bool:
        """Tell whether captions stay padded to the context: where that is seen, or compiled."""
        return self.towers_architecture.padding_seen or self.compiled

    def logs(self, step: int) -> bool:
        """Tell whether a step, counted from 1, has a log line; one that looks at gradients does."""
        every = (self.log_steps, self.gradient_steps or self.log_steps)
        return step in (1, self.steps) or any(step % steps == 0 for steps in every)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON gives them back: equal to what is read of a file."""
        options: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return options

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "TrainRecipe":
        """Make a recipe of what a TOML or JSON file holds."""
        known = [f.name for f in fields(cls)]
        for option in options:
            if option not in known:
                raise RecipeError(
                    f"a training recipe has no option {option!r}; {suggest(option, known)}"
                )
        for option in (f.name for f in fields(cls) if f.default is f.default_factory is MISSING):
            if option not in options:
                raise RecipeError(f"a training recipe needs the option {option}; add it")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
        }
        return cls(**values)


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
