"""docs/objectives.md is true: its term trains, and it has a row for every recipe and term."""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from breadth.train.inputs import draw_inputs
from breadth.train.model import build_model
from breadth.train.recipe import TrainRecipe, shipped_recipes
from breadth.train.step import Step
from breadth.train.terms import TERMS

from .test_terms import CPU, alone, make_batch, unit

TEXT = (Path(__file__).parent.parent / "docs/objectives.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """Return the page's only block in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    return found


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainRecipe:
    """Put the page's term where Python finds it, and read the page's recipe."""
    (tmp_path / "my_terms.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return TrainRecipe.from_options({"name": "mine", **tomllib.loads(block("toml"))})


def test_the_page_s_term_is_its_formula(recipe: TrainRecipe) -> None:
    """Written out picture by picture in double precision."""
    term = recipe.objective["my_terms:Uniformity"].term
    pictures = unit(0)
    total, count = term.loss(alone(image=pictures))
    expected = 0.0
    for i in range(8):
        others = [j for j in range(8) if j != i]
        apart = (pictures[i] - pictures[others]).square().sum(dim=1)
        expected += torch.exp(-2.0 * apart).mean().log().item()
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count == 8


def test_the_page_s_term_is_exact_under_micro_batches(recipe: TrainRecipe) -> None:
    """A user's coupled term gets the whole batch's gradient from its parts, and it counts."""
    weights = {name: entry.most for name, entry in recipe.objective.items()}
    found = []
    for micro, given in ((0, weights), (2, weights), (0, {"InfoNCE": 1.0})):
        cut = replace(recipe, batch_pairs=8, micro_batch_pairs=micro)
        model = build_model(cut, 300)
        inputs = draw_inputs(cut, *make_batch(8), 0, vocabulary=300)
        Step(cut, model, CPU).backward(inputs, given)
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[2], found[0], rtol=1e-4, atol=1e-5)


def test_the_command_finds_the_page_s_term_in_the_working_folder(tmp_path: Path) -> None:
    """Without a word on where it lies: what is refused is the data alone."""
    (tmp_path / "my_terms.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "mine.toml").write_text(block("toml"), encoding="utf-8")
    words = ["train", "mine.toml", "--data", "nowhere", "--out", "run"]
    done = subprocess.run(
        [Path(sys.executable).with_name("breadth"), *words],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "nowhere" in done.stderr


@pytest.mark.parametrize("name", [*TERMS, *shipped_recipes()])
def test_every_objective_has_a_row(name: str) -> None:
    """A recipe or term that is added must be written down with its oracle."""
    if not name.startswith("demo"):
        assert re.search(rf"^\| `{name}`", TEXT, flags=re.MULTILINE)
