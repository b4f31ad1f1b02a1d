"""The README is true: its tree is the files' own words, its verbs exist, its commands run.

``python tests/test_readme.py`` writes the tree anew into the README.
"""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import breadth.curate.stages  # noqa: F401  (fills the catalogue)
from breadth.curate.recipe import Recipe, shipped
from breadth.curate.stage import STAGES
from breadth.scripts.cli import VERBS, cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->"
TREES = (
    "curate",
    "curate/fetch",
    "curate/stages",
    "loaders",
    "train",
    "train/evaluate",
    "train/page",
    "train/study",
    "scripts",
    "scripts/demo",
    "benchmarks",
)


def first_sentence(file: Path) -> str:
    """Return the first line of a module's docstring, or the first comment of a recipe."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0].rstrip(".")
    return text.splitlines()[0].lstrip("# ").rstrip(".")


def tree() -> str:
    """Return the folders with one line per file, in the files' own words."""
    lines = []
    for folder in TREES:
        lines.append(f"{folder}/".ljust(28) + first_sentence(ROOT / folder / "__init__.py"))
        files = sorted((ROOT / folder).glob("*.py"))
        lines += [f"  {f.name:26}{first_sentence(f)}" for f in files if f.stem != "__init__"]
    return "\n".join(lines) + "\n"


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    """Every file is in the README with the first sentence of its docstring."""
    assert README.split(BEGIN, 1)[1].split(END, 1)[0] == tree()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme(verb: str) -> None:
    """A verb that the README does not name is a verb nobody finds."""
    assert f"breadth {verb} " in README


@pytest.mark.parametrize("name", [s for s in STAGES if not s.startswith("test_") and s != "embed"])
def test_every_stage_is_in_the_readme(name: str) -> None:
    """So is every stage."""
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_in_the_readme_and_says_its_command(name: str) -> None:
    """A recipe begins with the command that runs it."""
    assert f"`{name}`" in README
    assert f"breadth build {name} " in Recipe.read(name).text


def commands() -> list[str]:
    """Return the ``breadth`` commands of the shell blocks of README and docs."""
    pages = [README, *(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))]
    blocks = re.findall(r"```sh\n(.*?)```", "\n".join(pages), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    found = (line.split("#")[0].strip() for line in lines)
    return sorted(
        {
            line[line.index("breadth ") :]
            for line in found
            if re.match(r"(torchrun .*)?breadth ", line)
        }
    )


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_pages_parse(command: str) -> None:
    """Every command uses a verb and flags that exist."""
    verb, *words = shlex.split(command)[1:]
    known = CliRunner().invoke(cli, [verb, "--help"]).output
    flags = [word for word in words if word.startswith("--")]
    assert verb in VERBS
    assert all(flag in known for flag in flags), command


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_two_commands(target: str) -> None:
    """``make -n`` resolves what the README tells a newcomer to type."""
    assert f"make {target}" in README
    found = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


if __name__ == "__main__":
    before, rest = README.split(BEGIN, 1)
    (ROOT / "README.md").write_text(before + BEGIN + tree() + END + rest.split(END, 1)[1])
