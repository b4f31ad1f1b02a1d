"""docs/img2dataset.md leaves no argument of img2dataset out, nor any option of ours."""

import ast
import re
import tomllib
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest

from breadth.curate.recipe import Output, PoolColumns, Recipe
from breadth.curate.stages.download import Download
from breadth.scripts.build import build

TEXT = (Path(__file__).parent.parent / "docs/img2dataset.md").read_text(encoding="utf-8")


def arguments() -> dict[str, object]:
    """Return the arguments of img2dataset's ``download`` and their defaults, from its source."""
    spec = find_spec("img2dataset")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]) / "main.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "download")
    names = [argument.arg for argument in function.args.args]
    defaults = [ast.unparse(default) for default in function.args.defaults]
    return dict(zip(names, [None, *defaults], strict=True))


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading."""
    lines = TEXT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    cells = [line.strip("|").split(" | ") for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in cells[1:]]


def test_every_argument_of_img2dataset_has_a_row() -> None:
    """In its own order, each once."""
    assert [row[0].strip("`") for row in rows("Every argument")] == list(arguments())


def test_what_is_named_in_its_place_exists() -> None:
    """An option of the stage, of [pool], of [output] or of the command."""
    known = {f.name for f in fields(Download)}
    known |= {f"[pool] {f.name}" for f in fields(PoolColumns)}
    known |= {f"[output] {f.name}" for f in fields(Output)}
    known |= {name for parameter in build.params for name in parameter.opts}
    places = [row[1] for row in rows("Every argument") if row[1] != "no"]
    assert places and {place.strip("`") for place in places} <= known


def test_every_option_of_the_stage_is_in_one_of_the_tables() -> None:
    """Whoever comes from img2dataset sees what else there is."""
    named = [row[1].strip("`") for row in rows("Every argument")]
    named += [row[0].strip("`") for row in rows("What img2dataset has no argument for")]
    missing = {f.name for f in fields(Download)} - set(named)
    assert not missing


@pytest.mark.parametrize("row", rows("Every argument"), ids=lambda row: row[0])
def test_the_same_means_the_same_default(row: list[str]) -> None:
    """Where the table says no more than "the same", so is the default."""
    own = {f.name: f.default for f in fields(Download)}
    name = row[0].strip("`")
    if row[2].startswith(("the same", "judged by the header")) and name in own:
        theirs = arguments()[name]
        expected = float("inf") if theirs == "float('inf')" else ast.literal_eval(str(theirs))
        if name != "disallowed_header_directives":  # None stands for its four
            assert own[name] == expected or "by default" in row[2]


def test_the_recipe_it_shows_is_one() -> None:
    """It has the stage's options, and asks for img2dataset's pixels."""
    block = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)[0]
    (stage,) = Recipe.from_mapping(tomllib.loads(block)).stages
    assert isinstance(stage, Download)
    assert (stage.resize_mode, stage.resize_quality, stage.min_image_size) == (
        "border",
        "exact",
        64,
    )
