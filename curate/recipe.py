"""Read a recipe, prove that its stages fit together, and name what it would do."""

import difflib
import importlib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from breadth.loaders.errors import RecipeError

from .pool_layouts import LAYOUTS
from .schema import VERDICT
from .stage import STAGES, Stage

SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class PoolColumns:
    """Which columns of the pool hold links and captions; None finds the usual names."""

    url_col: str | None = None
    caption_col: str | None = None
    layout: str | None = None  # of a published pool: laion, datacomp, cc3m, cc12m or coyo

    def __post_init__(self) -> None:
        if self.layout is None:
            return
        if self.layout not in LAYOUTS:
            raise RecipeError(
                f"[pool] layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}"
                + hint(self.layout, LAYOUTS)
            )
        if self.url_col is not None or self.caption_col is not None:
            raise RecipeError("[pool] layout says which columns: leave out url_col and caption_col")


@dataclass(frozen=True)
class Output:
    """How the result is laid out on disk."""

    materialise: bool = True  # copy kept pairs into shards of equal size; false writes a uid list
    keep_staged: bool = False  # keep every fetched picture, for further recipes on the same folder
    pairs_per_shard: int = 10_000
    part_pairs: int = 10_000  # pairs in one task, at most
    thumbs_per_reason: int = 24  # pictures the report can show for each drop reason

    def __post_init__(self) -> None:
        for name in ("pairs_per_shard", "part_pairs"):
            if getattr(self, name) < 1:
                raise RecipeError(f"[output] {name} must be at least 1")
        if self.thumbs_per_reason < 0:
            raise RecipeError("[output] thumbs_per_reason must be at least 0")


@dataclass(frozen=True)
class Recipe:
    """What to do to a pool, in order."""

    name: str
    stages: tuple[Stage, ...]
    seed: int = 0
    pool: PoolColumns = PoolColumns()
    output: Output = Output()
    text: str = ""

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        """Read a recipe file, or a shipped recipe by name; raises RecipeError."""
        file = _find(path)
        try:
            text = file.read_text(encoding="utf-8")
            return cls.from_mapping(tomllib.loads(text), text)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{file} is not valid TOML: {error}") from None

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any], text: str = "") -> "Recipe":
        """Make a recipe from the tables of a TOML file; raises RecipeError."""
        _only(table, {"name", "seed", "stage", "pool", "output"}, "the recipe")
        if not table.get("name") or not table.get("stage"):
            raise RecipeError("a recipe needs a name and at least one [[stage]]")
        stages, seed = table["stage"], table.get("seed", 0)
        if not isinstance(stages, list) or not all(isinstance(s, Mapping) for s in stages):
            raise RecipeError("stages are written [[stage]], in double brackets, one for each")
        if type(seed) is not int:
            raise RecipeError(f"the recipe's seed must be a whole number, not {seed!r}")
        return cls(
            name=str(table["name"]),
            stages=tuple(_stage(i, t, seed) for i, t in enumerate(stages, 1)),
            seed=seed,
            pool=_options(PoolColumns, table.get("pool", {}), "[pool]"),
            output=_options(Output, table.get("output", {}), "[output]"),
            text=text,
        )

    def check(self, pool_columns: Collection[str], has_pictures: bool) -> None:
        """Prove that every column a stage reads is written before it; raises RecipeError."""
        known = {*pool_columns, "uid"} | ({"image"} if has_pictures else set())
        for number, stage in enumerate(self.stages, 1):
            missing = [c for c in stage.reads if c not in known and "_embedding:" not in c]
            if missing:
                raise RecipeError(_unwritten(number, stage, missing[0], known))
            clash = set(stage.writes) & set(VERDICT)
            if clash:
                raise RecipeError(f"stage {number} ({stage.name}) may not write {clash.pop()!r}")
            known |= set(stage.writes)
        if "image" not in known:
            raise RecipeError(
                "no stage fetches pictures and the pool has none: begin the recipe with 'download'"
            )


def shipped() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(file.stem for file in SHIPPED.glob("*.toml"))


def _find(path: str | Path) -> Path:
    file = Path(path)
    if file.is_file():
        return file
    known = SHIPPED / f"{path}.toml"
    if known.is_file():
        return known
    raise RecipeError(
        f"no recipe {str(path)!r}: give a TOML file or one of {', '.join(shipped())}"
        + hint(str(path), shipped())
    )


def _stage(number: int, table: Mapping[str, Any], seed: int) -> Stage:
    options = dict(table)
    name = str(options.pop("name", ""))
    cls = _stage_class(number, name)
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    for option, value in options.items():
        if option not in known:
            raise RecipeError(f"stage {number} ({name}): no option {option!r}{hint(option, known)}")
        options[option] = tuple(value) if isinstance(value, list) else value
    missing = cls.required_options() - set(options)
    if missing:
        raise RecipeError(f"stage {number} ({name}) needs the option {sorted(missing)[0]!r}")
    if "seed" in known:
        options.setdefault("seed", seed)
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"stage {number} ({name}): {error}") from None
    except RecipeError as error:
        raise RecipeError(f"stage {number}: {error}") from None


def _stage_class(number: int, name: str) -> type[Stage]:
    importlib.import_module("breadth.curate.stages")
    if ":" in name:  # a stage of the user's own, "package.module:Class"
        module, _, attribute = name.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise RecipeError(f"stage {number}: cannot import {name!r}: {error}") from None
        if not (isinstance(cls, type) and issubclass(cls, Stage)):
            raise RecipeError(f"stage {number}: {name!r} is not a stage")
        if not cls.name.isidentifier():  # it becomes part of file names
            raise RecipeError(f"stage {number}: give {name!r} a name of letters, digits and _")
        return cls
    if name not in STAGES:
        raise RecipeError(f"stage {number}: no stage is named {name!r}{hint(name, STAGES)}")
    return STAGES[name]


def _options(cls: type[Any], table: Mapping[str, Any], where: str) -> Any:
    if not isinstance(table, Mapping):
        raise RecipeError(f"{where} must be a table of options, not {table!r}")
    known = {f.name: str if f.default is None else type(f.default) for f in fields(cls)}
    _only(table, known, where)
    for name, value in table.items():
        if type(value) is not known[name]:  # true is no number here, though Python says it is 1
            raise RecipeError(f"{where} {name} must be a {known[name].__name__}, not {value!r}")
    return cls(**table)


def _only(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise RecipeError(f"{where} has no {key!r}{hint(key, known)}")


def _unwritten(number: int, stage: Stage, column: str, known: Collection[str]) -> str:
    return (
        f"stage {number} ({stage.name}) reads {column!r}, which neither the pool nor an earlier "
        f"stage writes{hint(column, known)}"
    )


def hint(word: str, known: Collection[str]) -> str:
    """Return "; did you mean ...?" where a known word is near, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
