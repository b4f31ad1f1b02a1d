"""Measure what no earlier run has measured of a part, and commit it."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.errors import Failed
from breadth.loaders.index import picture_extension

from .legs import Leg
from .part_store import Attempt, stem
from .part_view import PartView
from .pictures import Pictures
from .shard_writer import PairToWrite
from .stage import Stage
from .workspace import Workspace

CHUNK_PAIRS = 256
"""Pairs whose pictures are in memory at once; a network stage is given the whole part."""


class Measuring:
    """What one task adds to a part's store: nothing where every row was measured before."""

    def __init__(self, view: PartView, workspace: Workspace, leg: Leg, part: int) -> None:
        self._view, self._workspace, self._leg = view, workspace, leg
        self._store = workspace.store(leg, part)
        self._part = part
        self._attempt: Attempt | None = None
        self._files: list[str] = []
        self._facts: dict[str, Any] = {}
        self._now: dict[str, list[np.ndarray]] = defaultdict(list)  # rows this task has measured

    def measure(self, stage: Stage, alive: np.ndarray) -> None:
        """Measure the rows of ``alive`` that nobody has measured."""
        if stem(stage) not in self._now:
            for name, values in self._before(stage).items():
                self._view.put(name, values)
        done = self._store.measured(stage, self._view.rows)
        done[np.concatenate([*self._now[stem(stage)], np.array([], np.int64)])] = True
        todo = alive[~done[alive]]
        if stage.writes and len(todo):
            self._add(stage, todo)

    def fetch_again(self, stage: Stage, rows: np.ndarray) -> None:
        """Fetch pictures that are gone from disk; their columns stay as they were measured.

        Raises Failed where a picture is another than the one that was measured.
        """
        found = self._annotate(stage, rows)
        came = np.flatnonzero(pc.is_valid(found["image"]).to_numpy(zero_copy_only=False))
        before = self._before(stage)
        if "sha256" in before:
            then = pc.take(before["sha256"], pa.array(rows[came]))
            same = pc.equal(then, pc.take(found["sha256"], pa.array(came)))
            if not pc.all(pc.fill_null(same, True), min_count=0).as_py():
                raise Failed(
                    "a picture is no longer what was measured: build in a new folder, or keep "
                    "every fetched picture with [output] keep_staged = true"
                )
        self._write_pictures(rows, found["image"])

    def _before(self, stage: Stage) -> dict[str, pa.Array]:
        return self._store.columns(stage, self._view.rows, stage.writes)

    def _add(self, stage: Stage, rows: np.ndarray) -> None:
        self._fetch_missing(stage, rows)
        measured = self._annotate(stage, rows)
        if "image" in stage.writes:
            self._write_pictures(rows, measured.pop("image"))
        # a stage that stands twice in a leg measures the second time only what it has not yet
        again = len(self._now[stem(stage)])
        name = f"{stem(stage)}.{again}" if again else stem(stage)
        self._files.append(self._begin().write_columns(name, rows, measured))
        self._now[stem(stage)].append(rows)
        for name, values in measured.items():
            self._view.put(name, _overlay(self._view.column(name), rows, values))

    def _fetch_missing(self, stage: Stage, rows: np.ndarray) -> None:
        """Fetch again the pictures that an earlier run has freed and this stage needs."""
        if "image" in stage.reads:
            missing = self._view.pictures.missing(rows)
            if len(missing):
                refetch(self._workspace, self._view.legs, self._part, missing)
                self._view.close()

    def _annotate(self, stage: Stage, rows: np.ndarray) -> dict[str, pa.Array]:
        step = len(rows) if stage.resource == "network" else CHUNK_PAIRS
        chunks = []
        for start in range(0, len(rows), step):
            table = self._view.table(stage, rows[start : start + step], pictures=True)
            chunks.append(_checked(stage, table, stage.annotate(table)))
        return {name: pa.concat_arrays([chunk[name] for chunk in chunks]) for name in stage.writes}

    def _write_pictures(self, rows: np.ndarray, pictures: pa.Array) -> None:
        have = np.flatnonzero(pc.is_valid(pictures).to_numpy(zero_copy_only=False))
        names = [n for n in ("uid", "url", "caption") if n in self._view.candidates.column_names]
        facts = self._view.candidates.select(names)

        def pairs() -> Iterator[PairToWrite]:
            for i in have.tolist():
                encoded = pictures[i].as_py()
                row = facts.slice(int(rows[i]), 1).to_pylist()[0]
                yield row, encoded, picture_extension(encoded)

        if len(have):
            attempt = self._begin()
            tar = attempt.write_pictures(pairs(), facts.schema)
            kept = attempt.write_columns("pictures", rows[have], {})
            self._files.append(kept)
            self._facts = {"pictures": tar, "picture_rows": kept}

    def _begin(self) -> Attempt:
        if self._attempt is None:
            self._attempt = self._store.attempt()
        return self._attempt

    def commit(self, seconds: Mapping[str, float]) -> bool:
        """Make what was measured count; False where another attempt was first, which counts."""
        if self._attempt is None:
            return True
        timings = self._attempt.folder / "timings.json"
        timings.write_text(json.dumps({"pairs": self._view.rows, "seconds": dict(seconds)}))
        return self._attempt.commit(self._files, **self._facts)


def refetch(workspace: Workspace, legs: Sequence[Leg], part: int, rows: np.ndarray) -> None:
    """Fetch again pictures that are nowhere on disk; raises Failed where one is gone."""
    leg = next((leg for leg in legs if leg.writes_pictures), None)
    if leg is None:
        raise Failed("a picture of the input shards is gone: put the shards back")
    view = PartView(workspace, legs[: leg.number], part)
    measuring = Measuring(view, workspace, leg, part)
    for stage in leg.stages:
        if "image" in stage.writes:
            measuring.fetch_again(stage, rows)
    measuring.commit({})
    view.close()
    pictures = Pictures(workspace.out, part, view.candidates, (leg.folder,))
    gone = pictures.missing(rows)
    if len(gone):
        uid = view.candidates["uid"][int(gone[0])].as_py()
        raise Failed(
            f"{len(gone)} pictures could not be fetched again, {uid} first: try again later"
        )


def _checked(stage: Stage, table: pa.Table, columns: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Hold a stage to its contract: the columns it declared, one value per row."""
    checked = {}
    for name, kind in stage.writes.items():
        values = columns.get(name)
        if values is None or len(values) != len(table):
            raise Failed(f"stage {stage.name} must write one {name!r} per pair")
        array = values if isinstance(values, pa.Array) else pa.array(values)
        checked[name] = array.cast(kind) if array.type != kind else array
    return checked


def _overlay(before: pa.Array, rows: np.ndarray, values: pa.Array) -> pa.Array:
    """Replace ``before[rows]`` by ``values``."""
    where = np.arange(len(before))
    where[rows] = len(before) + np.arange(len(rows))
    both = pa.concat_arrays([before, values.cast(before.type)])
    return pc.take(both, pa.array(where))
