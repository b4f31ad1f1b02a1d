"""Decide what needs a look at every part: selectors by merged sketches, matchers by buckets."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.arrow_file import read_arrow, write_arrow
from breadth.loaders.whole_file import replaced

from .engine import RunTasks
from .leg_task import drop_rows
from .legs import Leg
from .matching import match
from .part_view import PartView
from .stage import Matcher, Selector
from .verdicts import Verdicts
from .workspace import Workspace


def decide(workspace: Workspace, legs: tuple[Leg, ...], parts: int, run: RunTasks) -> None:
    """Write the verdicts of the barrier that ends ``legs[-1]``, for every part.

    Cost of a selector: its sketch once a part and pass. Of a matcher: its keys and the alive
    pairs' priorities in the driver's memory, some 60 bytes a key.
    """
    leg = legs[-1]
    if all(workspace.verdict_file(leg, part).is_file() for part in range(parts)):
        return
    work = workspace.verdict_folder(leg) / "barrier"
    work.mkdir(parents=True, exist_ok=True)
    if isinstance(leg.barrier, Selector):
        _select(workspace, legs, parts, run, work)
    else:
        _match(workspace, legs, parts, run, work)
    shutil.rmtree(work)
    for part in range(parts):
        workspace.verdict_file(leg, part, ".local").unlink(missing_ok=True)


@dataclass(frozen=True)
class _BarrierTask:
    """What every task of a barrier needs."""

    workspace: Workspace
    legs: tuple[Leg, ...]
    part: int
    work: Path

    @property
    def stage(self) -> Any:
        return self.legs[-1].barrier

    def local(self) -> Verdicts:
        return Verdicts.read(self.workspace.verdict_file(self.legs[-1], self.part, ".local"))

    def table(self, rows: np.ndarray) -> pa.Table:
        return PartView(self.workspace, self.legs, self.part).table(
            self.stage, rows, pictures=False
        )

    def finish(self, verdicts: Verdicts) -> None:
        verdicts.write(self.workspace.verdict_file(self.legs[-1], self.part))

    @property
    def number(self) -> int:
        leg = self.legs[-1]
        return leg.first_stage + len(leg.stages)


@dataclass(frozen=True)
class _Sketch(_BarrierTask):
    """Sketch one part for one pass of a selector."""

    passes_done: int

    def __call__(self) -> str:
        file = self.work / f"{self.passes_done}-{self.part:05d}.npy"
        if not file.is_file():
            table = self.table(self.local().alive)
            _save(file, self.stage.sketch(table, _states(self.work, self.passes_done)))
        return file.name


@dataclass(frozen=True)
class _Select(_BarrierTask):
    """Apply a selector's merged sketches to one part, row by row."""

    def __call__(self) -> int:
        verdicts = self.local()
        rows = verdicts.alive
        table = self.table(rows)
        keep = self.stage.keep(table, _states(self.work, self.stage.passes))
        drop_rows(self.stage, self.number, table, keep, rows, verdicts)
        self.finish(verdicts)
        return len(verdicts.alive)


def _select(
    workspace: Workspace, legs: tuple[Leg, ...], parts: int, run: RunTasks, work: Path
) -> None:
    stage = cast(Selector, legs[-1].barrier)
    for done in range(stage.passes):
        tasks = [_Sketch(workspace, legs, part, work, done) for part in range(parts)]
        names = run(f"{stage.name}: look {done + 1}", tasks)
        _save(work / f"state-{done}.npy", sum(np.load(work / name) for name in names))
    run(f"{stage.name}: keep", [_Select(workspace, legs, p, work) for p in range(parts)])


def _states(work: Path, count: int) -> tuple[np.ndarray, ...]:
    return tuple(np.load(work / f"state-{k}.npy") for k in range(count))


def _save(file: Path, array: np.ndarray) -> None:
    with replaced(file) as sink:
        np.save(sink, array)


@dataclass(frozen=True)
class _Keys(_BarrierTask):
    """Put the pairs of one part in buckets, with what their priority is made of."""

    def __call__(self) -> str:
        file = self.work / f"{self.part:05d}.arrow"
        if not file.is_file():
            rows = self.local().alive
            keys = self.stage.keys(self.table(rows))
            write_arrow(self.work / f"{self.part:05d}-rank.arrow", self._ranked(rows))
            write_arrow(file, keys)
        return file.name

    def _ranked(self, rows: np.ndarray) -> pa.Table:
        view = PartView(self.workspace, self.legs, self.part)
        prefer = getattr(self.stage, "prefer", "") or None
        return pa.table(
            {
                "row": pa.array(rows, pa.int32()),
                "uid": pc.take(view.column("uid"), pa.array(rows)),
                "prefer": _number(view, prefer, rows),
                "area": _area(view, rows),
            }
        )


def _number(view: PartView, name: str | None, rows: np.ndarray) -> pa.Array:
    if name is None:
        return pa.array(np.zeros(len(rows)))
    values = pc.take(view.column(name).cast(pa.float64()), pa.array(rows))
    return pc.fill_null(values, -np.inf)


def _area(view: PartView, rows: np.ndarray) -> pa.Array:
    try:
        sides = [_number(view, f"original_{side}", rows) for side in ("width", "height")]
    except KeyError:  # a pool of shards that do not say: the uid decides
        return pa.array(np.zeros(len(rows)))
    return pc.multiply(*sides)


@dataclass(frozen=True)
class _Drop(_BarrierTask):
    """Write the verdicts of one part from what the matcher dropped."""

    def __call__(self) -> int:
        verdicts = self.local()
        dropped = read_arrow(self.work / f"{self.part:05d}-dropped.arrow")
        rows = dropped["row"].to_numpy()
        verdicts.drop(rows, self.number, dropped["reason"].to_pylist())
        verdicts.witness[rows] = dropped["witness"].to_pylist()
        verdicts.distance[rows] = dropped["distance"].to_numpy()
        self.finish(verdicts)
        return len(verdicts.alive)


def _match(
    workspace: Workspace, legs: tuple[Leg, ...], parts: int, run: RunTasks, work: Path
) -> None:
    stage = cast(Matcher, legs[-1].barrier)
    files = run(f"{stage.name}: keys", [_Keys(workspace, legs, p, work) for p in range(parts)])
    ranked = [read_arrow(work / f"{part:05d}-rank.arrow") for part in range(parts)]
    starts = np.concatenate([[0], np.cumsum([len(table) for table in ranked])])
    keys = pa.concat_tables(
        _numbered(read_arrow(work / f), start) for f, start in zip(files, starts[:-1], strict=True)
    )
    pairs = pa.concat_tables(ranked)
    dropped = match(keys, _priority(pairs), stage)
    number = dropped["pair"].to_numpy()
    table = pa.table(
        {
            "row": pc.take(pairs["row"], pa.array(number)),
            "witness": pc.take(pairs["uid"], dropped["witness"]),
            "reason": dropped["reason"],
            "distance": dropped["distance"].cast(pa.float32()),
        }
    )
    part_of = np.searchsorted(starts, number, side="right") - 1
    for part in range(parts):
        write_arrow(work / f"{part:05d}-dropped.arrow", table.filter(pa.array(part_of == part)))
    run(f"{stage.name}: keep", [_Drop(workspace, legs, p, work) for p in range(parts)])


def _numbered(keys: pa.Table, start: int) -> pa.Table:
    """Number a part's pairs through the whole build: ``row`` counts the alive rows of the part."""
    pair = pc.add(keys["row"].cast(pa.int64()), int(start))
    return keys.drop_columns(["row"]).append_column("pair", pair)


def _priority(pairs: pa.Table) -> np.ndarray:
    """Return each pair's rank: preferred column and area larger first, then uid smaller first."""
    table = pa.table(
        {
            "prefer": pc.negate(pairs["prefer"]),
            "area": pc.negate(pairs["area"]),
            "uid": pairs["uid"],
        }
    )
    keys = [("prefer", "ascending"), ("area", "ascending"), ("uid", "ascending")]
    order = pc.sort_indices(table, sort_keys=keys).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
