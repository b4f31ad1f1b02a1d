"""The whole road as a user walks it: real pictures, downloads and training, and two study runs."""

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

TRAIN = {**os.environ, "OMP_NUM_THREADS": "2"}


def breadth(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder of its own, as a person would."""
    line = [sys.executable, "-m", "breadth.scripts.cli", *map(str, words)]
    return subprocess.run(line, cwd=folder, env=TRAIN, capture_output=True, text=True, timeout=900)


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="the stamps are a Debian package")
def test_the_stamps_demo_passes_its_own_checks(tmp_path: Path) -> None:
    """Real pictures in many languages go the road, and every account and planted defect is found.

    The training budget is small: retrieval is reported and never judged.
    """
    demo = ("demo", "--source", "stamps", "--out", "demo", "--steps", "20")
    done = breadth(*demo, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "FAILED" not in done.stdout
    report = json.loads((tmp_path / "demo/report.json").read_text())
    assert [s["accounts"]["agree"] for s in report["sets"]] == [True, True]
    assert (tmp_path / "demo/report.html").stat().st_size > 100_000
    verified = breadth("inspect", "demo/second", "--verify", folder=tmp_path)
    assert verified.returncode == 0, verified.stderr
    again = breadth(*demo, folder=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr


SMALLER = {"pairs = 5000": "pairs = 1024", "held_out_pairs = 3000": "held_out_pairs = 300",
           "steps = 120": "steps = 12"}  # fmt: skip


def write_small_pilot(folder: Path) -> Path:
    """Write the shipped pilot with fewer pairs and steps, and nothing else changed."""
    text = (files("breadth.train.study") / "pilot.toml").read_text()
    for full, small in SMALLER.items():
        assert text.count(f"\n{full}\n") == 1
        text = text.replace(f"\n{full}\n", f"\n{small}\n")
    (folder / "pilot.toml").write_text(text)
    return folder / "pilot.toml"


def test_two_runs_of_the_pilot_are_a_pair(tmp_path: Path) -> None:
    """One draw of one world under both objectives, run by two commands: the second goes on."""
    words = ("study", write_small_pilot(tmp_path), "--out", "study", "--runs", "1")
    first = breadth(*words, folder=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    rows = tmp_path / "study/study.jsonl"
    before = rows.read_text()
    second = breadth(*words, folder=tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert rows.read_text().startswith(before)
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(found) == 2
    assert {row["objective"] for row in found} == {"clip", "maeclip"}
    assert len({(row["world"], row["seed"]) for row in found}) == 1
    for said in ("2 of 12 runs are done", "3.0 repeats", "equal caption", "one draw has no spread"):
        assert said in second.stdout
