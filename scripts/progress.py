"""Show the steps of a build as bars on a terminal, and nothing elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from breadth.curate.engine import Progress as Report


@contextmanager
def bars() -> Iterator[Report]:
    """Yield a progress function with one bar per label."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<40}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        known: dict[str, tuple[TaskID, int]] = {}  # label -> bar, tasks of the waves before

        def report(label: str, done: int, tasks: int) -> None:
            if label not in known:
                known[label] = progress.add_task(label, total=tasks), 0
            bar, before = known[label]
            progress.update(bar, completed=before + done, total=before + tasks)
            if done == tasks:
                known[label] = bar, before + tasks

        yield report
