"""The command line: every verb helps with an example, every wrong word costs one line."""

import errno
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from breadth.scripts import cli as command_line
from breadth.scripts.cli import VERBS, cli, main


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command in this process: exit status and standard error."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
        sys.exit(0)
    return int(stop.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    """``--help`` says what the verb does and ends with a command to copy."""
    found = CliRunner().invoke(cli, [verb, "--help"])
    assert found.exit_code == 0
    assert f"breadth {verb}" in found.output.split("Example", 1)[1]


def test_the_table_of_verbs_needs_no_heavy_import() -> None:
    """``breadth --help`` answers without loading torch, Dask or img2dataset."""
    code = (
        "import sys; from click.testing import CliRunner; from breadth.scripts.cli import cli;"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0;"
        "print([m for m in ('torch', 'distributed', 'img2dataset', 'cv2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


def write_pool(folder: Path, **columns: list[str]) -> Path:
    file = folder / "pool.parquet"
    pq.write_table(
        pa.table(columns or {"url": ["http://127.0.0.1:9/a.jpg"], "caption": ["a"]}), file
    )
    return file


def write_recipe(folder: Path, text: str) -> Path:
    file = folder / "recipe.toml"
    file.write_text(text)
    return file


BAD_RECIPES = {
    "misspelt stage": ('name = "r"\n[[stage]]\nname = "donwload"', "did you mean 'download'"),
    "misspelt option": ('name = "r"\n[[stage]]\nname = "download"\nsize = 3', "no option 'size'"),
    "no toml": ("name = ", "is not valid TOML"),
    "unwritten column": (
        'name = "r"\n[[stage]]\nname = "download"\n[[stage]]\nname = "threshold"\n'
        'column = "clip_scor"\nmin = 0.3',
        "reads 'clip_scor', which neither the pool nor an earlier stage writes",
    ),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_a_wrong_recipe_is_refused_before_any_work(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, one line that says what is wrong, and no output folder."""
    text, message = BAD_RECIPES[case]
    recipe, pool, out = write_recipe(tmp_path, text), write_pool(tmp_path), tmp_path / "out"
    status, errors = run("build", recipe, "--pool", pool, "--out", out, capsys=capsys)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: ")
    assert message in errors
    assert not out.exists()


def test_a_wrong_pool_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No url column, no rows, no file, half a tar: exit 2 and one line each."""
    half = tmp_path / "half"
    half.mkdir()
    (half / "00000.tar").write_bytes(b"a.jpg".ljust(700, b"\0"))
    pools = {
        write_pool(tmp_path, address=["x"], words=["y"]): "no url column",
        tmp_path / "nowhere": "there is no pool at",
        half: "00000.tar",
    }
    for pool, message in pools.items():
        status, errors = run(
            "build", "none", "--pool", pool, "--out", tmp_path / "out", capsys=capsys
        )
        assert (status, errors.count("\n")) == (2, 1), errors
        assert message in errors
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_can_be_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC, wherever it strikes, is exit 1 with what to do."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(command_line.Verbs, "invoke", full)
    status, errors = run("stages", capsys=capsys)
    assert (status, errors.count("\n")) == (1, 1)
    assert "No space left on device" in errors
    assert "same command again" in errors


@pytest.mark.parametrize("verb", ["report", "inspect", "index"])
def test_a_missing_folder_is_one_line(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verbs that look at a folder say when there is none."""
    status, errors = run(verb, tmp_path / "nowhere", capsys=capsys)
    assert (status, errors.count("\n")) == (2, 1), errors
    assert "nowhere" in errors


def test_a_missing_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """click's own usage errors exit 2 as ours do."""
    status, errors = run("build", "basic", capsys=capsys)
    assert status == 2
    assert "--pool" in errors
