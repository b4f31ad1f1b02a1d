"""The benchmark of loaders gives all of them the same work, and measures no more than that."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from benchmarks.loader_data import KEEP_EVERY, make_folders, make_many
from benchmarks.loader_peers import LITDATA, OURS, PACKAGES, STAND_INS
from benchmarks.loaders import QUICK, cases, rows
from benchmarks.process_tree import Usage, session_cpu_s
from benchmarks.readers import memory, ours, web
from benchmarks.readers.crop import of_picture, random_box, with_simplejpeg
from benchmarks.readers.run import measure
from benchmarks.readers.tars import pictures
from benchmarks.readers.task import BATCH_PAIRS, TAR_PAIRS, Measured, Task

PAIRS = 2 * BATCH_PAIRS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of few pairs."""
    root = tmp_path_factory.mktemp("loaders")
    make_folders(root, PAIRS)
    return root


def first(batches: Iterator, pairs: int) -> list[tuple[bytes, bytes]]:
    """Take as many (picture, caption) pairs, in one notation and order."""
    found = list(islice((pair for batch in batches for pair in batch), pairs))
    return sorted((bytes(p), c.encode() if isinstance(c, str) else c) for p, c in found)


@pytest.mark.parametrize("folder", ["large", "small", "plain"])
def test_both_read_the_same_pairs(root: Path, folder: str) -> None:
    """One pass of webdataset and of ours, copied or not, brings the same bytes."""
    task = Task(str(root / folder))
    theirs = first(web.raw(task), PAIRS)
    assert len(set(theirs)) == PAIRS
    assert first(ours.raw(task), PAIRS) == theirs == first(ours.raw_views(task), PAIRS)
    assert sorted(pictures(task)) == [picture for picture, _ in theirs]


def test_the_subset_is_the_same_by_key_and_by_uid(root: Path) -> None:
    """The peer selects by key and we by uid: these are the same pairs, a tenth of all."""
    kept = len(range(0, PAIRS, KEEP_EVERY))
    theirs = first(web.subset(Task(str(root / "small"), keep=str(root / "keys"))), kept)
    own = first(ours.subset(Task(str(root / "small"), keep=str(root / "uids"))), kept)
    assert len(set(theirs)) == kept
    assert own == theirs


def test_folders_differ_as_they_should(root: Path) -> None:
    """What img2dataset writes has a header for its times with every member; ours has none."""
    small, plain = (root / name / "00000.tar" for name in ("small", "plain"))
    assert small.read_bytes().count(b"mtime=") == 3 * PAIRS
    assert b"mtime=" not in plain.read_bytes()
    assert small.stat().st_size - plain.stat().st_size > 2.9 * PAIRS * 1024


def test_crops_are_of_one_size_and_kind(root: Path) -> None:
    """Both decoders see the same picture, and every box lies inside it."""
    from PIL import Image

    file = next((root / "drawn").iterdir())
    whole = np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BOX)).mean((0, 1))
    many = [with_simplejpeg(32)(file.read_bytes()) for _ in range(200)]
    theirs = [of_picture(Image.open(file), 32) for _ in range(200)]
    assert {piece.shape for piece in many + theirs} == {(32, 32, 3)}
    assert np.abs(np.mean(many, (0, 1, 2)) - np.mean(theirs, (0, 1, 2))).max() < 12
    assert np.abs(np.mean(many, (0, 1, 2)) - whole).max() < 25
    for width, height in ((640, 480), (33, 900)):
        left, top, across, down = random_box(width, height)
        assert 0 <= left <= width - across and 0 <= top <= height - down


def test_every_loader_makes_batches_of_pictures(root: Path) -> None:
    """Batches are uint8 squares of 64 pairs, whose means are those of the pictures."""
    task = Task(str(root / "small"), px=32)
    batches = [next(reader.decoded(task)) for reader in (memory, ours)]
    for batch in batches:
        assert str(batch.dtype) == "torch.uint8" and batch.shape[0] == BATCH_PAIRS
        assert sorted(batch.shape[1:]) == [3, 32, 32]
    means = [float(batch.float().mean()) for batch in batches]
    assert abs(means[0] - means[1]) < 15


def test_what_warms_up_is_not_measured() -> None:
    """Pairs, wall time and CPU time are those after the warm pairs; the first batch is timed."""

    def batches(task: Task) -> Iterator[range]:
        time.sleep(0.2)
        for number in range(100):
            if number == 2:
                time.sleep(0.3)
            yield range(10)

    measured = measure(batches, Task("", warm_pairs=20, pairs=50), len)
    assert measured.pairs == 50
    assert 0.2 <= measured.first_s < 0.29
    assert 0.3 <= measured.stalled_s <= measured.wall_s < 0.49
    cold = measure(batches, Task("", pairs=10), len)
    assert cold.pairs == 10 and cold.wall_s >= 0.2


def _burn(seconds: float) -> None:
    while time.process_time() < seconds:
        pass


def test_cpu_time_is_that_of_children_too() -> None:
    """A worker's time counts while it lives and after it has ended."""
    before = session_cpu_s()
    child = get_context("fork").Process(target=_burn, args=(0.5,))
    child.start()
    child.join()
    assert 0.45 < session_cpu_s() - before < 5


def test_a_million_pairs_take_no_disk(tmp_path: Path) -> None:
    """Names of one tar are as many shards, whose uids differ."""
    from breadth.loaders.folder import open_folder

    make_many(tmp_path / "many", 20_000)
    first_tar, second_tar = sorted((tmp_path / "many").glob("*.tar"))
    assert first_tar.samefile(second_tar)
    folder = open_folder(tmp_path / "many")
    assert len(folder) == len(set(folder.uids)) == 20_000


def test_every_loader_can_do_what_is_compared() -> None:
    """Its file has a function of that name; the peers' packages may not be here to import it."""
    for case in cases(QUICK):
        for run in (case.ours, *case.their_runs):
            text = (Path(web.__file__).parent / f"{run.loader.module}.py").read_text()
            assert f"\ndef {run.kind.replace('-', '_')}(task: Task)" in text, run


def test_a_peer_that_is_not_there_has_no_row() -> None:
    """Rows are of what was measured; a peer is compared with our run of the same work."""
    case = next(case for case in cases(QUICK) if case.ours.kind == "raw-views")
    usage = Usage(1.0, 1.0, 1.0, 1.0)
    mine, its = (Measured(0.1, 0.1, 100, 1.0, cpu_s, 0.0) for cpu_s in (2.0, 4.0))
    there = {case.ours: [(mine, usage)], case.their_runs[0]: [(its, usage)]}
    made = list(rows([case, replace(case, theirs=(LITDATA,))], there))
    assert [(row.peer, row.ratio) for row in made] == [("webdataset", 2.0)]


def test_every_peer_that_is_compared_can_be_set_up() -> None:
    """A loader's package is one that --setup installs; stand-ins are of those, too."""
    compared = [loader for case in cases(QUICK) for loader in case.theirs]
    assert {loader.package for loader in compared} == {"", *PACKAGES}
    assert set(STAND_INS) <= set(PACKAGES)
    assert all(case.ours.loader is OURS for case in cases(QUICK))
    assert QUICK.pairs % TAR_PAIRS == 0  # a plain read counts a tar as that many
