"""Show the steps of a build as bars on a terminal, with a line on its fetch; nothing elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from breadth.curate.engine import Progress as Report
from breadth.curate.live import OnLive

SLOW_S = 0.5
"""Hosts that answer faster are not named as slow."""


class Bars(NamedTuple):
    """What a build is to call: with each step's tasks, and with the figures of a running fetch."""

    report: Report
    live: OnLive


@contextmanager
def bars() -> Iterator[Bars]:
    """Yield functions that show one bar per label, and one line under them."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<40}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=console)
    line = Text(no_wrap=True, overflow="ellipsis")
    known: dict[str, tuple[TaskID, int]] = {}  # label -> bar, tasks of the waves before

    def report(label: str, done: int, tasks: int) -> None:
        if label not in known:
            known[label] = progress.add_task(label, total=tasks), 0
        bar, before = known[label]
        progress.update(bar, completed=before + done, total=before + tasks)
        if done == tasks:
            known[label] = bar, before + tasks

    def live(figures: Mapping[str, Any]) -> None:
        line.plain = live_line(figures)

    shown = Live(Group(progress, line), console=console) if console.is_terminal else nullcontext()
    with shown:
        yield Bars(report, live)


def live_line(figures: Mapping[str, Any]) -> str:
    """Say in one line how a fetch is getting on, most important first.

    >>> live_line({"done": 0, "ok": 0, "failures": {}, "slowest": [], "pairs_per_s": 0.0})
    '0 pairs/s'
    """
    done, rate = figures["done"], figures["pairs_per_s"]
    said = [f"{rate:,.0f} pairs/s" if rate >= 10 or not rate else f"{rate:.1f} pairs/s"]
    if done:
        said.append(f"{100 * figures['ok'] / done:.1f} % arrived")
    if figures.get("left_s"):
        said.append(f"{timedelta(seconds=round(figures['left_s']))} left")
    if figures.get("waiting_polite"):
        said.append(f"{figures['waiting_polite']:,} wait their turn")
    said += [f"{kind} {count:,}" for kind, count in list(figures["failures"].items())[:4]]
    slow = [(host, seconds) for host, seconds in figures["slowest"][:2] if seconds >= SLOW_S]
    slowest = [f"{host} {seconds:.1f} s" for host, seconds in slow]
    return " · ".join(said + (["slowest " + ", ".join(slowest)] if slowest else []))
