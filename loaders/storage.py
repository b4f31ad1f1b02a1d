"""Read stretches of local shards from memory maps; ``remote`` does the same by ranged reads."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from .errors import ShardError
from .tar import map_tar

OPEN_SHARDS = 256  # a map holds a file open, and 1024 open files are the usual limit

View = memoryview | ShardError
"""Some bytes of a shard, or why they cannot be read."""


class Storage(Protocol):
    """Where the bytes of some shards are; threads may share it."""

    is_remote: bool

    @property
    def bytes(self) -> int:
        """How large all shards together are."""

    def views(
        self,
        shards: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        spans: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> list[View]:
        """Return the bytes of every stretch (shard number, start, length), or an error in place.

        ``spans`` (starts, stops) are wider stretches worth fetching along, where fetching is slow.
        """

    def beside(self, numbers: Sequence[int], suffix: str) -> list[Path | None]:
        """Return the file beside each shard that has another suffix, or None where there is none.

        Raises ShardError where that cannot be found out.
        """

    def fetch_whole(self) -> None:
        """From now on fetch all of a shard around what is asked for, where fetching is slow."""


class LocalShards:
    """Shards in files; what is returned is the page cache, so it costs no copy.

    A file that is cut while it is read, or a disk that fails, ends the process (SIGBUS).
    """

    is_remote = False

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._maps: dict[int, memoryview] = {}
        self._opening = Lock()

    @property
    def bytes(self) -> int:
        """How large all shards together are."""
        return sum(path.stat().st_size for path in self._paths)

    def views(
        self,
        shards: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        spans: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> list[View]:
        """Return stretches of the maps; a missing or shortened shard gives errors in place."""
        found: list[View] = []
        stretches = zip(shards.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        for number, start, length in stretches:
            try:
                tar = self._maps.get(number) or self._map(number)
            except ShardError as error:
                found.append(error)
                continue
            view = tar[start : start + length]
            found.append(view if len(view) == length else self._ends_early(number, start + length))
        return found

    def beside(self, numbers: Sequence[int], suffix: str) -> list[Path | None]:
        """Return the files beside shards that have another suffix, None where there is none."""
        paths = (self._paths[number].with_suffix(suffix) for number in numbers)
        return [path if path.is_file() else None for path in paths]

    def fetch_whole(self) -> None:
        """Do nothing: nothing is fetched."""

    def _map(self, number: int) -> memoryview:
        with self._opening:
            while len(self._maps) >= OPEN_SHARDS:
                self._maps.pop(next(iter(self._maps)))  # lives on while a view of it does
            tar = self._maps[number] = memoryview(map_tar(self._paths[number]))
            return tar

    def _ends_early(self, number: int, end: int) -> ShardError:
        return ShardError(
            f"shard {self._paths[number]} ends before byte {end}: build or fetch it again"
        )
