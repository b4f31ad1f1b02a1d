"""Find a pair's picture wherever it lies: staged by a leg, in finished shards, or in the input."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from breadth.loaders.errors import ShardError
from breadth.loaders.index import read_index

from .part_store import PartStore


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
    the input's, so that a leg sees the picture as the leg before it left it.
    """

    def __init__(self, out: Path, part: int, candidates: pa.Table, legs: Sequence[str]) -> None:
        self._places: list[Place | None] = [None] * len(candidates)
        self._open: dict[Path, int] = {}
        if legs:
            self._finished(out, candidates["uid"].to_pylist())
        elif "_shard" in candidates.column_names:
            self._input(candidates)
        for leg in legs:
            for tar, rows in PartStore(out / "parts" / leg, part).pictures():
                for row, place in zip(rows.tolist(), _places(tar), strict=True):
                    self._places[row] = place

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return those of ``rows`` whose picture is nowhere."""
        return np.array([r for r in rows.tolist() if self._places[r] is None], np.int64)

    def place(self, row: int) -> Place | None:
        """Return where the picture of a row lies."""
        return self._places[row]

    def read(self, row: int) -> bytes:
        """Return the encoded picture of a row; raises ShardError where it is gone or cut."""
        place = self._places[row]
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
        for i, (shard, row) in enumerate(zip(shards, rows, strict=True)):
            self._places[i] = _index(shard)[row]

    def _finished(self, out: Path, uids: Sequence[str]) -> None:
        known: dict[str, Place | None] = {}
        for index in sorted(out.glob("shards*/*.index")):  # also while they are being exchanged
            tar = index.with_suffix(".tar")
            if tar.is_file():
                known |= _by_uid(str(tar))
        self._places = [known.get(uid) for uid in uids]


def _places(tar: Path) -> Iterator[Place | None]:
    index = read_index(tar)
    names = ("image_offset", "image_length", "image_ext")
    for offset, length, extension in zip(*(index[n].to_pylist() for n in names), strict=True):
        yield Place(tar, offset, length, extension) if length else None


@lru_cache(maxsize=256)
def _index(shard: str) -> list[Place | None]:
    return list(_places(Path(shard)))


@lru_cache(maxsize=256)
def _by_uid(shard: str) -> dict[str, Place | None]:
    return dict(zip(read_index(Path(shard))["uid"].to_pylist(), _index(shard), strict=True))
