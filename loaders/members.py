"""Read pictures, captions and columns of pairs by row; what cannot be read is an error in place."""

import json
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .arrow_arrays import integers
from .columns import as_unicode
from .errors import ShardError
from .storage import Storage, View

KINDS = ("image", "caption", "json")
SPREAD = 1 << 16  # members of a pair with more than this between them are fetched apart


class Members:
    """The members of the pairs of an index, in a storage; threads may share it."""

    def __init__(self, index: pa.Table, shards: list[Path], storage: Storage) -> None:
        self._index, self._shards, self._storage = index, shards, storage
        self._shard_of = integers(index["shard"])
        damage = index["damage"]
        is_whole = damage.null_count == len(damage)  # then nothing slow has to be imported
        self._is_damaged = np.zeros(len(damage), bool) if is_whole else damage.is_valid().to_numpy()
        starts, lengths = (
            {kind: integers(index[f"{kind}_{what}"]) for kind in KINDS}
            for what in ("offset", "length")
        )
        self._starts = {kind: found.view(np.int64) for kind, found in starts.items()}
        self._lengths = {kind: found.astype(np.int64) for kind, found in lengths.items()}

    def name_of(self, row: int) -> str:
        """Say which pair of which shard a row is."""
        shard = self._shards[int(self._shard_of[row])].name
        return f"pair {self._index['uid'][row].as_py()} of shard {shard}"

    def pictures(self, rows: np.ndarray, *, check: bool) -> list[View]:
        """Return encoded pictures; ``check`` compares them with the CRCs that the index has."""
        starts = self._starts["image"][rows]
        views = self._views(rows, starts, self._lengths["image"][rows])
        for place in np.flatnonzero((starts == 0) & ~self._is_damaged[rows]).tolist():
            views[place] = ShardError(
                f"{self.name_of(rows[place])} has no picture: leave it out with a uid list"
            )
        if not check:
            return views
        return [self._checked(row, view) for row, view in zip(rows.tolist(), views, strict=True)]

    def captions(self, rows: np.ndarray) -> list[str | ShardError]:
        """Return captions: the text member, else the json's ``caption`` or first of ``captions``.

        A pair without any has an empty one.
        """
        is_text = self._starts["caption"][rows] > 0
        starts, lengths = (
            np.where(is_text, of["caption"][rows], of["json"][rows])
            for of in (self._starts, self._lengths)
        )
        views = self._views(rows, starts, lengths)
        found: list[str | ShardError] = []
        for row, text, view in zip(rows.tolist(), is_text.tolist(), views, strict=True):
            if isinstance(view, ShardError):
                found.append(view)
            elif text:
                found.append(str(view, "utf-8", "replace"))
            else:
                own = self._parsed(row, view)
                found.append(own if isinstance(own, ShardError) else _caption(own))
        return found

    def json(self, rows: np.ndarray) -> list[View]:
        """Return json members as they lie, empty where a pair has none."""
        return self._views(rows, self._starts["json"][rows], self._lengths["json"][rows])

    def columns(self, rows: np.ndarray) -> list[dict[str, Any] | ShardError]:
        """Return the columns of json members; a pair without one has none."""
        return [
            view if isinstance(view, ShardError) else self._parsed(row, view)
            for row, view in zip(rows.tolist(), self.json(rows), strict=True)
        ]

    def _views(self, rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> list[View]:
        """Return stretches of the rows' shards, with errors for damaged pairs."""
        damaged = np.flatnonzero(self._is_damaged[rows])
        if len(damaged):
            lengths = np.where(self._is_damaged[rows], 0, lengths)
        spans = self._spans(rows) if self._storage.is_remote else None
        views = self._storage.views(self._shard_of[rows], starts, lengths, spans)
        for place in damaged.tolist():
            why = self._index["damage"][int(rows[place])].as_py()
            views[place] = ShardError(
                f"{self.name_of(rows[place])} is damaged ({why}): build or fetch the shard again"
            )
        return views

    def _spans(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return from where to where the members of each pair lie, nowhere if far apart."""
        starts, lengths = (
            np.stack([of[kind][rows] for kind in KINDS]) for of in (self._starts, self._lengths)
        )
        stops = (starts + lengths).max(0)
        first = np.where(starts > 0, starts, stops).min(0)
        is_compact = (stops - first - lengths.sum(0) <= SPREAD) & ~self._is_damaged[rows]
        return np.where(is_compact, first, 0), np.where(is_compact, stops, 0)

    @cached_property
    def _crcs(self) -> tuple[np.ndarray, np.ndarray]:
        """The CRC of every picture, and whether the index has it."""
        crcs = self._index["image_crc"]
        return crcs.fill_null(0).to_numpy(), crcs.is_valid().to_numpy()

    def _checked(self, row: int, view: View) -> View:
        crcs, is_known = self._crcs
        if isinstance(view, ShardError) or not is_known[row] or zlib.crc32(view) == crcs[row]:
            return view
        return ShardError(
            f"the picture of {self.name_of(row)} has other bytes than its index was made for: "
            "fetch or build the shard again"
        )

    def _parsed(self, row: int, view: memoryview) -> dict[str, Any] | ShardError:
        try:
            own = json.loads(bytes(view)) if view else {}
        except ValueError:
            own = None
        if isinstance(own, dict):
            return own
        return ShardError(f"{self.name_of(row)} has damaged JSON: build it again")


def _caption(own: dict[str, Any]) -> str:
    several = own.get("captions")
    first = next(iter(several), "") if isinstance(several, list) else ""
    return as_unicode(str(own.get("caption") or first or ""))
