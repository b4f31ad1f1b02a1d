"""Fetch from a local nginx with img2dataset and with Breadth: speed, CPU time, memory.

``python -m benchmarks.download [--quick] [--json FILE]``. Both are run as their users run them, in
turn, against the same server, with two processes; each command is accounted for with all its
processes. CPU time per picture is net of what four links take, which is start-up.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median

import click

from .comparison import Row, machine, table, write_json
from .fetchers import PARTS, Breadth, Outcome, Work, img2dataset
from .pictures import draw
from .servers import Web, serve

Fetcher = Callable[[Work, Path], Outcome]
PEER = f"img2dataset {version('img2dataset')}"
FULL, QUICK = (5_000, 3), (1_000, 1)
"""Pictures and rounds."""
STARTS = 3  # over all rounds: the first can be from a cold disk, so that it takes three
SLOW_SHARE = 50  # every 50th link is of each kind of host that does not answer as it should
SLOW_TIMEOUT_S = 5
MEASURED = ("fast", "exact", "bytes kept")  # cases whose memory is of interest
FEW = 4  # connections of each process where all are to be polite to the one host


@dataclass(frozen=True)
class Case:
    """The same work for both; ``alike`` names an earlier case whose img2dataset run is this one."""

    name: str
    work: Work
    ours: Breadth
    expected: tuple[int, int]  # the least and the most pictures that must come
    alike: str = ""
    hosts_fail: bool = False


def cases(names: Sequence[str], web: Web) -> list[Case]:
    """Return what is compared."""

    def at(base: str) -> list[str]:
        return [f"{base}/{name}" for name in names]

    work = Work(at(web.http))
    secure = replace(work, urls=at(web.https), certificate=web.certificate)
    politely = Breadth({"per_domain_connections": 2 * FEW, "breaker_failures": 10})
    every = (len(names), len(names))
    answering = sum(_fine(number) for number in range(len(names)))
    dripping = sum(number % SLOW_SHARE == 2 for number in range(len(names)))
    return [
        Case("fast", work, Breadth(), every),
        Case("exact", work, Breadth({"resize_quality": "exact"}), every, "fast"),
        Case("bytes kept", replace(work, keep_bytes=True), Breadth(), every),
        Case("8 connections in all", replace(work, connections=FEW), politely, every),
        Case("answers after 100 ms", replace(work, urls=at(web.late)), Breadth(), every),
        Case(
            "one link in 17 is to a slow or dead host",
            # a part or shard ends with its slowest link, so both have the same number
            replace(work, urls=_mixed(names, web), timeout_s=SLOW_TIMEOUT_S, shards=PARTS),
            Breadth(),
            (answering, answering + dripping),
            hosts_fail=True,
        ),
        Case("HTTPS", secure, Breadth(), every),
        Case("HTTP/2, img2dataset by HTTPS", replace(secure, urls=at(web.http2)), Breadth(), every),
    ]


def _fine(number: int) -> bool:
    return number % SLOW_SHARE > 2


def _mixed(names: Sequence[str], web: Web) -> list[str]:
    """Every 50th link is to a host that hangs, one that is dead, one that drips for 8 s."""
    slow = {0: web.hanging, 1: web.dead, 2: web.dripping}
    return [
        f"{slow.get(number % SLOW_SHARE, web.late)}/{name}" for number, name in enumerate(names)
    ]


Outcomes = dict[str, list[Outcome]]
"""The outcomes of one fetcher by case, round by round."""


def compare(case: Case, ours: Outcomes, theirs: Outcomes, folder: Path) -> None:
    """Run both on a case, one after the other, and add to their outcomes."""
    if case.alike:
        theirs[case.name].append(theirs[case.alike][-1])
    else:
        theirs[case.name].append(_outcome("img2dataset", img2dataset, case, folder))
    ours[case.name].append(_outcome("breadth", case.ours, case, folder))


def _outcome(peer: str, fetcher: Fetcher, case: Case, folder: Path) -> Outcome:
    with tempfile.TemporaryDirectory(dir=folder) as here:
        try:
            outcome = fetcher(case.work, Path(here))
        except RuntimeError as error:  # the command failed, and says why
            raise click.ClickException(f"{case.name}: {error}") from None
    least, most = case.expected
    if not least <= outcome.pictures <= most:
        raise click.ClickException(
            f"{case.name}: {peer} had {outcome.pictures} pictures, not {least} to {most}"
        )
    usage, speed = outcome.usage, outcome.pictures / outcome.steady_s
    click.echo(
        f"{case.name}: {peer} {usage.wall_s:.1f} s, {usage.cpu_s:.1f} s of CPU, "
        f"{speed:.0f} pictures/s",
        err=True,
    )
    return outcome


Figure = Callable[[Outcome, float], float]
"""Computed from an outcome and the CPU seconds that its fetcher needs to start."""

START: tuple[tuple[str, str, Figure], ...] = (
    ("start-up", "s", lambda o, _: o.usage.wall_s),
    ("start-up", "s of CPU", lambda o, _: o.usage.cpu_s),
)
SPEED: tuple[tuple[str, str, Figure], ...] = (
    ("steady", "pictures/s", lambda o, _: o.pictures / o.steady_s),
    ("whole run", "pictures/s", lambda o, _: o.pictures / o.usage.wall_s),
    ("net", "ms of CPU a picture", lambda o, start: (o.usage.cpu_s - start) / o.pictures * 1e3),
    ("net", "pictures a CPU second", lambda o, start: o.pictures / (o.usage.cpu_s - start)),
)
MEMORY: tuple[tuple[str, str, Figure], ...] = (
    ("largest process", "MB", lambda o, _: o.usage.largest_mb),
    ("all processes", "MB", lambda o, _: o.usage.together_mb),
)


def rows(start: Case, compared: Sequence[Case], ours: Outcomes, theirs: Outcomes) -> list[Row]:
    """Return the figures of every case; ``start`` is the one that hardly does more than start."""
    starts = [median(o.usage.cpu_s for o in runs[start.name]) for runs in (ours, theirs)]

    def of(case: Case, figures: Sequence[tuple[str, str, Figure]]) -> Iterator[Row]:
        for what, unit, figure in figures:
            both = [
                [figure(outcome, cpu_s) for outcome in runs[case.name]]
                for runs, cpu_s in zip((ours, theirs), starts, strict=True)
            ]
            yield Row(f"{case.name}: {what}", PEER, unit, *both)

    made = list(of(start, START))
    for case in compared:
        made += of(case, SPEED[:2] + (SPEED[3:] if case.hosts_fail else SPEED[2:3]))
        made += of(case, MEMORY) if case.name in MEASURED else ()
    return made


@click.command()
@click.option("--quick", is_flag=True, help="One round of fewer pictures: two minutes.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the rows here, too.")
def main(quick: bool, file: Path | None) -> None:
    """Compare Breadth's download with img2dataset's against a local nginx."""
    count, rounds = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures, settings = folder / "pictures", folder / "servers"
        pictures.mkdir()
        settings.mkdir()
        described = machine()
        drawn = draw(pictures, count)
        mean_kb = mean(file.stat().st_size for file in drawn) / 1e3
        with serve(pictures, settings) as web:
            compared = cases([file.name for file in drawn], web)
            start = Case("four links", Work(compared[0].work.urls[:4]), Breadth(), (4, 4))
            ours: Outcomes = defaultdict(list)
            theirs: Outcomes = defaultdict(list)
            for _ in range(rounds):
                for case in (*[start] * (STARTS // rounds), *compared):
                    compare(case, ours, theirs, folder)
    made = rows(start, compared, ours, theirs)
    click.echo(
        f"{described}; {count:,} JPEGs of 640 x 480, {mean_kb:.0f} KB on average; "
        f"{f'medians of {rounds} rounds' if rounds > 1 else 'one round'}; peer: {PEER}\n\n"
        f"{table(made)}"
    )
    if file is not None:
        write_json(made, file)


if __name__ == "__main__":
    main()
