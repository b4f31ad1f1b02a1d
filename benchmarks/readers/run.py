"""Run one loader on one task: ``python -m benchmarks.readers.run LOADER CASE TASK.json OUT.json``.

It needs neither Breadth nor any loader but that one. The clock starts after the imports.
"""

import json
import sys
from collections.abc import Callable, Sized
from dataclasses import asdict
from importlib import import_module
from itertools import chain
from pathlib import Path
from time import perf_counter

from benchmarks.process_tree import session_cpu_s

from .task import Batches, Measured, Task


class Clock:
    """Wall time, and CPU time of this process and all that it started, from now on."""

    def __init__(self) -> None:
        self._cpu = session_cpu_s()
        self._wall = perf_counter()  # last: to ask for CPU time takes time

    @property
    def wall_s(self) -> float:
        """Seconds since then."""
        return perf_counter() - self._wall

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU since then, to a hundredth."""
        return session_cpu_s() - self._cpu


def measure(
    make: Callable[[Task], Batches], task: Task, step: Callable[[Sized], object]
) -> Measured:
    """Take batches for as long as the task says, and pass each to ``step``.

    Where nothing is read to warm up, making the loader and the first batch are on the clock.
    """
    clock = Clock()
    batches = make(task)
    first = next(batches)
    first_s = stalled_s = clock.wall_s
    first_cpu_s = clock.cpu_s
    pairs = 0
    if task.warm_pairs:
        warmed = 0
        for batch in chain([first], batches):
            step(batch)
            warmed += len(batch)
            if warmed >= task.warm_pairs:
                break
        clock, stalled_s = Clock(), 0.0
    else:
        step(first)
        pairs = len(first)
    while pairs < task.pairs and clock.wall_s < task.seconds:
        asked = perf_counter()
        following = next(batches, None)
        stalled_s += perf_counter() - asked
        if following is None:
            break
        step(following)
        pairs += len(following)
    return Measured(first_s, first_cpu_s, pairs, clock.wall_s, clock.cpu_s, stalled_s)


def main(loader: str, case: str, task_file: str, result_file: str) -> None:
    """Do what the task says and write ``Measured`` as JSON."""
    task = Task.read(Path(task_file))
    made = getattr(import_module(f".{loader}", __package__), case)
    if case == "convert":
        made(task)
        return
    step: Callable[[Sized], object] = len
    if task.device:
        from .step import training_step

        step = training_step(task.device)
    measured = measure(made, task, step)
    Path(result_file).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main(*sys.argv[1:])
