"""The live figures of a build: summed over its parts, with a rate and the time left."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from breadth.curate import live
from breadth.curate.live import LiveFigures, ended, progress_file
from breadth.scripts.progress import live_line


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands until the test moves it, seconds."""
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def write(folder: Path, part: int, **figures: Any) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{part:05d}.json"
    beside = folder / f".{part:05d}.tmp"
    beside.write_text(json.dumps(figures))
    beside.replace(file)
    return file


def begun(folder: Path, tasks: int) -> LiveFigures:
    figures = LiveFigures(folder)
    figures.begin_step(tasks)
    return figures


def test_figures_add_up_over_parts_that_run_and_that_have_ended(
    tmp_path: Path, clock: list[float]
) -> None:
    """Numbers and failures add up, a host has its worst time, and an ended part still counts."""
    folder = tmp_path / "live"
    figures = begun(folder, 2)
    slowest = [["a", 1.0], ["b", 3.0]]
    one = write(folder, 0, pairs=10, done=10, ok=7, bytes=5, failures={"dns": 3}, slowest=slowest)
    ended(one)
    failures = {"dns": 1, "timeout": 9}
    hosts = [["a", 2.0], *([f"c{n}", n / 10] for n in range(9))]
    write(folder, 1, pairs=40, done=20, ok=10, bytes=6, failures=failures, slowest=hosts, waits=4)
    changed, now = figures.read()
    assert changed and now is not None
    assert {k: now[k] for k in ("pairs", "done", "ok", "bytes", "waits")} == {
        "pairs": 50,
        "done": 30,
        "ok": 17,
        "bytes": 11,
        "waits": 4,
    }
    assert list(now["failures"].items()) == [("timeout", 9), ("dns", 4)]
    assert now["slowest"] == [("b", 3.0), ("a", 2.0), ("c8", 0.8), ("c7", 0.7), ("c6", 0.6)]
    assert figures.read()[0] is False  # nothing has come since


def test_rate_and_time_left_are_of_all_parts(tmp_path: Path, clock: list[float]) -> None:
    """20 pairs in 2 s, and 380 to come: 30 of this part, 50 in each of the seven not begun."""
    folder = tmp_path / "live"
    figures = begun(folder, 10)
    figures.done = 2  # measured by an earlier run: they say nothing
    write(folder, 5, pairs=50, done=20, ok=20)
    clock[0] += 2.0
    _, now = figures.read()
    assert now is not None
    assert now["pairs_per_s"] == 10.0
    assert now["left_s"] == (30 + 7 * 50) / 10.0
    clock[0] += 10 * live.RATE_OVER_S  # it stands still
    figures.read()
    _, now = figures.read()
    assert now is not None and now["pairs_per_s"] < 0.2


def test_a_step_begins_without_the_figures_of_the_one_before(
    tmp_path: Path, clock: list[float]
) -> None:
    """What an earlier step, or a build that was killed, left is gone."""
    folder = tmp_path / "live"
    write(folder, 0, pairs=1, done=1, ok=1)
    figures = begun(folder, 1)
    assert figures.read() == (False, None)
    write(folder, 1, pairs=2, done=1, ok=1)
    assert figures.read()[0]
    figures.begin_step(1)
    assert figures.read() == (False, None)


def test_lines_are_appended_and_passed_on_while_a_step_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``progress.jsonl`` has steps and figures in their order; the last look misses nothing."""
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    steps: list[tuple[str, int, int]] = []
    seen: list[int] = []
    folder = tmp_path / "live"
    with progress_file(
        tmp_path, folder, lambda *step: steps.append(step), lambda now: seen.append(now["done"])
    ) as report:
        report("download", 0, 1)
        write(folder, 0, pairs=3, done=1, ok=1)
        until = time.monotonic() + 10
        while not seen and time.monotonic() < until:
            time.sleep(0.01)
        write(folder, 0, pairs=3, done=3, ok=3)
        report("download", 1, 1)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert steps == [("download", 0, 1), ("download", 1, 1)]
    assert set(seen) == {1, 3} and seen == sorted(seen)
    assert [line["live"]["done"] for line in lines if "live" in line] == [1, 3]
    assert [line["done"] for line in lines if "label" in line] == [0, 1]
    assert all(line["time"] > 0 for line in lines)


def test_the_line_says_what_matters_first() -> None:
    """Rate, share that arrived, time left, who waits, failures by kind, slowest hosts."""
    figures = {
        "done": 200,
        "ok": 150,
        "pairs_per_s": 1234.5,
        "left_s": 3671.2,
        "waiting_polite": 12,
        "failures": {"not_found": 40, "dns": 10},
        "slowest": [("a.example", 4.21), ("b.example", 0.4), ("c.example", 0.1)],
    }
    assert live_line(figures) == (
        "1,234 pairs/s · 75.0 % arrived · 1:01:11 left · 12 wait their turn · not_found 40 · "
        "dns 10 · slowest a.example 4.2 s"
    )
