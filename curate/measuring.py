"""Measure what no earlier run has measured of a part, and commit it."""

import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.errors import Failed
from breadth.loaders.index import picture_extension

from .legs import Leg
from .live import ended
from .part_store import Attempt, stem
from .part_view import PartView
from .pictures import Pictures
from .retry import PictureGone, measured
from .scratch import Fetches, Scratch
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
        self._measured: Counter[str] = Counter()  # rows by stage
        self._phases: dict[str, float] = defaultdict(float)
        self._now: dict[str, list[np.ndarray]] = defaultdict(list)  # rows this task has measured

    def measure(self, stage: Stage, alive: np.ndarray) -> None:
        """Measure the rows of ``alive`` that nobody has measured."""
        if stem(stage) not in self._now:
            for name, values in self._before(stage).items():
                self._view.put(name, values)
        legs = (*self._view.legs, self._leg)
        rows = self._view.rows
        done = measured(self._workspace, legs, self._part, stage, rows, self._now)
        todo = alive[~done[alive]]
        if stage.writes and len(todo):
            self._add(stage, todo)

    def fetch_again(self, stage: Stage, rows: np.ndarray) -> None:
        """Fetch pictures that are gone from disk; their columns stay as they were measured.

        Raises Failed where a picture is another than the one that was measured.
        """
        before = self._before(stage)
        self._measured[stage.name] += len(rows)
        with self._scratch(stage) as scratch:
            found = self._annotate(stage, rows, scratch)
            came = [i for i in range(len(rows)) if _picture(found["image"], i) is not None]
            if "sha256" in before:
                then = pc.take(before["sha256"], pa.array(rows[came]))
                same = pc.equal(then, pc.take(found["sha256"], pa.array(came, pa.int64())))
                if not pc.all(pc.fill_null(same, True), min_count=0).as_py():
                    raise PictureGone(
                        "a picture is no longer what was measured: build in a new folder, or keep "
                        "every fetched picture with [output] keep_staged = true"
                    )
            self._write_pictures(rows, found.pop("image"))

    def _before(self, stage: Stage) -> dict[str, pa.Array]:
        return self._store.columns(stage, self._view.rows, stage.writes)

    def _add(self, stage: Stage, rows: np.ndarray) -> None:
        self._fetch_missing(stage, rows)
        self._measured[stage.name] += len(rows)
        with self._scratch(stage) as scratch:
            measured = self._annotate(stage, rows, scratch)
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

    @contextmanager
    def _scratch(self, stage: Stage) -> Iterator[Scratch | None]:
        """Give a network stage its places on disk, until its pictures are written."""
        if stage.resource != "network":
            yield None
            return
        attempt = self._begin()
        scratch = self._workspace.scratch(self._leg, self._part, attempt.scratch)
        try:
            yield scratch
        finally:
            # what a network file system still holds open is swept by the next build
            shutil.rmtree(attempt.scratch, ignore_errors=True)
        ended(scratch.live)
        for phase, seconds in scratch.timings.items():
            self._phases[phase] += seconds

    def _annotate(
        self, stage: Stage, rows: np.ndarray, scratch: Scratch | None
    ) -> dict[str, pa.Array]:
        if scratch is not None:
            table = self._view.table(stage, rows, pictures=True)
            return _checked(stage, table, cast(Fetches, stage).annotate(table, scratch=scratch))
        chunks = []
        for start in range(0, len(rows), CHUNK_PAIRS):
            table = self._view.table(stage, rows[start : start + CHUNK_PAIRS], pictures=True)
            chunks.append(_checked(stage, table, stage.annotate(table)))
        return {name: pa.concat_arrays([chunk[name] for chunk in chunks]) for name in stage.writes}

    def _write_pictures(self, rows: np.ndarray, pictures: Any) -> None:
        """Write the pictures of ``rows`` to a tar, one after the other; None is no picture."""
        started = time.perf_counter()
        have: list[int] = []
        names = [n for n in ("uid", "url", "caption") if n in self._view.candidates.column_names]
        facts = self._view.candidates.select(names)

        def pairs() -> Iterator[PairToWrite]:
            for start in range(0, len(rows), CHUNK_PAIRS):
                chunk = rows[start : start + CHUNK_PAIRS]
                known = facts.take(pa.array(chunk)).to_pylist()
                for i, row in enumerate(chunk.tolist()):
                    encoded = _picture(pictures, start + i)
                    if encoded is not None:
                        have.append(row)
                        yield known[i], encoded, picture_extension(encoded)

        stream = pairs()
        for first in stream:  # where there is none, no tar is written
            attempt = self._begin()
            tar = attempt.write_pictures(chain([first], stream), facts.schema)
            kept = attempt.write_columns("pictures", np.array(have), {})
            self._files.append(kept)
            self._facts = {"pictures": tar, "picture_rows": kept}
        self._phases["write"] += time.perf_counter() - started

    def _begin(self) -> Attempt:
        if self._attempt is None:
            self._attempt = self._store.attempt()
        return self._attempt

    def commit(self, seconds: Mapping[str, float]) -> bool:
        """Make what was measured count; False where another attempt was first, which counts.

        ``seconds`` is the time of each stage; it is stored with that of each phase of a fetch.
        """
        if self._attempt is None or not self._files:
            return True
        counts = self._attempt.commit(self._files, round=self._leg.retry_round, **self._facts)
        if counts:
            pairs = max(self._measured.values(), default=0)
            self._attempt.write_timings(pairs, seconds, self._phases)
        return counts


def refetch(workspace: Workspace, legs: Sequence[Leg], part: int, rows: np.ndarray) -> None:
    """Fetch again pictures that are nowhere on disk; raises Failed where one is gone."""
    leg = next((leg for leg in legs if leg.writes_pictures), None)
    if leg is None:
        raise Failed("a picture of the input shards is gone: put the shards back")
    view = PartView(workspace, legs[: leg.number], part)
    measuring = Measuring(view, workspace, leg, part)
    seconds: dict[str, float] = {}
    for stage in leg.stages:
        if "image" in stage.writes:
            started = time.perf_counter()
            measuring.fetch_again(stage, rows)
            seconds[stage.name] = time.perf_counter() - started
    measuring.commit(seconds)
    view.close()
    pictures = Pictures(workspace.out, part, view.candidates, (leg.folder,))
    gone = pictures.missing(rows)
    if len(gone):
        uid = view.candidates["uid"][int(gone[0])].as_py()
        raise PictureGone(
            f"{len(gone)} pictures could not be fetched again, {uid} first: try again later"
        )


def _checked(stage: Stage, table: pa.Table, columns: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Hold a stage to its contract: the columns it declared, one value per row."""
    checked = {}
    for name, kind in stage.writes.items():
        values = columns.get(name)
        if values is None or len(values) != len(table):
            raise Failed(f"stage {stage.name} must write one {name!r} per pair")
        if name == "image" and stage.resource == "network":
            checked[name] = values  # may lie on disk: memory need not hold them all
            continue
        array = values if isinstance(values, pa.Array) else pa.array(values)
        checked[name] = array.cast(kind) if array.type != kind else array
    return checked


def _picture(pictures: Any, row: int) -> bytes | None:
    found = pictures[row]
    return found.as_py() if isinstance(found, pa.Scalar) else found


def _overlay(before: pa.Array, rows: np.ndarray, values: pa.Array) -> pa.Array:
    """Replace ``before[rows]`` by ``values``."""
    where = np.arange(len(before))
    where[rows] = len(before) + np.arange(len(rows))
    both = pa.concat_arrays([before, values.cast(before.type)])
    return pc.take(both, pa.array(where))
