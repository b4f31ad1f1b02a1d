"""A build on a hostile web is killed, and the folder does not care."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import result
from .hostile import CASES, link, served
from .hostile_case import Case
from .hostile_server import Hostile
from .test_chaos import wait_for_parts, workers_of

RECIPE = """
name = "hostile"
[[stage]]
name = "download"
image_size = 64
svg_side_px = 64
deadline_s = 20
retries = 0
max_bytes = 4194304
connections = 4
allow_private = true
[output]
part_pairs = 25
"""
DATED = ("robots", "opt_out")  # the ledger keeps when these were read
SLOW = ("retry", "tls", "h2", "svg", "file_bomb", "ipv6")
TIMELESS = [
    case
    for case in CASES
    if not case.timed and case.url and case.failure not in DATED and not case.name.startswith(SLOW)
]
"""Cases that come out the same whenever they run and whatever dies meanwhile."""


@pytest.fixture
def web() -> Iterator[Hostile]:
    with served(TIMELESS) as running:
        yield running


@pytest.fixture
def pool(web: Hostile, tmp_path: Path) -> Path:
    """A pool of every timeless case."""
    return write_pool(web, TIMELESS, tmp_path)


def write_pool(web: Hostile, cases: list[Case], folder: Path) -> Path:
    """Write the cases' links, each with its name at the end of its caption."""
    file = folder / "pool.parquet"
    captions = [f"a picture of {case.name}" for case in cases]
    urls = [link(web, case) for case in cases]
    pq.write_table(pa.table({"url": urls, "caption": captions}), file)
    return file


def ledger(out: Path) -> dict[str, dict[str, object]]:
    """Return the ledger's rows by the name of their case."""
    names = ["caption", "failure", "retryable", "kept"]
    files = sorted((out / "ledger").iterdir())
    rows = pa.concat_tables(pq.read_table(file, columns=names) for file in files).to_pylist()
    assert len(rows) == len({row["caption"] for row in rows})
    return {str(row["caption"]).split()[-1]: row for row in rows}


def command(folder: Path, pool: Path, out: Path, *more: str) -> list[str]:
    """The command line that a user would repeat."""
    recipe = folder / "hostile.toml"
    recipe.write_text(RECIPE)
    verb = [sys.executable, "-m", "breadth.scripts.cli", "build", str(recipe)]
    return [*verb, "--pool", str(pool), "--out", str(out), "--workers", "2", *more]


@pytest.fixture
def undisturbed(pool: Path, tmp_path: Path) -> dict[str, str]:
    """What the build gives when nothing dies, in one process."""
    out = tmp_path / "undisturbed"
    run = [*command(tmp_path, pool, out), "--scheduler", "sync"]
    subprocess.run(run, check=True, capture_output=True)
    return result(out)


def test_the_ledger_says_what_the_table_says(undisturbed: dict[str, str], tmp_path: Path) -> None:
    """Through a whole build, too, every pair has the outcome of its case: none is lost."""
    assert undisturbed
    found = {name: row["failure"] for name, row in ledger(tmp_path / "undisturbed").items()}
    assert found == {case.name: case.failure for case in TIMELESS}


def test_kill_9_of_worker_and_driver_then_resume_gives_the_same_bytes(
    pool: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """A worker dies, then the driver: the same command ends the work with the same bytes."""
    out = tmp_path / "out"
    build = subprocess.Popen(command(tmp_path, pool, out), stderr=subprocess.DEVNULL)
    wait_for_parts(out, 1, build)
    victims = workers_of(build.pid)
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    wait_for_parts(out, 2, build)
    os.kill(build.pid, signal.SIGKILL)
    build.wait()
    again = subprocess.run(command(tmp_path, pool, out), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert result(out) == undisturbed
    assert not [f for f in ("fetching", "live") if (out / f).exists()]


def test_a_web_that_is_gone_can_be_tried_again(tmp_path: Path) -> None:
    """Where nobody listens any more the build ends all the same, and every row is retryable."""
    cases = [case for case in TIMELESS if case.url == "{here}/picture.jpg"][:60]
    with served(cases) as web:
        pool = write_pool(web, cases, tmp_path)
    out = tmp_path / "out"
    run = [*command(tmp_path, pool, out), "--scheduler", "sync"]
    subprocess.run(run, check=True, capture_output=True)
    rows = ledger(out)
    assert rows.keys() == {case.name for case in cases}
    assert {(r["failure"], r["retryable"], r["kept"]) for r in rows.values()} == {
        ("connect", True, False)
    }
