"""Find a pair's picture wherever it lies: staged by a leg, in finished shards, or in the input."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from breadth.loaders.errors import ShardError
from breadth.loaders.index import whole_index

from .part_store import PartStore

LAYOUT = ".layout"
"""In a folder of finished shards: which layout they are, and which legs wrote their pictures."""


@dataclass(frozen=True)
class Place:
    """The bytes of one picture: a tar and a range of it."""

    tar: Path
    offset: int
    length: int
    extension: str


class Pictures:
    """The pictures of one part, by row; None where a picture is nowhere on disk.

    Later legs' pictures win over earlier ones, staged ones over finished shards, and those over
    the input's, so that a leg sees the picture as the leg before it left it. Finished shards are
    looked at only where a picture that is asked for is not staged.
    """

    def __init__(self, out: Path, part: int, candidates: pa.Table, legs: Sequence[str]) -> None:
        self._places: list[Place | None] = [None] * len(candidates)
        self._open: dict[Path, int] = {}
        self._out, self._uids, self._legs = out, candidates["uid"], tuple(legs)
        self._looked = not legs
        if not legs and "_shard" in candidates.column_names:
            self._input(candidates)
        for leg in legs:
            for tar, rows in PartStore(out / "parts" / leg, part).pictures():
                for row, place in zip(rows.tolist(), _places(tar), strict=True):
                    self._places[row] = place

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return those of ``rows`` whose picture is nowhere."""
        if not self._looked and any(self._places[row] is None for row in rows.tolist()):
            self._looked = True
            self._finished()
        return np.array([r for r in rows.tolist() if self._places[r] is None], np.int64)

    def place(self, row: int) -> Place | None:
        """Return where the picture of a row lies."""
        if self._places[row] is None:
            self.missing(np.array([row]))
        return self._places[row]

    def read(self, row: int) -> bytes:
        """Return the encoded picture of a row; raises ShardError where it is gone or cut."""
        place = self.place(row)
        if place is None:
            raise ShardError(f"the picture of row {row} is nowhere on disk: build again")
        if place.tar not in self._open:
            self._open[place.tar] = os.open(place.tar, os.O_RDONLY)
        encoded = os.pread(self._open[place.tar], place.length, place.offset)
        if len(encoded) != place.length:
            raise ShardError(f"shard {place.tar} is cut short: fetch or build it again")
        return encoded

    def close(self) -> None:
        """Close every tar that was read."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _input(self, candidates: pa.Table) -> None:
        shards, rows = candidates["_shard"].to_pylist(), candidates["_row"].to_pylist()
        index = {shard: _indexed(Path(shard), _stamp(Path(shard)))[1] for shard in set(shards)}
        self._places = [index[shard][row] for shard, row in zip(shards, rows, strict=True)]

    def _finished(self) -> None:
        uids = self._uids.to_pylist()
        nowhere = [row for row, place in enumerate(self._places) if place is None]
        for folder in sorted(self._out.glob("shards*")):  # also while they are being exchanged
            if layout_of(folder).get("pictures") != list(self._legs):
                continue
            for index in sorted(folder.glob("*.index")):
                known = _by_uid(index.with_suffix(".tar"))
                for row in nowhere:
                    self._places[row] = known.get(uids[row], self._places[row])


def layout_of(folder: Path) -> dict[str, Any]:
    """Return what a folder of finished shards says of itself; empty where it says nothing."""
    file = folder / LAYOUT
    layout: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
    return layout


def _places(tar: Path) -> Iterator[Place | None]:
    index = whole_index(tar)
    names = ("image_offset", "image_length", "image_ext")
    for offset, length, extension in zip(*(index[n].to_pylist() for n in names), strict=True):
        yield Place(tar, offset, length, extension) if length else None


def _by_uid(tar: Path) -> dict[str, Place | None]:
    """Return the pictures of a finished shard; none where it is gone or cut, to be made anew."""
    try:
        uids, places = _indexed(tar, _stamp(tar))
    except ShardError:
        return {}
    return dict(zip(uids, places, strict=True))


def _stamp(tar: Path) -> tuple[int, ...]:
    """Tell a tar from another that has taken its name since."""
    if not tar.is_file():
        raise ShardError(f"shard {tar} is missing: put it back or build the folder again")
    stat = tar.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=256)
def _indexed(tar: Path, _stamp: tuple[int, ...]) -> tuple[list[str], list[Place | None]]:
    return whole_index(tar)["uid"].to_pylist(), list(_places(tar))
