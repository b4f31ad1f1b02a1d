"""Open a folder of shards as one long list of pairs, whoever wrote it and wherever it lies."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from .arrow_arrays import as_arrow, integers, text_of
from .columns import from_json, join_parquet, parquet_columns
from .errors import PoolError, ShardError
from .index import numbered
from .members import Members
from .opened import check_counts, open_local
from .remote import is_url
from .remote_folder import CACHE_BYTES, is_index_of_urls, open_remote
from .storage import LocalShards, Storage, View

T = TypeVar("T")


class Pair(NamedTuple):
    """A pair as it lies in its shard: encoded picture, caption, scalar columns."""

    image: bytes
    caption: str
    columns: dict[str, Any]


class Folder:
    """The pairs of some shards; a pair's row is its number, counted through the shards in order.

    Rows are read by offset, and threads may share a folder. ``source`` are the arguments of
    ``open_folder`` that open it again, in another process too. The ``shards`` of a remote folder
    are names only: there is no such file.
    """

    def __init__(
        self,
        shards: list[Path],
        indexes: list[pa.Table],
        keep: pa.Array | None = None,
        *,
        storage: Storage | None = None,
        source: dict[str, Any] | None = None,
    ) -> None:
        pieces = pa.concat_tables(numbered(indexes))
        self.shards = shards
        self.pieces = pieces if keep is None else pieces.filter(_among(pieces["uid"], keep))
        self.storage = storage or LocalShards(shards)
        self.source = source or {}
        self.shard_of: np.ndarray = integers(self.pieces["shard"])
        self._members = Members(self.pieces, shards, self.storage)

    def __len__(self) -> int:
        return self.pieces.num_rows

    @cached_property
    def index(self) -> pa.Table:
        """The index of all shards; ``pieces`` is the same, not copied together: it opens faster."""
        return self.pieces.combine_chunks()

    @cached_property
    def uids(self) -> list[str]:
        """The uid of every row; ``index["uid"]`` has them as Arrow, at a fifth of the memory."""
        return self.pieces["uid"].to_pylist()

    def uids_of(self, rows: np.ndarray) -> list[str]:
        """Return the uids of some rows."""
        return self._uids.take(as_arrow(rows)).to_pylist()

    @cached_property
    def digest(self) -> str:
        """A hash of what is read: the shards' names, and every uid and offset in order."""
        state = blake2b(digest_size=16)
        state.update("\n".join(shard.name for shard in self.shards).encode())
        for uids in self.pieces["uid"].chunks:
            state.update(text_of(uids))
        for name in self.pieces.column_names:
            if name.endswith(("_offset", "_length")) or name in ("shard", "shard_row"):
                state.update(integers(self.pieces[name]).data)
        return state.hexdigest()

    @cached_property
    def _uids(self) -> pa.Array:
        return self.pieces["uid"].combine_chunks()

    @cached_property
    def column_names(self) -> list[str]:
        """The columns of the first shard's parquet, else of the first pair's json."""
        if not len(self):
            return []
        [beside] = self.storage.beside([int(self.shard_of[0])], ".parquet")
        return parquet_columns(beside) if beside else sorted(self.columns(0))

    def read(self, row: int) -> Pair:
        """Return a pair; raises ShardError where its shard is damaged or it has no picture."""
        return Pair(self.image(row), self.caption(row), self.columns(row))

    def image(self, row: int) -> bytes:
        """Return a pair's encoded picture; raises ShardError where it has none."""
        return bytes(raised(self.pictures(np.array([row]))[0]))

    def caption(self, row: int) -> str:
        """Return a pair's caption: its text member, else its json's ``caption``, else empty."""
        return raised(self.captions(np.array([row]))[0])

    def columns(self, row: int) -> dict[str, Any]:
        """Return the scalar columns of a pair's json member, or none where it has no such."""
        return raised(self._members.columns(np.array([row]))[0])

    def pictures(self, rows: np.ndarray, *, check: bool = False) -> list[View]:
        """Return the encoded pictures of some rows, or in its place why one cannot be read.

        Locally they are views of the files, not copies. With ``check``, each is compared with the
        CRC in the index, where that has one. Cost: a fifth of a microsecond a pair; with
        ``check`` as much again for each kilobyte.
        """
        return self._members.pictures(rows, check=check)

    def captions(self, rows: np.ndarray) -> list[str | ShardError]:
        """Return the captions of some rows, or in its place why one cannot be read."""
        return self._members.captions(rows)

    def json_members(self, rows: np.ndarray) -> list[View]:
        """Return the json members of some rows as they lie, empty ones where there are none."""
        return self._members.json(rows)

    def fetch_whole_shards(self) -> None:
        """From now on fetch far shards in long extents, as pays where most pairs will be read."""
        self.source["whole_shards"] = True
        self.storage.fetch_whole()

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
        beside = self.storage.beside(range(len(self.shards)), ".parquet")
        pieces = [self._shard_table(number, path, names) for number, path in enumerate(beside)]
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
            captions = [raised(caption) for caption in self.captions(np.arange(len(self)))]
            table = table.append_column("caption", pa.array(captions, pa.string()))
        paths = [str(self.shards[number]) for number in self.shard_of]
        table = table.append_column("_shard", pa.array(paths, pa.string()))
        return table.append_column("_row", self.index["shard_row"])

    def rows_of(self, uids: Iterable[str] | pa.Array) -> np.ndarray:
        """Return the rows whose uid is among ``uids``, in order; unknown uids have no row."""
        wanted = uids if isinstance(uids, pa.Array) else pa.array(list(uids), pa.string())
        return np.flatnonzero(_among(self._uids, wanted).to_numpy(zero_copy_only=False))

    def name_of(self, row: int) -> str:
        """Say which pair of which shard a row is, for messages."""
        return self._members.name_of(row)

    def _shard_table(
        self, number: int, parquet: Path | None, names: Sequence[str] | None
    ) -> pa.Table:
        first, last = np.searchsorted(self.shard_of, [number, number + 1]).tolist()
        index = self.pieces.slice(first, last - first)
        if parquet:
            table = join_parquet(index, parquet, names)
        else:
            rows = np.flatnonzero(index["damage"].is_null()) + first
            own = dict(zip(rows.tolist(), self._members.columns(rows), strict=True))
            described = [raised(own.get(row, {})) for row in range(first, last)]
            table = from_json(described, names)
        return pa.table({"uid": index["uid"]} | {name: table[name] for name in table.column_names})


def open_folder(
    path: str | Path,
    index_dir: Path | None = None,
    *,
    cache_dir: Path | None = None,
    cache_bytes: int = CACHE_BYTES,
    whole_shards: bool = False,
) -> Folder:
    """Open a build, a folder of WebDataset tars, what ``breadth index --out`` wrote, or one tar.

    ``path`` may be a URL that fsspec knows; what is read of far shards is kept in ``cache_dir``
    (default: ``~/.cache/breadth``), up to ``cache_bytes``; ``whole_shards`` fetches them in long
    extents, not pair by pair. Raises PoolError for a folder that is missing, empty or unfinished,
    ShardError for a shard that is not what its manifest says. Cost: reads every index; a local tar
    without one is walked, a far one must have one.
    """
    source = {
        "path": path,
        "index_dir": index_dir,
        "cache_dir": cache_dir,
        "cache_bytes": cache_bytes,
    }
    is_far = is_url(path) or is_index_of_urls(Path(path))
    opened = (
        open_remote(str(path), index_dir, cache_dir, cache_bytes)
        if is_far
        else open_local(Path(path), index_dir)
    )
    folder = Folder(
        opened.shards, opened.indexes, opened.keep, storage=opened.storage, source=source
    )
    if whole_shards:
        folder.fetch_whole_shards()
    if opened.manifest:
        check_counts(str(path), opened.manifest, opened.indexes, len(folder))
    if not len(folder):
        raise PoolError(f"{path} holds no pair: give a folder of WebDataset tars with pictures")
    return folder


def _among(uids: pa.ChunkedArray, wanted: pa.Array) -> pa.ChunkedArray:
    import pyarrow.compute as pc  # slow to import, and the loader process mostly has no use for it

    return pc.is_in(uids, wanted)


def raised(found: T | ShardError) -> T:
    """Return what was read of a pair; raise the error that is there in its place."""
    if isinstance(found, ShardError):
        raise found
    return found
