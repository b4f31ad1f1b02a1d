"""Open a folder of shards as one long list of pairs, whoever wrote it."""

import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .columns import as_unicode, from_json, join_parquet, parquet_columns
from .errors import PoolError, ShardError
from .index import read_index, read_member
from .manifest import MANIFEST_NAME, Manifest, find_shards
from .subset import read_uids
from .tar import map_tar

OPEN_SHARDS = 256  # far below the usual limit of 1024 open files


class Pair(NamedTuple):
    """A pair as it lies in its shard: encoded picture, caption, scalar columns."""

    image: bytes
    caption: str
    columns: dict[str, Any]


class Folder:
    """The pairs of some shards; a pair's row is its number, counted through the shards in order.

    Rows are read by offset from memory-mapped tars; threads may share a folder.
    """

    def __init__(
        self, shards: list[Path], indexes: list[pa.Table], keep: pa.Array | None = None
    ) -> None:
        index = pa.concat_tables(_numbered(indexes)).combine_chunks()
        self.shards = shards
        self.index = index if keep is None else index.filter(pc.is_in(index["uid"], keep))
        self._offsets = {
            name: self.index[name].to_numpy()
            for name in self.index.column_names
            if name.endswith(("_offset", "_length")) or name in ("shard", "shard_row")
        }
        self._tars: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return self.index.num_rows

    @cached_property
    def uids(self) -> list[str]:
        """The uid of every row; ``index["uid"]`` has them as Arrow, at a fifth of the memory."""
        return self.index["uid"].to_pylist()

    @property
    def shard_of(self) -> np.ndarray:
        """The number of every row's shard: int32 [pairs]."""
        return self._offsets["shard"]

    @cached_property
    def digest(self) -> str:
        """A hash of what is read: the shards' names, and every uid and offset in order."""
        state = blake2b(digest_size=16)
        state.update("\n".join(shard.name for shard in self.shards).encode())
        state.update("".join(self.uids).encode())
        for offsets in self._offsets.values():
            state.update(np.ascontiguousarray(offsets).tobytes())
        return state.hexdigest()

    @cached_property
    def column_names(self) -> list[str]:
        """The columns of the first shard's parquet, else of the first pair's json."""
        if not len(self):
            return []
        beside = self.shards[int(self.shard_of[0])].with_suffix(".parquet")
        return parquet_columns(beside) if beside.is_file() else sorted(self.columns(0))

    def read(self, row: int) -> Pair:
        """Return a pair; raises ShardError where its shard is damaged or it has no picture."""
        return Pair(self.image(row), self.caption(row), self.columns(row))

    def image(self, row: int) -> bytes:
        """Return a pair's encoded picture; raises ShardError where it has none."""
        if not self._offsets["image_offset"][row]:
            raise ShardError(f"{self.name_of(row)} has no picture: leave it out with a uid list")
        return self._member(row, "image")

    def caption(self, row: int) -> str:
        """Return a pair's caption: its text member, else its json's ``caption``, else empty."""
        if self._offsets["caption_offset"][row]:
            return self._member(row, "caption").decode("utf-8", "replace")
        return as_unicode(str(self.columns(row).get("caption") or ""))

    def columns(self, row: int) -> dict[str, Any]:
        """Return the scalar columns of a pair's json member, or none where it has no such."""
        described = self._member(row, "json")
        try:
            return json.loads(described) if described else {}
        except ValueError as error:
            raise ShardError(f"{self.name_of(row)} has damaged JSON: build it again") from error

    def column(self, name: str) -> pa.Array:
        """Return one column for every row, from the parquets beside the shards or the json members.

        Raises PoolError for a column that no shard has, ShardError for a parquet of other pairs.
        Cost: where there is no parquet, reads every json member.
        """
        table = self.index if name in ("uid", "key") else self.table([name])
        if name not in table.column_names:
            raise PoolError(f"no column {name!r}; there are {', '.join(self.column_names)}")
        return table[name].combine_chunks()

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """Return ``uid`` and the other columns of every row, or those of ``names`` that there are.

        A pair whose shard lacks a column has null there. Raises and costs as ``column`` does.
        """
        pieces = [self._shard_table(number, names) for number in range(len(self.shards))]
        try:
            return pa.concat_tables(pieces, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ShardError(f"the shards have a column in unlike types: {error}") from error

    def candidates(self, without: Sequence[str] = ()) -> pa.Table:
        """Return every pair as a candidate: uid, caption, its other columns, and where it lies.

        ``_shard`` is the path of its tar and ``_row`` its row in that tar's index. Columns named in
        ``without`` are left out.
        """
        table = self.table()
        table = table.drop_columns([name for name in without if name in table.column_names])
        if "caption" not in table.column_names:
            captions = [self.caption(row) for row in range(len(self))]
            table = table.append_column("caption", pa.array(captions, pa.string()))
        paths = [str(self.shards[number]) for number in self.shard_of]
        table = table.append_column("_shard", pa.array(paths, pa.string()))
        return table.append_column("_row", pa.array(self._offsets["shard_row"]))

    def rows_of(self, uids: Iterable[str] | pa.Array) -> np.ndarray:
        """Return the rows whose uid is among ``uids``, in order; unknown uids have no row."""
        wanted = uids if isinstance(uids, pa.Array) else pa.array(list(uids), pa.string())
        return np.flatnonzero(pc.is_in(self.index["uid"], wanted).to_numpy())

    def name_of(self, row: int) -> str:
        """Say which pair of which shard a row is, for messages."""
        return f"pair {self.uids[row]} of shard {self.shards[int(self.shard_of[row])].name}"

    def _member(self, row: int, kind: str) -> bytes:
        tar = self._tar(int(self.shard_of[row]))
        offset, length = (
            int(self._offsets[f"{kind}_{what}"][row]) for what in ("offset", "length")
        )
        return read_member(tar, offset, length)

    def _tar(self, number: int) -> mmap.mmap:
        tar = self._tars.get(number)
        if tar is None:
            if len(self._tars) >= OPEN_SHARDS:
                self._tars.clear()  # a map lives on while another thread still reads from it
            tar = self._tars[number] = map_tar(self.shards[number])
        return tar

    def _shard_table(self, number: int, names: Sequence[str] | None) -> pa.Table:
        rows = np.flatnonzero(self.shard_of == number)
        index = self.index.take(pa.array(rows))
        beside = self.shards[number].with_suffix(".parquet")
        if beside.is_file():
            table = join_parquet(index, beside, names)
        else:
            table = from_json([self.columns(int(row)) for row in rows], names)
        return pa.table({"uid": index["uid"]} | {name: table[name] for name in table.column_names})


def open_folder(path: str | Path, index_dir: Path | None = None) -> Folder:
    """Open a build, a folder of WebDataset tars, what ``breadth index --out`` wrote, or one tar.

    Raises PoolError for a folder that is missing, empty or unfinished, ShardError for a damaged
    shard. Cost: reads every index; a tar without one is walked.
    """
    path = Path(path)
    shards = find_shards(path)
    if not shards:
        raise PoolError(f"{path} holds no pair, its manifest says: choose another folder")
    indexes = [read_index(shard, index_dir or path) for shard in shards]
    if (path / MANIFEST_NAME).is_file():
        folder = _checked(path, Manifest.read(path), shards, indexes)
    else:
        folder = Folder(shards, indexes)
    if not len(folder):
        raise PoolError(f"{path} holds no pair: give a folder of WebDataset tars with pictures")
    return folder


def _checked(path: Path, manifest: Manifest, shards: list[Path], indexes: list[pa.Table]) -> Folder:
    """Open what a manifest describes, having compared every count with it."""
    for shard, index in zip(manifest.shards, indexes, strict=True):
        if shard.pairs != index.num_rows:
            raise ShardError(
                f"shard {shard.name} holds {index.num_rows} pairs and its manifest says "
                f"{shard.pairs}: put the right file back or build again"
            )
    keep = read_uids(path / manifest.keep_list) if manifest.keep_list else None
    folder = Folder(shards, indexes, keep)
    if len(folder) != manifest.pairs:
        raise ShardError(
            f"{path} holds {len(folder)} pairs and its manifest says {manifest.pairs}: build again"
        )
    return folder


def _numbered(indexes: list[pa.Table]) -> Iterator[pa.Table]:
    """Add to every index the number of its shard and the number of each row in it."""
    for number, table in enumerate(indexes):
        shard = pa.array(np.full(len(table), number, np.int32))
        row = pa.array(np.arange(len(table), dtype=np.int64))
        plain = table.replace_schema_metadata(None)
        yield plain.append_column("shard", shard).append_column("shard_row", row)
