"""Run a build's tasks: beside ``cluster.py`` the only file that knows Dask."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from breadth.loaders.errors import BreadthError, Failed

from .cluster import CONFIG, SHARE, SHARES, local_cluster, warm_up

WINDOW = 3
"""Tasks in flight per worker: enough to keep it busy, few enough that none waits for long."""

Task = Callable[[], Any]
RunTasks = Callable[[str, Sequence[Task]], list[Any]]
"""Run tasks under a label and return their results in order; a Runner is one."""

Progress = Callable[[str, int, int], None]
"""Called with a label, the tasks done and the tasks there are."""


class Engine(Protocol):
    """Something that runs tasks, each of which leaves its result on disk."""

    dashboard: str

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Yield (index, result or exception) as tasks end, in any order."""
        ...


@dataclass
class Sync:
    """Run tasks one after the other in this process, for debugging and small pools."""

    dashboard: str = ""

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Yield each result; an exception other than an interrupt is a result."""
        for index, task in enumerate(tasks):
            try:
                yield index, task()
            except Exception as error:
                yield index, error


@dataclass
class Dask:
    """Run tasks as futures in a sliding window; no picture passes through the scheduler."""

    client: Any
    dashboard: str = ""
    shares: bool = False
    """Whether the workers are ours: they have two threads, and ``SHARES`` of a worker to give."""

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Yield each result as its future ends; a worker that dies is replaced by Dask."""
        from distributed import as_completed

        workers = max(1, len(self.client.nthreads()))
        waiting = iter(enumerate(tasks))
        index_of: dict[Any, int] = {}
        running = as_completed([])
        threads = sum(self.client.nthreads().values())
        for _ in range(max(workers * WINDOW, threads + workers)):
            self._submit(waiting, running, index_of)
        for future in running:
            error = future.exception() if future.status != "finished" else None
            yield index_of.pop(future), error if error is not None else future.result()
            future.release()
            self._submit(waiting, running, index_of)

    def _submit(self, waiting: Any, running: Any, index_of: dict[Any, int]) -> None:
        for index, task in waiting:
            # pure=False: a key of its own, so that a task of a repeated build runs again
            future = self.client.submit(_call, task, pure=False, resources=self._resources(task))
            index_of[future] = index
            running.add(future)
            return

    def _resources(self, task: Task) -> dict[str, int] | None:
        """Ask for a part of a worker: half of it for a task that mostly waits, else all."""
        if not self.shares:
            return None
        return {SHARE: 1 if getattr(task, "overlaps", False) else SHARES}


def _call(task: Task) -> Any:
    return task()


def prepare_engine(workers: int, scheduler: str | None) -> None:
    """Let what open_engine() will need start now, beside what the caller does meanwhile."""
    if workers and scheduler is None:
        warm_up()


@contextmanager
def open_engine(workers: int, scheduler: str | None) -> Iterator[Engine]:
    """Open a cluster on this machine, an existing one by its address, or ``sync``.

    A local cluster listens on loopback only, with TLS, and gives each worker process its share
    of this machine's memory. In a notebook or script keep the call under
    ``if __name__ == "__main__"``: the workers import the main module.
    """
    if scheduler == "sync" or (scheduler is None and workers == 0):
        yield Sync()
        return
    import dask
    from distributed import Client

    with dask.config.set(_CONFIG), _client(Client, workers, scheduler) as client:
        yield Dask(client, str(client.dashboard_link or ""), shares=scheduler is None)


_CONFIG = {
    **CONFIG,
    "distributed.scheduler.allowed-failures": 3,
    "distributed.worker.memory.target": False,  # nothing to spill: results are tiny
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": 0.85,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,  # it costs as much as all else that idles
    "distributed.comm.timeouts.connect": "60s",
    "distributed.admin.large-graph-warning-threshold": "100MB",
}


@contextmanager
def _client(client_class: Any, workers: int, scheduler: str | None) -> Iterator[Any]:
    if scheduler is not None:
        try:
            client = client_class(scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise Failed(f"no Dask scheduler answers at {scheduler}: {error}") from None
        with client:
            yield client
        return
    with local_cluster(workers) as cluster, client_class(cluster) as client:
        yield client


@dataclass
class Runner:
    """Run the tasks of a build with progress, and turn failures into one line and a file."""

    engine: Engine
    failed: Path
    progress: Progress

    def __call__(self, label: str, tasks: Sequence[Task]) -> list[Any]:
        """Return the results in the tasks' order; raises Failed where some did not end well.

        The others are done first, so that the same command continues with only what is left.
        """
        results: list[Any] = [None] * len(tasks)
        errors: dict[int, BaseException] = {}
        self.progress(label, 0, len(tasks))
        for done, (index, result) in enumerate(self.engine.results(tasks), 1):
            if isinstance(result, BaseException):
                errors[index] = result
            results[index] = result
            self.progress(label, done, len(tasks))
        if errors:
            raise self._failure(label, errors, len(tasks))
        return results

    def _failure(self, label: str, errors: dict[int, BaseException], tasks: int) -> BreadthError:
        self.failed.mkdir(parents=True, exist_ok=True)
        for index, error in errors.items():
            name = label.replace(": ", "-").replace(" ", "-")[:100]  # names end at 255 bytes
            file = self.failed / f"{name}-{index:05d}.txt"
            file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        first = errors[min(errors)]
        if len(errors) == tasks and isinstance(first, BreadthError) and first.exit_status == 2:
            return first
        kind = next((type(e) for e in errors.values() if isinstance(e, Failed)), Failed)
        return kind(
            f"{label} failed on {len(errors)} of {tasks} parts ({_short(first)}); details are in "
            f"{self.failed}; run the same command again to do what is left"
        )


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:160]
