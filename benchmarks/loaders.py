"""Read the same pairs with webdataset, mosaicml-streaming, litdata, spdl and with Breadth.

``python -m benchmarks.loaders --setup DIR`` makes the peers' environments, a minute's work;
``python -m benchmarks.loaders [--quick] [--json FILE] [--peers DIR]`` compares, in eight minutes.
Each loader runs in a process of its own, in turn, round by round. Its clock starts after its
imports, and CPU time is that of all its processes. Figures of CPU time bear with other work on the
machine, those of wall time do not. Peers read in the order of their files, which is the least
work; Breadth shuffles.
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import click
import torch

from .comparison import Row, machine, table, write_json
from .loader_data import KEEP_EVERY, TINY_PX, make_folders, make_many
from .loader_peers import (
    IN_MEMORY,
    LITDATA,
    MOSAIC,
    OURS,
    PACKAGES,
    PLAIN_READ,
    SPDL,
    SPDL_RAW,
    WEB,
    WEB_PILLOW,
    WEB_SIMPLEJPEG,
    Loader,
    set_up,
)
from .process_tree import Usage
from .readers.task import Measured, Task


@dataclass(frozen=True)
class Size:
    """How much is read."""

    pairs: int
    many: int  # pairs of the folder in whose middle is resumed
    rounds: int
    raw_s: float  # how long tars are read


FULL, QUICK = Size(4_000, 1_000_000, 2, 1.5), Size(2_000, 100_000, 1, 1.0)
PEERS = Path(sys.prefix) / "peers"
FOLDERS = {"640 x 480": "large", "256 px": "small", "256 px in plain tars": "plain"}

Outcome = tuple[Measured, Usage]


@dataclass(frozen=True)
class Figure:
    """A number computed from an outcome; ``what`` is added to the case's name."""

    what: str
    unit: str
    of: Callable[[Measured, Usage], float]


READ = Figure("", "pairs a CPU second", lambda m, _: m.pairs / m.cpu_s)
CPU = Figure("", "ms of CPU a pair", lambda m, _: m.cpu_s / m.pairs * 1e3)
SPEED = Figure("", "pairs/s", lambda m, _: m.pairs / m.wall_s)
FIRST = Figure(", first batch", "s", lambda m, _: m.first_s)
FIRST_CPU = Figure(", first batch", "s of CPU", lambda m, _: m.first_cpu_s)
MEMORY = Figure(", all processes", "MB", lambda _, u: u.together_mb)
STALLED = Figure(", waiting", "s in 100 s", lambda m, _: max(100 * m.stalled_s / m.wall_s, 0.01))


@dataclass(frozen=True)
class Run:
    """A task for one loader; ``kind`` names a function of its file."""

    loader: Loader
    kind: str
    folder: str
    task: Task


@dataclass(frozen=True)
class Case:
    """Figures of the same work by ours and by some peers."""

    name: str
    ours: Run
    theirs: Sequence[Loader]
    figures: Sequence[Figure]

    @property
    def their_runs(self) -> list[Run]:
        """What the peers do, in their own formats."""
        kind = self.ours.kind.partition("-")[0]
        return [replace(self.ours, loader=loader, kind=kind) for loader in self.theirs]


def cases(size: Size) -> list[Case]:
    """Return what is compared."""
    made = []
    reading = Task("", warm_pairs=size.pairs, seconds=size.raw_s)
    for name, folder in FOLDERS.items():
        read = Run(OURS, "raw", folder, reading)
        made.append(Case(f"read, {name}", read, (PLAIN_READ, WEB, SPDL_RAW), (READ,)))
        views = replace(read, kind="raw-views")
        made.append(Case(f"read without a copy, {name}", views, (WEB,), (READ,)))
    cropping = Task("", warm_pairs=size.pairs // 10, pairs=size.pairs * 7 // 10)
    peers = (WEB_PILLOW, WEB_SIMPLEJPEG, MOSAIC, LITDATA, SPDL)
    for name, folder in list(FOLDERS.items())[:2]:
        cropped = Run(OURS, "decoded", folder, cropping)
        made.append(Case(f"crops, {name}", cropped, (IN_MEMORY,), (SPEED, CPU)))
        figures = (SPEED, CPU, MEMORY, FIRST, FIRST_CPU) if folder == "small" else (SPEED, CPU)
        made.append(Case(f"crops, {name}", cropped, peers, figures))
    sharing = replace(reading, warm_pairs=size.pairs // KEEP_EVERY)
    made.append(
        Case("a tenth of the pairs", Run(OURS, "subset", "small", sharing), (WEB,), (READ,))
    )
    resuming = Task("", px=2 * TINY_PX, pairs=1, position=size.many // 2)
    for kind, where in (("resumed", ""), ("resumed-here", ", no loader process")):
        resumed = Run(OURS, kind, "many", resuming)
        name = f"from the middle of {size.many:,}{where}"
        made.append(Case(name, resumed, (WEB_SIMPLEJPEG, MOSAIC, LITDATA), (FIRST, FIRST_CPU)))
    if torch.cuda.is_available():
        trained = Run(OURS, "decoded", "small", replace(cropping, device="cuda"))
        web = (WEB_PILLOW, WEB_SIMPLEJPEG)
        made.append(Case("crops, 256 px, into ViT-B/16", trained, web, (SPEED, STALLED)))
    return made


def make_all(root: Path, size: Size, peers: Path) -> None:
    """Make the folders, and those in the formats of the peers that are there."""
    make_folders(root, size.pairs)
    make_many(root / "many", size.many)
    state = Task(str(root / "many"), to=str(root / "state"), position=size.many // 2)
    OURS.convert(state, peers, root)
    for loader in (LITDATA, MOSAIC):
        if loader.is_there(peers):
            for folder in ("large", "small", "many"):
                task = Task(str(root / folder), to=str(_folder(root, loader, folder)))
                loader.convert(task, peers, root)


def measure(run: Run, root: Path, peers: Path) -> Outcome:
    """Have a loader do its task."""
    folder = _folder(root, run.loader, run.folder)
    keep = root / ("uids" if run.loader is OURS else "keys")
    task = replace(run.task, folder=str(folder), keep=str(keep), state=str(root / "state"))
    measured, usage = run.loader.measure(run.kind.replace("-", "_"), task, peers, root)
    click.echo(
        f"{run.kind} {run.folder}: {run.loader.name} {measured.pairs:,} pairs, "
        f"{measured.wall_s:.2f} s, {measured.cpu_s:.2f} s of CPU; first {measured.first_s:.2f} s",
        err=True,
    )
    return measured, usage


def _folder(root: Path, loader: Loader, folder: str) -> Path:
    return root / (f"{folder}-{loader.module}" if loader.converts else folder)


def rows(compared: Sequence[Case], outcomes: Mapping[Run, Sequence[Outcome]]) -> Iterator[Row]:
    """Return the figures of every case and peer that was measured."""
    for case in compared:
        for theirs in case.their_runs:
            if theirs in outcomes:
                for figure in case.figures:
                    both = [[figure.of(*o) for o in outcomes[run]] for run in (case.ours, theirs)]
                    name = f"{case.name}{figure.what}: {theirs.loader.name}"
                    yield Row(name, theirs.loader.name, figure.unit, *both)


@click.command()
@click.option("--quick", is_flag=True, help="One round of fewer pairs: three minutes.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the rows here, too.")
@click.option(
    "--peers",
    type=click.Path(path_type=Path),
    default=PEERS,
    help="Where the peers' environments are.  [default: peers/ in this environment]",
)
@click.option("--setup", type=click.Path(path_type=Path), help="Make them here, and do no more.")
def main(quick: bool, file: Path | None, peers: Path, setup: Path | None) -> None:
    """Compare Breadth's loader with four others on the same pairs."""
    if setup is not None:
        for package in set_up(setup.resolve()):
            click.echo(f"{package} cannot be installed: {setup}/{package}.log says why", err=True)
        return
    size, described = QUICK if quick else FULL, machine()
    compared = cases(size)
    runs = dict.fromkeys(run for case in compared for run in (*case.their_runs, case.ours))
    there = [run for run in runs if run.loader.is_there(peers)]
    outcomes: dict[Run, list[Outcome]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        make_all(Path(temporary), size, peers)
        for _ in range(size.rounds):
            for run in there:
                outcomes[run].append(measure(run, Path(temporary), peers))
    made = list(rows(compared, outcomes))
    peer_versions = ", ".join(first.replace("==", " ") for first, *_ in PACKAGES.values())
    absent = sorted({run.loader.package for run in runs if run not in there})
    click.echo(
        f"{described}; {size.pairs:,} pairs, 2 workers, batches of 64, crops of 224 px; medians "
        f"of {size.rounds} rounds; webdataset {version('webdataset')}, {peer_versions}"
        + (f"; not there (--setup makes them): {', '.join(absent)}" if absent else "")
        + f"\n\n{table(made)}"
    )
    if file is not None:
        write_json(made, file)


if __name__ == "__main__":
    main()
