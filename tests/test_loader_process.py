"""The loader process: it ends when it should, says why, and leaves nothing behind."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import copy
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import Failed, PoolError, Refused, ShardError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.stream import Stream

OPTIONS = {"batch_pairs": 8, "seed": 0, "image_px": 16, "workers": 2, "process": True}
SECONDS = 20.0  # far more than anything here takes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Write pictures of noise."""
    return make_folder(tmp_path_factory.mktemp("process"))


def make_folder(path: Path, pairs: int = 64) -> Folder:
    """Write pictures of noise in shards of twenty."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (pairs, 16, 16, 3), dtype=np.uint8)
    images = [cv2.imencode(".png", picture)[1].tobytes() for picture in pixels]
    uids = [f"{number:032x}" for number in range(pairs)]
    table = pa.table({"uid": uids, "caption": uids, "image": images})
    write_folder(path, table, name="noise", pairs_per_shard=20)
    return open_folder(path)


def loaders(parent: int) -> list[int]:
    """Return the loader processes of a parent."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            status = (entry / "status").read_text()
        except OSError:
            continue
        if b"breadth.loaders.loader_process" in words and f"\nPPid:\t{parent}\n" in status:
            found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    """Say whether a process runs: one that only waits to be reaped does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def named_memory(pid: int) -> list[str]:
    """Return what a process has of /dev/shm, mapped or open: such files outlive a kill."""
    mapped = Path(f"/proc/{pid}/maps").read_text().splitlines()
    opened = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return [name for name in (*mapped, *opened) if "/dev/shm" in name]


def wait_for(condition: Callable[[], bool]) -> bool:
    """Wait until something holds; say whether it does."""
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_killed_loader_is_an_error_and_the_stream_goes_on(folder: Folder) -> None:
    """SIGKILL is Failed at once, with the signal's name; iterating again takes the next batch."""
    plain = list(islice(Stream(folder, **OPTIONS | {"process": False}), 12))
    with Stream(folder, **OPTIONS) as stream:
        batches = iter(stream)
        seen = [next(batches) for _ in range(3)]
        [pid] = loaders(os.getpid())
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(Failed, match=r"ended by SIGKILL .* same command goes on") as error:
            for batch in batches:
                seen.append(batch)
        assert time.monotonic() - began < 5
        assert "\n" not in str(error.value)
        seen += islice(stream, 12 - len(seen))
    assert [b.uids for b in seen] == [b.uids for b in plain]
    assert all(torch.equal(a.images, b.images) for a, b in zip(seen, plain, strict=True))
    assert loaders(os.getpid()) == []


def test_a_batch_outlives_its_loader(folder: Folder) -> None:
    """The pictures in hand stay readable after the process and the stream are gone."""
    stream = Stream(folder, **OPTIONS)
    batch = next(iter(stream))
    before = batch.images.clone()
    stream.close()
    del stream
    assert torch.equal(batch.images, before)


def test_an_interrupt_while_waiting_loses_nothing(folder: Folder) -> None:
    """Ctrl-C in the middle of a wait, and the same stream goes on with the same batches."""
    plain = [b.uids for b in islice(Stream(folder, **OPTIONS | {"process": False}), 10)]
    with Stream(folder, **OPTIONS) as stream:
        seen = [next(iter(stream)).uids]
        [pid] = loaders(os.getpid())
        os.kill(pid, signal.SIGSTOP)
        handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(KeyboardInterrupt):
                for batch in stream:
                    seen.append(batch.uids)
        finally:
            signal.signal(signal.SIGALRM, handler)
            os.kill(pid, signal.SIGCONT)
        seen += [batch.uids for batch in islice(stream, 10 - len(seen))]
        assert loaders(os.getpid()) == [pid]
    assert seen == plain


SCRIPT = """
import os, sys, time
from breadth.loaders.folder import open_folder
from breadth.loaders.stream import Stream
options = dict(batch_pairs=8, seed=0, image_px=16, workers=2, process=True)
stream = iter(Stream(open_folder(sys.argv[1]), **options))
held = next(stream)
forked = sys.argv[2] == "fork" and os.fork()
if sys.argv[2] == "fork" and not forked:
    time.sleep(60)
    os._exit(0)
print(int(forked), flush=True)
if sys.argv[2] == "end":
    sys.exit(0)
if sys.argv[2] == "raise":
    raise RuntimeError
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["end", "raise", "kill", "fork"])
def test_no_process_and_no_memory_is_left_behind(folder: Folder, how: str) -> None:
    """However the trainer ends, even with another child alive, its loader ends too."""
    words = [sys.executable, "-c", SCRIPT, str(folder.source["path"]), how]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as trainer:
        assert trainer.stdout is not None
        forked = int(trainer.stdout.readline())
        children = loaders(trainer.pid)
        if how in ("kill", "fork"):
            assert len(children) == 1
            assert not [held for pid in (trainer.pid, *children) for held in named_memory(pid)]
            trainer.kill()
        assert trainer.wait(SECONDS) == {"end": 0, "raise": 1}.get(how, -9)
        assert wait_for(lambda: not any(map(is_alive, children)))
        if how == "fork":
            assert is_alive(forked)
            os.kill(forked, signal.SIGKILL)


def test_a_fork_of_the_trainer_leaves_its_loader_alone(folder: Folder) -> None:
    """In a forked child the stream begins a loader of its own, and ends only that one."""
    with Stream(folder, **OPTIONS) as stream:
        batches = iter(stream)
        first = next(batches)
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            try:
                names = next(iter(stream)).uids
                stream.close()
                os.write(write, "".join(names).encode())
            finally:
                os._exit(0)
        os.close(write)
        assert select.select([read], [], [], SECONDS)[0]
        seen = os.read(read, 1 << 16).decode()
        os.close(read)
        os.waitpid(child, 0)
        second = next(batches)
    assert seen == "".join(second.uids)
    assert first.uids != second.uids


def test_the_loader_imports_only_what_decodes(folder: Folder) -> None:
    """Torch would cost its start half a second, pandas a third, Arrow's functions a tenth."""
    with Stream(folder, **OPTIONS) as stream:
        next(iter(stream))
        [pid] = loaders(os.getpid())
        mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "simplejpeg" in mapped and "pyarrow/lib" in mapped
    heavy = ("torch", "pandas", "pyarrow/_compute", "pyarrow/_parquet", "_ssl")
    assert not [name for name in heavy if name in mapped]


def test_a_folder_that_was_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    """Other pairs under the same path are not taken for those that were planned."""
    folder = make_folder(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    make_folder(tmp_path / "data", pairs=65)
    with pytest.raises(ShardError, match="changed while it was opened"):
        next(iter(Stream(folder, **OPTIONS)))


def test_what_the_loader_refuses_is_raised_as_it_is(tmp_path: Path) -> None:
    """A folder that has gone is the same PoolError as here, not a stack of another process."""
    folder = make_folder(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(PoolError, match="there is no folder"):
        next(iter(Stream(folder, **OPTIONS)))


def test_a_folder_that_cannot_be_opened_again_is_refused(folder: Folder) -> None:
    """A Folder made by hand has no path: the line says what to do."""
    by_hand = copy(folder)
    by_hand.source = {}
    with pytest.raises(Refused, match="process=False"):
        next(iter(Stream(by_hand, **OPTIONS)))
