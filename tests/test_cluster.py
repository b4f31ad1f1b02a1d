"""Workers of this machine: forked from one process, with TLS, and a dashboard on demand."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing import forkserver
from typing import Any
from urllib.request import urlopen

import pytest

from breadth.curate.engine import Dask, open_engine

ASK = "(__import__('time').sleep(0.2), {})[1]"  # long enough that both workers are asked


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """Two workers, in an environment that changed after a first cluster was there.

    Their common parent is a new one: what an earlier test forked from imported nothing of ours.
    """
    forkserver._forkserver._stop()
    with pytest.MonkeyPatch.context() as patch, open_engine(1, None):
        patch.setenv("BREADTH_TEST_SAID", "late")
        with open_engine(2, None) as opened:
            yield opened


def asked(engine: Dask, what: str) -> set[Any]:
    """Return what the workers answer to an expression."""
    return {answer for _, answer in engine.results([partial(eval, ASK.format(what))] * 8)}


def test_workers_share_what_they_import(engine: Dask) -> None:
    """All workers are children of one process that is not ours and has imported the stages."""
    assert len(asked(engine, "__import__('os').getpid()")) == 2
    parents = asked(engine, "__import__('os').getppid()")
    assert len(parents) == 1 and parents != {os.getpid()}
    modules = "tuple(m in __import__('sys').modules for m in ('breadth.curate.barrier', 'pandas'))"
    assert asked(engine, modules) == {(True, False)}


def test_workers_have_the_environment_of_now(engine: Dask) -> None:
    """A variable that was set after their common parent began reaches them, and malloc's hold."""
    assert asked(engine, "__import__('os').environ.get('BREADTH_TEST_SAID')") == {"late"}
    assert asked(engine, "__import__('os').environ['MALLOC_TRIM_THRESHOLD_']") == {"67108864"}


def test_workers_leave_an_interrupt_to_the_driver(engine: Dask) -> None:
    """Ctrl-C in a terminal goes to all processes: a worker ignores it."""
    assert asked(engine, "__import__('signal').getsignal(2).name") == {"SIG_IGN"}


def test_a_worker_that_is_killed_is_replaced(engine: Dask) -> None:
    """A task whose worker dies each time fails by itself, and the next ones have workers."""
    die = partial(eval, "__import__('os').kill(__import__('os').getpid(), 9)")
    [(_, error)] = engine.results([die])
    assert isinstance(error, Exception) and "KilledWorker" in type(error).__name__
    assert asked(engine, "1 + 1") == {2}


def test_the_cluster_speaks_tls_on_loopback(engine: Dask) -> None:
    """The scheduler's address is of this machine alone, and a client without a key is refused."""
    from distributed import Client

    address = engine.client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    with pytest.raises((OSError, TypeError)):
        Client(address, timeout="2s")


def test_the_dashboard_is_there_when_somebody_looks(engine: Dask) -> None:
    """Its first request answers as later ones do: with the page, by any of its addresses."""
    root = engine.dashboard.removesuffix("/status")
    pages = [urlopen(root + path, timeout=30).read() for path in ("/", "/status", "/tasks")]
    assert all(b"bokeh" in page for page in pages)


def test_a_start_imports_neither_pandas_nor_the_dashboard() -> None:
    """Starting and using workers leaves out what takes as long as all else."""
    script = (
        "import sys\n"
        "from breadth.curate.without_pandas import keep_pandas_out\n"
        "from breadth.curate.engine import open_engine\n"
        "if __name__ == '__main__':\n"
        "    keep_pandas_out()\n"
        "    with open_engine(1, None) as engine:\n"
        "        print(list(engine.results([dict])), 'pandas' in sys.modules, "
        "'bokeh' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[(0, {})] False False\n", done.stderr
