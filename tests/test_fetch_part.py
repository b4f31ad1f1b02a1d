"""Between fetching and the shard: bounds on memory, deaths, hangs, and order."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from breadth.curate.fetch import inbox, isolated
from breadth.curate.fetch.attempts import attempt
from breadth.curate.fetch.fetcher import Fetched
from breadth.curate.fetch.inbox import Inbox
from breadth.curate.fetch.isolated import Child
from breadth.curate.fetch.picture import Shape, process
from breadth.curate.fetch.spool import Spool
from breadth.loaders.accounts import check_accounts
from breadth.loaders.errors import Failed
from breadth.loaders.manifest import Manifest

from .conftest import Site, encode

GREY = encode(np.full((40, 60, 3), 128, np.uint8))


def test_a_spool_gives_back_what_came_in_any_order(tmp_path: Path) -> None:
    """Pictures written out of order, and shared by rows, are read by row; a gap is None."""
    spool = Spool(tmp_path, 4)
    for number in (2, 0, 3):
        spool.put(number, bytes([number]) * (number + 1))
    spool.lay(np.array([3, 0, -1, 2, 3, 1]))
    assert list(spool) == [b"\3" * 4, b"\0", None, b"\2" * 3, b"\3" * 4, None]
    assert list(tmp_path.iterdir()) == []  # nothing to sweep, whenever the process dies


def _hold(folder: Path, held: Any) -> None:
    with attempt(folder):
        held.set()
        time.sleep(60)


def _killed_in(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(folder, held))
    process.start()
    assert held.wait(60)
    with attempt(folder) as deaths:  # a second worker at the same part: the first one lives
        assert deaths == len(list(folder.glob("*.attempt"))) - 2
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_only_deaths_are_counted_and_a_good_end_forgets_them(tmp_path: Path) -> None:
    """kill -9 counts, an attempt still at work and one that ended by an exception do not."""
    with pytest.raises(ValueError), attempt(tmp_path):
        raise ValueError
    _killed_in(tmp_path)
    with pytest.raises(ValueError), attempt(tmp_path) as deaths:
        assert deaths == 1
        raise ValueError
    with attempt(tmp_path) as deaths:
        assert deaths == 1
    with attempt(tmp_path) as deaths:
        assert deaths == 0


def test_a_child_decodes_as_this_process_does() -> None:
    """Through the pipe comes the same picture, row for row, also a failure."""
    child = Child(Shape(image_size=24), 20)
    try:
        for body in (GREY, b"<html>404</html>", GREY[:200]):
            here = process(body, Shape(image_size=24))
            assert child.decode(body)[:8] == here[:8]
    finally:
        child.close()


@pytest.fixture
def sick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every new Python a body that holds HANG hangs its decoder, and one with DIE kills it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, time\n"
        "from breadth.curate.fetch import picture\n"
        "def process(body, shape, known=None, healthy=picture.process):\n"
        "    if b'HANG' in body: time.sleep(600)\n"
        "    if b'DIE' in body: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return healthy(body, shape)\n"
        "picture.process = process\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_picture_that_kills_or_hangs_the_child_fails_alone(sick: None) -> None:
    """Each gets its failure by the deadline, and the pictures after it are decoded."""
    child = Child(Shape(), 1.0)
    began = time.monotonic()
    found = [child.decode(GREY + end).failure for end in (b"DIE", b"", b"HANG", b"")]
    child.close()
    assert found == ["crash", None, "slow_picture", None]
    assert time.monotonic() - began < 60


def test_the_watchdog_ends_a_process_that_hangs() -> None:
    """A block that does not end is named on standard error, and the exit status says so."""
    script = (
        "import time\nfrom breadth.curate.fetch import watchdog\nwatchdog.LEAST_S = 0.1\n"
        "with watchdog.Watchdog(0.1) as dog, dog.on('http://h/x.jpg'):\n    time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=50)
    assert ended.returncode == 70
    assert b"http://h/x.jpg" in ended.stderr


def test_the_watchdog_spares_a_process_that_was_stopped(tmp_path: Path) -> None:
    """Ctrl-Z and fg is no hang: only the time in which it ran counts."""
    script = (
        "import time\nfrom breadth.curate.fetch import watchdog\nwatchdog.LEAST_S = 5.0\n"
        "with watchdog.Watchdog(0.1) as dog, dog.on('x'):\n"
        "    end = time.monotonic() + 7\n    print('on', flush=True)\n"
        "    while time.monotonic() < end: time.sleep(0.05)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert run.stdout is not None and run.stdout.readline() == b"on\n"
    run.send_signal(signal.SIGSTOP)
    time.sleep(6)
    run.send_signal(signal.SIGCONT)
    assert run.wait(30) == 0


def test_a_child_that_cannot_start_is_no_fault_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails the part, in one line; and no module of the working directory is taken for ours."""
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    child = Child(Shape(), 5)
    assert child.decode(GREY).failure is None
    child.close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Failed, match="no decoder could be started"):
        Child(Shape(), 5).decode(GREY)


def test_a_child_ends_with_its_parent(sick: None) -> None:
    """kill -9 of a worker leaves no decoder behind that works on for ever."""
    script = (
        "import threading, time\nfrom breadth.curate.fetch.isolated import Child\n"
        "from breadth.curate.fetch.picture import Shape\nchild = Child(Shape(), 300)\n"
        "work = threading.Thread(target=child.decode, args=(b'HANG',), daemon=True)\nwork.start()\n"
        "while child._process is None: time.sleep(0.05)\n"
        "print(child._process.pid, flush=True)\ntime.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    decoder = Path(f"/proc/{int(parent.stdout.readline())}/stat")
    time.sleep(2)  # it has loaded, and hangs
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while decoder.exists() and ") Z" not in decoder.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)


class Source:
    """Stands for a fetcher: brings bodies of 1 kB as long as there is room."""

    def __init__(self) -> None:
        self.most = 0
        self.arrived = 0
        self.taken: Callable[[], int] = lambda: 0
        self.error: Exception | None = None

    def run(
        self,
        urls: Sequence[str],
        put: Callable[[Fetched], None],
        *,
        room: Callable[[], bool],
        stop: threading.Event,
    ) -> None:
        for row in range(len(urls)):
            while not room() and not stop.is_set():
                time.sleep(0.001)
            if self.error is not None and row == 5:
                raise self.error
            put(Fetched(row, None, None, b"x" * 1000, None, {}, 1, "h"))  # type: ignore[call-arg]
            self.arrived += 1
            self.most = max(self.most, self.arrived - self.taken())


def test_no_more_bodies_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow decoder holds up the network, not the machine's memory."""
    monkeypatch.setattr(inbox, "ROOM_BYTES", 10_000)
    source, taken = Source(), [0]
    source.taken = lambda: taken[0]
    for _ in Inbox(source, ["u"] * 200).results(lambda: None):  # type: ignore[arg-type]
        taken[0] += 1
        time.sleep(0.001)
    assert taken[0] == 200
    assert source.most <= 12  # the one taken and not yet counted, the one that ends the room


def test_an_error_of_the_fetching_thread_is_raised_here() -> None:
    """What came before it is handed over; then the error, not a wait for ever."""
    source = Source()
    source.error = OSError("no more sockets")
    with pytest.raises(OSError, match="no more sockets"):
        list(Inbox(source, ["u"] * 9).results(lambda: None))  # type: ignore[arg-type]


def test_the_child_answers_as_soon_as_it_is_asked() -> None:
    """Its start is not counted against the first picture."""
    child = Child(Shape(), 0.2)
    assert child.decode(GREY).failure is None
    child.close()
    assert isolated.START_S > 10


def test_a_picture_that_kills_workers_is_found_out_and_the_build_finishes(
    sick: None, site: Site, tmp_path: Path
) -> None:
    """After two dead workers the part decodes in a child; that one picture fails, as "crash"."""
    for number in range(30):
        site.files[f"{number}.jpg"] = GREY + (b"DIE" if number == 17 else b"")
    pool, out = tmp_path / "pool.parquet", tmp_path / "out"
    links = [site.link(f"{number}.jpg") for number in range(30)]
    pq.write_table(pa.table({"url": links, "caption": [f"grey {n}" for n in range(30)]}), pool)
    recipe = tmp_path / "sick.toml"
    recipe.write_text(
        'name = "sick"\n[[stage]]\nname = "download"\nallow_private = true\nper_domain_per_s = 0\n'
    )
    verb = [sys.executable, "-m", "breadth.scripts.cli", "build", str(recipe), "--workers", "1"]
    build = [*verb, "--pool", str(pool), "--out", str(out)]
    ended = subprocess.run(build, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    check_accounts(out, Manifest.read(out))
    tables = [pq.read_table(file) for file in (out / "ledger").iterdir()]
    rows = {row["url"]: row for row in pa.concat_tables(tables).to_pylist()}
    failures = {url: row["failure"] for url, row in rows.items() if not row["kept"]}
    assert failures == {links[17]: "crash"}
    assert site.asked["17.jpg"] == 3  # two tries, and the one that found it out
