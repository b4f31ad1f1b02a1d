"""Read a study: which worlds, objectives and seeds, and what is compared."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from breadth.loaders.errors import RecipeError, Refused
from breadth.loaders.scene_words import KINDS
from breadth.loaders.world import World

from ..evaluate.drawn_scores import CHANGES, MAPS, MEASURES
from ..evaluate.retrieval import KS

_TYPES: Mapping[str, tuple[Any, str]] = {
    str(str): (str, "a text in quotes"),
    str(int): (int, "a whole number"),
    str(float): (int | float, "a number"),
    str(tuple[str, ...]): (tuple, "a list of texts"),
    str(tuple[int, ...]): (tuple, "a list of whole numbers"),
}


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    world: str
    seed: int
    objective: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.world}-{self.seed}-{self.objective}"


@dataclass(frozen=True)
class Study:
    """Every objective is trained in every world with every seed.

    A seed draws the world, its scenes, the order and the initialisation; the objectives of one
    world and seed share all four, so that their difference is the objective's. The first
    objective is the baseline. ``training`` holds options of the training recipes. A run is scored
    on ``held_out_pairs`` other scenes of its own world.
    """

    name: str
    objectives: tuple[str, ...]
    worlds: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    pairs: int
    metrics: tuple[str, ...]
    tasks: tuple[str, ...]
    templates: tuple[str, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    held_out_pairs: int = 2000
    picture_px: int = 64
    effect_points: float = 1.0
    note: str = ""

    def world(self, name: str, seed: int) -> World:
        """Return a world with its dials set; raises RecipeError for a dial that does not exist."""
        dials = self.worlds[name]
        if not isinstance(dials, Mapping):
            raise RecipeError(f"world {name!r} = {dials!r} is not a table of dials")
        _known(dials, {f.name for f in fields(World)} - {"seed"}, f"world {name!r}", "dial")
        for dial in (f for f in fields(World) if f.name in dials):
            value, wanted = dials[dial.name], _TYPES[str(float if dial.type is float else int)]
            if not isinstance(value, wanted[0]) or isinstance(value, bool):
                raise RecipeError(f"world {name!r}: {dial.name} = {value!r} is not {wanted[1]}")
        return World(seed=seed, **dials)

    def cells(self) -> list[Cell]:
        """List the runs: draw by draw, so that a stopped study has whole pairs."""
        return [
            Cell(world, seed, objective)
            for seed in self.seeds
            for world in self.worlds
            for objective in self.objectives
        ]


def read_study(name: str) -> Study:
    """Read a shipped study by name, or a file that ends in .toml.

    Raises Refused where there is none, RecipeError where it is not one.
    """
    path = Path(name) if name.endswith(".toml") else Path(__file__).parent / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in Path(__file__).parent.glob("*.toml")))
        raise Refused(f"no study {name!r}: give a .toml file or one of {shipped}")
    try:
        return parse_study(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def parse_study(text: str) -> Study:
    """Make a study of its TOML text, or raise RecipeError."""
    options = tomllib.loads(text)
    _known(options, {f.name for f in fields(Study)}, "the study", "option")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for option in (f for f in fields(Study) if f.default is MISSING):
        if option.default_factory is MISSING and option.name not in values:
            raise RecipeError(f"a study needs the option {option.name}; add it")
    study = Study(**values)
    _check_types(study)
    _check(study)
    return study


def _check_types(study: Study) -> None:
    for option in fields(study):
        value = getattr(study, option.name)
        wanted = _TYPES.get(str(option.type), (Mapping, "a table"))
        if not isinstance(value, wanted[0]) or isinstance(value, bool):
            raise RecipeError(f"option {option.name} = {value!r} is not {wanted[1]}")
        inner = int if option.type == tuple[int, ...] else str
        if isinstance(value, tuple) and not all(isinstance(v, inner) for v in value):
            raise RecipeError(f"option {option.name} = {list(value)} is not {wanted[1]}")


def _check(study: Study) -> None:
    counts = (study.pairs, study.held_out_pairs, study.picture_px)
    wrong = {
        "at least two objectives": len(set(study.objectives)) < 2,
        "different objectives": len(set(study.objectives)) < len(study.objectives),
        "one world at least": not study.worlds,
        "different seeds, one at least": not study.seeds
        or len(set(study.seeds)) < len(study.seeds),
        "seeds from 0": min(study.seeds, default=0) < 0,
        "pairs, held_out_pairs and picture_px of at least 1": min(counts) < 1,
        "one metric at least": not study.metrics,
        "an effect_points above 0": not study.effect_points > 0,
        "templates with {} where the class goes": not study.templates
        or not all("{}" in template for template in study.templates),
        "a [training] without name, terms and seed, which objectives and seeds set": bool(
            {"name", "terms", "seed"} & set(study.training)
        ),
    }
    for needed, missing in wrong.items():
        if missing:
            raise RecipeError(f"a study needs {needed}")
    for name in study.worlds:
        world = study.world(name, study.seeds[0])
        for task in study.tasks:
            world.classes(task)
    _known(study.metrics, _metrics(study.tasks), "a study with these tasks", "metric")


def _metrics(tasks: tuple[str, ...]) -> set[str]:
    ways = ("picture_to_caption", "caption_to_picture")
    retrieval = {f"retrieval.{way}.R@{k}" for way in ways for k in KS}
    named = {f"{kind}.{task}" for kind in ("zero_shot", "probe", "knn") for task in tasks}
    return retrieval | named | {f"vqa.{kind}" for kind in KINDS} | _drawn_metrics()


def _drawn_metrics() -> set[str]:
    """Name the scores of drawn scenes; those of robustness differ with the way to answer."""
    looks = product(MAPS, ("main", "companions"), MEASURES)
    changes = product(("zero_shot", "probe"), ("shape", "colour"), CHANGES, ("before", "after"))
    return {f"grounding.maps.{m}.{thing}.{measure}" for m, thing, measure in looks} | {
        f"robustness.{by}.{task}.changes.{change}.{when}" for by, task, change, when in changes
    }


def _known(given: Iterable[str], known: set[str], where: str, what: str) -> None:
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"
            )
            raise RecipeError(f"{where} has no {what} {name!r}; {hint}")
