"""Give a pair one of its captions at a time, where it has several: drawn by seed and position."""

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from .columns import as_unicode, join_parquet, parquet_columns
from .errors import ShardError
from .folder import Folder
from .shuffle import keys_of, mixed
from .storage import View

COLUMN = "captions"
SHARDS_HELD = 256  # whose columns stay in memory: four blocks of the default shuffle
_IN_JSON = b'"captions"'

Choices: TypeAlias = list[str] | ShardError
"""A pair's captions, at least one, which may be empty; or why they cannot be read."""


class Captions:
    """The captions of a folder's pairs; threads may share it.

    A pair's captions are the one that ``Folder.caption`` gives and those that it lists as
    ``captions``, in the parquet beside its shard, else in its json; equal ones count once.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._columns: dict[int, _Column] = {}
        self._without: set[int] = set()  # shards that list none, which costs nothing to remember
        self._reading = threading.Lock()

    def all(self, rows: np.ndarray) -> list[Choices]:
        """Return every caption of some rows. Cost: a microsecond a pair, ten where it lists some.

        Raises ShardError for a parquet of other pairs.
        """
        columns = self._columns_of(rows)
        plain, members = self._folder.captions(rows), self._folder.json_members(rows)
        shards = self._folder.shard_of[rows].tolist()
        found: list[Choices] = []
        for row, shard, own, member in zip(rows.tolist(), shards, plain, members, strict=True):
            if isinstance(own, ShardError):
                found.append(own)
                continue
            column = columns[shard]
            listed = column.of_row(row) if column else None
            try:
                found.append(_distinct(own, listed or self._in_json(row, member)))
            except ShardError as error:
                found.append(error)
        return found

    def drawn(
        self, rows: np.ndarray, positions: np.ndarray, seed: int
    ) -> tuple[list[str | ShardError], np.ndarray]:
        """Return a caption for each row at its position, and which rows had a choice: bool.

        The draw is uniform, by a hash of seed and position: the same on any rank and after any
        resume, and new in every epoch.
        """
        draws = mixed(positions, keys_of(f"caption/{seed}", 1)[0]).tolist()
        found = self.all(rows)
        chosen = [
            choices if isinstance(choices, ShardError) else choices[draw * len(choices) >> 64]
            for choices, draw in zip(found, draws, strict=True)
        ]
        several = [not isinstance(choices, ShardError) and len(choices) > 1 for choices in found]
        return chosen, np.array(several, bool)

    def _in_json(self, row: int, member: View) -> Any:
        """Return what a json member lists; most list nothing, and are not parsed to find out."""
        if isinstance(member, ShardError) or _IN_JSON not in bytes(member):
            return None
        return self._folder.columns(row).get(COLUMN)

    def _columns_of(self, rows: np.ndarray) -> dict[int, "_Column | None"]:
        """Return the column of each row's shard, None where it has none."""
        numbers = np.unique(self._folder.shard_of[rows]).tolist()
        with self._reading:
            known = self._columns.keys() | self._without
            asked = [number for number in numbers if number not in known]
            paths = self._folder.storage.beside(asked, ".parquet") if asked else []
            for number, path in zip(asked, paths, strict=True):
                if path is None or COLUMN not in parquet_columns(path):
                    self._without.add(number)
                    continue
                first, last = np.searchsorted(self._folder.shard_of, [number, number + 1]).tolist()
                index = self._folder.pieces.slice(first, last - first)
                column = join_parquet(index, path, [COLUMN])[COLUMN].combine_chunks()
                self._columns[number] = _Column(first, column)
            found = {number: self._columns.get(number) for number in numbers}
            while len(self._columns) > SHARDS_HELD:
                del self._columns[next(iter(self._columns))]
        return found


class _Column(NamedTuple):
    """The lists of one shard's pairs, from its first row on."""

    first: int
    lists: pa.Array

    def of_row(self, row: int) -> Any:
        return self.lists[row - self.first].as_py()


def _distinct(own: str, listed: Any) -> list[str]:
    """Return a pair's captions without repeats, empty ones only where there is no other."""
    others: Iterable[Any] = listed if isinstance(listed, list) else ()
    captions = [own, *(as_unicode(other) for other in others if isinstance(other, str))]
    return list(dict.fromkeys(caption for caption in captions if caption)) or [""]
