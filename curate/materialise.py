"""Copy the kept pairs into shards of equal size, and give staged pictures free."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import file_digest
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from breadth.loaders.index import whole_index
from breadth.loaders.manifest import Shard
from breadth.loaders.whole_file import replaced

from .engine import RunTasks
from .layout import Layout, Rows
from .legs import Leg, picture_legs
from .measuring import refetch
from .pictures import LAYOUT, Pictures, layout_of
from .schema import VERDICT
from .shard_writer import PairToWrite, write_shard
from .workspace import Workspace

WAVE = 16
"""Shards written before staged pictures are freed: bounds the disk that a build takes."""

KEEP_LIST = "keep.parquet"


@dataclass(frozen=True)
class FindTask:
    """Find the pictures of a part's kept pairs, fetching again those that an earlier build freed.

    One task a part, before any shard: two shards that share a part would fetch it at once.
    """

    workspace: Workspace
    legs: tuple[Leg, ...]
    part: int
    rows: np.ndarray

    def __call__(self) -> list[Path]:
        """Return the tars that hold the pictures."""
        pictures = _pictures(self.workspace, self.legs, self.part)
        missing = pictures.missing(self.rows)
        if len(missing):
            refetch(self.workspace, self.legs, self.part, missing)
            pictures = _pictures(self.workspace, self.legs, self.part)
        places = (pictures.place(row) for row in self.rows.tolist())
        return sorted({place.tar for place in places if place is not None})


@dataclass(frozen=True)
class ShardTask:
    """Write one shard of kept pairs."""

    workspace: Workspace
    legs: tuple[Leg, ...]
    rows: Rows
    file: Path
    record: Path

    def __call__(self) -> dict[str, Any]:
        """Write the shard unless its record and file are there; returns its record."""
        done = finished(self.record, self.file)
        if done is not None:
            return done
        self.record.parent.mkdir(parents=True, exist_ok=True)
        columns = pq.read_schema(self.workspace.ledger_file(self.rows[0][0]))
        schema = pa.schema([column for column in columns if column.name not in VERDICT])
        shard = asdict(write_shard(self.file, self._pairs(), schema))
        with replaced(self.record) as sink:
            sink.write(json.dumps(shard, sort_keys=True).encode())
        return shard

    def _pairs(self) -> Iterator[PairToWrite]:
        for part, rows in self.rows:
            ledger = pq.read_table(self.workspace.ledger_file(part)).take(pa.array(rows))
            batches = ledger.drop_columns(list(VERDICT)).to_batches(max_chunksize=256)
            columns = chain.from_iterable(batch.to_pylist() for batch in batches)
            with closing(_pictures(self.workspace, self.legs, part)) as pictures:
                for row, facts in zip(rows.tolist(), columns, strict=True):
                    encoded, place = pictures.read(row), pictures.place(row)
                    yield facts, encoded, place.extension if place else "jpg"


@dataclass(frozen=True)
class TarTask:
    """Describe a tar that a manifest refers to; reads it once for its hash."""

    tar: Path
    name: str

    def __call__(self) -> Shard:
        """Return its entry in the manifest."""
        with self.tar.open("rb") as file:
            sha = file_digest(file, "sha256").hexdigest()
        return Shard(self.name, len(whole_index(self.tar)), self.tar.stat().st_size, sha)


def _pictures(workspace: Workspace, legs: Sequence[Leg], part: int) -> Pictures:
    return Pictures(workspace.out, part, workspace.candidates(part), picture_legs(legs))


def finished(record: Path, file: Path) -> dict[str, Any] | None:
    """Return a shard's record where the shard is on disk with the size that it says."""
    if not record.is_file():
        return None
    shard: dict[str, Any] = json.loads(record.read_text())
    return shard if file.is_file() and file.stat().st_size == shard["bytes"] else None


def write_shards(layout: Layout, run: RunTasks, keep_staged: bool) -> tuple[Shard, ...]:
    """Write every shard, put them in ``shards/`` in place of what was there, and free the rest.

    Cost on disk at its peak: the staged pictures not yet freed, the shards, and those before.
    """
    out = layout.workspace.out
    records = _standing(layout)
    if records is None:
        run("find pictures", _find_tasks(layout))
        records = _write_new(layout, run, keep_staged)
        _exchange(out, layout.new, {Path(record["name"]).stem for record in records})
    for leftover in (*out.glob("shards.*"), *layout.workspace.parts.glob("shards-*")):
        if leftover != layout.records:
            shutil.rmtree(leftover)
    (out / KEEP_LIST).unlink(missing_ok=True)
    if not keep_staged:
        _free(layout, before=None)
    return tuple(Shard(**record) for record in records)


def _find_tasks(layout: Layout) -> list[FindTask]:
    kept = enumerate(layout.kept)
    return [FindTask(layout.workspace, layout.legs, part, rows) for part, rows in kept]


def _standing(layout: Layout) -> list[dict[str, Any]] | None:
    """Return the records of the shards where this very layout stands in ``shards/``, whole."""
    folder = layout.workspace.out / "shards"
    if layout_of(folder).get("key") != layout.key:
        return None
    records = [finished(layout.record(n), folder / _tar(n)) for n in range(len(layout.shards))]
    return None if None in records else [record for record in records if record]


def _write_new(layout: Layout, run: RunTasks, keep_staged: bool) -> list[dict[str, Any]]:
    """Write the shards beside those that are there, some at a time."""
    layout.new.mkdir(exist_ok=True)
    with replaced(layout.new / LAYOUT) as sink:
        says = {"key": layout.key, "pictures": picture_legs(layout.legs)}
        sink.write(json.dumps(says, sort_keys=True).encode())
    tasks = [
        ShardTask(layout.workspace, layout.legs, rows, layout.new / _tar(n), layout.record(n))
        for n, rows in enumerate(layout.shards)
    ]
    records: list[dict[str, Any]] = []
    for start in range(0, len(tasks), WAVE):
        records += run("write shards", tasks[start : start + WAVE])
        if not keep_staged and start + WAVE < len(tasks):
            _free(layout, before=tasks[start + WAVE].rows[0][0])
    return records


def _tar(number: int) -> str:
    return f"{number:05d}.tar"


def _free(layout: Layout, before: int | None) -> None:
    """Free the staged pictures of the parts before one: their shards are written."""
    for part in range(len(layout.kept) if before is None else before):
        for leg in layout.legs:
            if leg.writes_pictures:
                layout.workspace.store(leg, part).free()


def _exchange(out: Path, new: Path, stems: set[str]) -> None:
    """Put the new shards in place; every step can be the last before a kill."""
    for file in new.iterdir():
        if file.name != LAYOUT and file.stem not in stems:
            file.unlink()  # the leavings of a worker that was killed
    if (out / "shards").is_dir():
        shutil.rmtree(out / "shards.old", ignore_errors=True)
        (out / "shards").rename(out / "shards.old")
    new.rename(out / "shards")


def write_keep_list(
    layout: Layout, run: RunTasks, ledger: Sequence[Path]
) -> tuple[tuple[Shard, ...], str]:
    """Leave the pictures where they are and write the uids of the kept pairs.

    Returns the tars that hold pictures, by their paths, and the keep list's name. Cost: reads
    every tar once for its hash.
    """
    out = layout.workspace.out
    kept = [pq.read_table(f, columns=["uid", "kept"]) for f in ledger]
    uids = pa.concat_tables(t.filter(t["kept"]).select(["uid"]) for t in kept)
    tars = sorted({tar for found in run("find pictures", _find_tasks(layout)) for tar in found})
    names = [tar.relative_to(out) if tar.is_relative_to(out) else tar for tar in tars]
    tasks = [TarTask(tar, str(name)) for tar, name in zip(tars, names, strict=True)]
    shards = tuple(run("hash tars", tasks)) if tasks else ()
    with replaced(out / KEEP_LIST) as sink:
        pq.write_table(uids.sort_by("uid"), sink)
    return shards, KEEP_LIST
