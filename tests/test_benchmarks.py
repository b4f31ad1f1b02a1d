"""The benchmarks account for every process, compare like with like, and use photo-like pictures."""

import sys
from pathlib import Path

import cv2
import pytest

from benchmarks.comparison import Row, table
from benchmarks.pictures import draw
from benchmarks.process_tree import run

# Each process uses some CPU, writes down how much, and is not waited for by its parent.
FAMILY = """
import os, subprocess, sys, time
generation, folder = int(sys.argv[1]), sys.argv[2]
if generation < 3:
    subprocess.Popen([sys.executable, __file__, str(generation + 1), folder])
held = bytearray(generation * 40_000_000)
while time.process_time() < 0.3 * generation:
    pass
with open(f"{folder}/{generation}", "w") as file:
    file.write(str(time.process_time()))
os._exit(0)
"""


def test_cpu_time_is_that_of_every_process_even_of_one_that_outlives_its_parent(
    tmp_path: Path,
) -> None:
    """The sum agrees with what the processes say of themselves, memory with what one holds."""
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    usage = run([sys.executable, str(script), "1", str(tmp_path)], {}, tmp_path / "log")
    own = sum(float((tmp_path / str(generation)).read_text()) for generation in (1, 2, 3))
    assert own <= usage.cpu_s < own + 0.5
    assert 120 < usage.largest_mb < 400


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    """A peer that does not run is no peer that is slow."""
    with pytest.raises(RuntimeError, match="ended with 3: no such link"):
        run(
            [sys.executable, "-c", "print('no such link'); raise SystemExit(3)"],
            {},
            tmp_path / "log",
        )


@pytest.mark.parametrize(("unit", "ratio"), [("pictures/s", 0.5), ("ms of CPU", 2.0), ("MB", 2.0)])
def test_a_ratio_above_1_says_that_ours_is_better(unit: str, ratio: float) -> None:
    """Twice the speed is better, twice the time is worse; medians, not means, are compared."""
    row = Row("x", "peer", unit, ours=[10, 10, 10], theirs=[20, 20, 2_000])
    assert row.ratio == ratio
    assert f"| x | {unit} | 20 | 10 | {ratio:.2f} |" in table([row])


def test_pictures_are_as_large_as_photographs_and_the_same_every_time(tmp_path: Path) -> None:
    """The figures in the README are for files of 72 KB on average; sizes differ."""
    (tmp_path / "again").mkdir()
    files, again = draw(tmp_path, 64), draw(tmp_path / "again", 64)
    sizes = [file.stat().st_size for file in files]
    assert 65_000 < sum(sizes) / len(sizes) < 80_000
    assert max(sizes) > 1.8 * min(sizes)
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    assert len({file.read_bytes() for file in files}) == 64
    assert cv2.imread(str(files[0])).shape == (480, 640, 3)
