"""Copy the kept pairs into shards of equal size, and give staged pictures free."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import file_digest
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from breadth.loaders.index import read_index
from breadth.loaders.manifest import Shard
from breadth.loaders.whole_file import replaced

from .ledger import ledger_columns
from .legs import Leg, digest
from .measuring import refetch
from .pictures import Pictures
from .shard_writer import PairToWrite, write_shard
from .workspace import Workspace

WAVE = 16
"""Shards written before staged pictures are freed: bounds the disk that a build takes."""

Rows = tuple[tuple[int, np.ndarray], ...]
"""Which rows of which parts, in order."""


@dataclass(frozen=True)
class Layout:
    """Which kept pairs go into which shard: sizes differ by one at most."""

    workspace: Workspace
    legs: tuple[Leg, ...]
    kept: tuple[np.ndarray, ...]  # by part
    pairs_per_shard: int

    @cached_property
    def shards(self) -> tuple[Rows, ...]:
        """Return the rows of every shard, in the order of parts."""
        part = np.repeat(np.arange(len(self.kept)), [len(rows) for rows in self.kept])
        row = np.concatenate(self.kept) if len(part) else np.array([], np.int64)
        count = -(-len(part) // self.pairs_per_shard)
        edges = [len(part) * i // count for i in range(count + 1)] if count else [0]
        return tuple(
            tuple((int(p), row[a:b][part[a:b] == p]) for p in np.unique(part[a:b]))
            for a, b in pairwise(edges)
        )

    @property
    def key(self) -> str:
        """Return a fingerprint of what the shards will hold."""
        return digest([self.legs[-1].verdict, self.pairs_per_shard])[:16]

    @property
    def new(self) -> Path:
        """Return the folder the shards are written in before they take their place."""
        return self.workspace.out / f"shards.new-{self.key}"

    @property
    def records(self) -> Path:
        """Return the folder of the records of finished shards."""
        return self.workspace.parts / f"shards-{self.key}"


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
        done = finished(self.record, (self.file, self.workspace.out / "shards" / self.file.name))
        if done is not None:
            return done
        self.file.parent.mkdir(exist_ok=True)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        schema = ledger_columns(self.workspace, self.legs, self.rows[0][0]).schema
        shard = asdict(write_shard(self.file, self._pairs(), schema))
        with replaced(self.record) as sink:
            sink.write(json.dumps(shard, sort_keys=True).encode())
        return shard

    def _pairs(self) -> Iterator[PairToWrite]:
        stored = tuple(leg.folder for leg in self.legs if leg.writes_pictures)
        for part, rows in self.rows:
            candidates = self.workspace.candidates(part)
            pictures = Pictures(self.workspace.out, part, candidates, stored)
            missing = pictures.missing(rows)
            if len(missing):
                refetch(self.workspace, self.legs, part, missing)
                pictures = Pictures(self.workspace.out, part, candidates, stored)
            columns = ledger_columns(self.workspace, self.legs, part).take(pa.array(rows))
            for row, facts in zip(rows.tolist(), columns.to_pylist(), strict=True):
                place = pictures.place(row)
                yield facts, pictures.read(row), place.extension if place else "jpg"
            pictures.close()


def finished(record: Path, files: Sequence[Path]) -> dict[str, Any] | None:
    """Return a shard's record where the shard is on disk with the size that it says."""
    if not record.is_file():
        return None
    shard: dict[str, Any] = json.loads(record.read_text())
    whole = any(f.is_file() and f.stat().st_size == shard["bytes"] for f in files)
    return shard if whole else None


def write_shards(
    layout: Layout, run: Callable[[str, Sequence[Any]], list[Any]], keep_staged: bool
) -> tuple[Shard, ...]:
    """Write every shard, put them in ``shards/`` in place of what was there, and free the rest.

    Cost on disk at its peak: the staged pictures not yet freed and the shards.
    """
    out, shards = layout.workspace.out, layout.shards
    tasks = [
        ShardTask(
            layout.workspace,
            layout.legs,
            rows,
            layout.new / f"{number:05d}.tar",
            layout.records / f"{number:05d}.json",
        )
        for number, rows in enumerate(shards)
    ]
    records: list[dict[str, Any]] = []
    for start in range(0, len(tasks), WAVE):
        records += run("write shards", tasks[start : start + WAVE])
        if not keep_staged:
            _free(layout, before=shards[start + WAVE][0][0] if start + WAVE < len(tasks) else None)
    _exchange(out, layout.new)
    if not keep_staged:
        _free(layout, before=None)
    return tuple(Shard(**record) for record in records)


def _free(layout: Layout, before: int | None) -> None:
    """Free the staged pictures of the parts before one: their shards are written."""
    for part in range(len(layout.kept) if before is None else before):
        for leg in layout.legs:
            if leg.writes_pictures:
                layout.workspace.store(leg, part).free()


def _exchange(out: Path, new: Path) -> None:
    """Put the new shards in place; every step can be the last before a kill."""
    if new.is_dir():
        if (out / "shards").is_dir():
            shutil.rmtree(out / "shards.old", ignore_errors=True)
            (out / "shards").rename(out / "shards.old")
        new.rename(out / "shards")
    for leftover in out.glob("shards.*"):
        shutil.rmtree(leftover)


def write_keep_list(layout: Layout, ledger: Sequence[Path]) -> tuple[tuple[Shard, ...], str]:
    """Leave the pictures where they are and write the uids of the kept pairs.

    Returns the tars that hold pictures, by their paths, and the keep list's name. Cost: reads
    every tar once for its hash.
    """
    name = "keep.parquet"
    kept = [pq.read_table(f, columns=["uid", "kept"]) for f in ledger]
    uids = pa.concat_tables(t.filter(t["kept"]).select(["uid"]) for t in kept)
    with replaced(layout.workspace.out / name) as sink:
        pq.write_table(uids.sort_by("uid"), sink)
    shards = []
    for tar in _tars(layout):
        with tar.open("rb") as file:
            sha = file_digest(file, "sha256").hexdigest()
        pairs = len(read_index(tar))
        own = tar.is_relative_to(layout.workspace.out)
        path = tar.relative_to(layout.workspace.out) if own else tar
        shards.append(Shard(str(path), pairs, tar.stat().st_size, sha))
    return tuple(shards), name


def _tars(layout: Layout) -> list[Path]:
    """Return every tar that holds a kept pair's picture, each once."""
    stored = tuple(leg.folder for leg in layout.legs if leg.writes_pictures)
    found: dict[Path, None] = {}
    for part, rows in enumerate(layout.kept):
        candidates = layout.workspace.candidates(part)
        pictures = Pictures(layout.workspace.out, part, candidates, stored)
        missing = pictures.missing(rows)
        if len(missing):
            refetch(layout.workspace, layout.legs, part, missing)
            pictures = Pictures(layout.workspace.out, part, candidates, stored)
        found |= {place.tar: None for r in rows.tolist() if (place := pictures.place(r))}
    return sorted(found)
