"""Processes die; the folder does not care."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Site, result

RECIPE = """
name = "chaos"
[[stage]]
name = "download"
image_size = 64
allow_private = true
connections = 4
per_domain_per_s = 0
[[stage]]
name = "caption_length"
min_words = 3
[[stage]]
name = "exact_duplicates"
[output]
part_pairs = 12
"""


def command(folder: Path, pool: Path, out: Path) -> list[str]:
    """The command line that a user would repeat."""
    recipe = folder / "chaos.toml"
    recipe.write_text(RECIPE)
    verb = [sys.executable, "-m", "breadth.scripts.cli", "build", str(recipe)]
    return [*verb, "--pool", str(pool), "--out", str(out), "--workers", "2"]


def wait_for_parts(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until some parts are committed while the build still runs."""
    deadline = time.monotonic() + 120
    while len(list((out / "parts").glob("download-*/*/done.json"))) < count:
        assert process.poll() is None, "the build ended before it could be disturbed"
        assert time.monotonic() < deadline, "no part was committed in two minutes"
        time.sleep(0.02)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a build: the children of its child that forks them."""
    parents: dict[int, int] = {}
    servers = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        process = int(stat.parent.name)
        try:
            parents[process] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            line = (stat.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parents[process] == pid and b"forkserver" in line:
            servers.add(process)
    return [process for process, parent in parents.items() if parent in servers]


@pytest.fixture
def undisturbed(pool: Path, site: Site, tmp_path: Path) -> dict[str, str]:
    """What the build gives when nothing dies."""
    out = tmp_path / "undisturbed"
    sync = [*command(tmp_path, pool, out), "--scheduler", "sync"]
    subprocess.run(sync, check=True, capture_output=True)
    site.delay_s = 0.05
    return result(out)


def test_a_killed_worker_leaves_the_same_bytes(
    pool: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """kill -9 of a worker in the middle of a build: the build finishes, with the same bytes."""
    out = tmp_path / "out"
    build = subprocess.Popen(command(tmp_path, pool, out), stderr=subprocess.PIPE)
    wait_for_parts(out, 2, build)
    victims = workers_of(build.pid)
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    _, errors = build.communicate(timeout=300)
    assert build.returncode == 0, errors.decode()
    assert result(out) == undisturbed


def test_a_killed_driver_continues_to_the_same_bytes_and_a_second_one_is_refused(
    pool: Path, site: Site, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """A second driver is refused; after kill -9 of the first the same command ends its work."""
    out = tmp_path / "out"
    first = subprocess.Popen(command(tmp_path, pool, out), stderr=subprocess.DEVNULL)
    wait_for_parts(out, 2, first)
    second = subprocess.run(command(tmp_path, pool, out), capture_output=True, text=True)
    assert second.returncode == 2
    assert second.stderr.strip().count("\n") == 0
    assert f"is being built by process {first.pid}" in second.stderr
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    done = len(list((out / "parts").glob("download-*/*/done.json")))
    site.delay_s = 0
    fetched_before = site.asked.total()
    again = subprocess.run(command(tmp_path, pool, out), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert result(out) == undisturbed
    parts = len(list((out / "ledger").iterdir()))
    assert done >= 2
    assert site.asked.total() - fetched_before <= 132 * (parts - done) / parts + 24
