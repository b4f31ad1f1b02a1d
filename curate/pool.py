"""Find a pool's candidates, give every one its uid, and cut them into parts."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.errors import PoolError
from breadth.loaders.index import is_uid

from .fetch.urls import canonical_url
from .pool_files import flat, read_tables
from .pool_layouts import LAYOUTS, PoolLayout
from .pool_shards import read_shards, shard_folder
from .recipe import PoolColumns
from .schema import VERDICT

URL_NAMES = ("url", "image_url", "link")
CAPTION_NAMES = ("caption", "text", "alt", "title")
INTERNAL = ("_dropped", "_shard", "_row", "_no_picture", "_hash")
"""Columns of a candidate that never reach the ledger."""
MEASURED = ("image", "sha256", "md5", "sha512", "retryable")
"""What only a fetched picture has: the same words in a pool of links get the prefix ``pool_``."""


@dataclass(frozen=True)
class Candidates:
    """Every candidate of a pool, cut into parts; each part sorted by hash, then uid."""

    parts: tuple[pa.Table, ...]
    has_pictures: bool
    fingerprint: str

    @property
    def count(self) -> int:
        """Return the number of candidates, repeated ones included."""
        return sum(len(part) for part in self.parts)

    @property
    def repeated(self) -> bool:
        """Whether some candidates have a uid that another has."""
        return any("repeated" in part["_dropped"].to_pylist() for part in self.parts)

    @property
    def columns(self) -> list[str]:
        """Return the names of the columns that stages may read."""
        return [c for c in self.parts[0].column_names if c not in INTERNAL]


def read_pool(path: str, columns: PoolColumns, part_pairs: int = 10_000) -> Candidates:
    """Read a pool of links (parquet, csv, tsv, txt, json, jsonl; also .gz) or of shards.

    Raises PoolError. Cost: the pool's rows in memory once; pictures are not read.
    """
    if not path.strip():
        raise PoolError("the pool has no name: give a file, a folder or a URL")
    folder = shard_folder(path)
    table = flat(read_shards(folder.resolve()) if folder else _links(path, columns))
    if len(table) == 0:
        raise PoolError(f"the pool {path} holds no pairs")
    table = _identify(table)
    parts = tuple(_cut(table, part_count(len(table), part_pairs)))
    return Candidates(parts, folder is not None, _fingerprint(parts))


def part_count(pairs: int, part_pairs: int) -> int:
    """Return how many parts a pool is cut into: a function of the pool's size alone.

    About ``part_pairs`` pairs each, but eight parts where 100 pairs are left for each of them, so
    that a few workers have work on a small pool.
    """
    return max(-(-pairs // part_pairs), min(8, -(-pairs // 100)))


def _links(path: str, columns: PoolColumns) -> pa.Table:
    layout = LAYOUTS[columns.layout] if columns.layout else PoolLayout(URL_NAMES, CAPTION_NAMES)
    table = _renamed(read_tables(path, _words(columns), layout.header), layout)
    url = _find(table, columns.url_col, layout.url)
    if url is None:
        raise PoolError(
            f"the pool {path} has no url column {columns.url_col or layout.url[0]!r} (it has "
            f"{', '.join(table.column_names)}): name it in the recipe, [pool] url_col = ..."
        )
    caption = _find(table, columns.caption_col, layout.caption)
    if columns.layout and caption is None:
        raise PoolError(
            f"the pool {path} is not laid out like {columns.layout}, which has a column "
            f"{layout.caption[0]!r}: leave out [pool] layout"
        )
    if columns.caption_col and caption is None:
        raise PoolError(f"the pool {path} has no caption column {columns.caption_col!r}")
    if len(set(table.column_names)) < len(table.column_names):
        raise PoolError(f"the pool {path} names a column twice: {', '.join(table.column_names)}")
    names = {url: "url", caption: "caption"}
    table = table.rename_columns([names.get(c, _safe(c, names)) for c in table.column_names])
    if caption is None:
        table = table.append_column("caption", pa.nulls(len(table), pa.string()))
    return table


def _renamed(table: pa.Table, layout: PoolLayout) -> pa.Table:
    """Give columns that a layout explains the name they have here, unless that is taken."""
    taken = set(table.column_names)
    names = [layout.means.get(name.lower(), name) for name in table.column_names]
    own = zip(names, table.column_names, strict=True)
    return table.rename_columns([old if new in taken else new for new, old in own])


def _find(table: pa.Table, wanted: str | None, usual: Sequence[str]) -> str | None:
    if wanted is not None:
        return wanted if wanted in table.column_names else None
    by_lower = {name.lower(): name for name in reversed(table.column_names)}
    return next((by_lower[name] for name in usual if name in by_lower), None)


def _safe(name: str, taken: dict[str | None, str]) -> str:
    reserved = name in VERDICT or name in INTERNAL or name in taken.values() or name in MEASURED
    return f"pool_{name}" if reserved else name


def _words(columns: PoolColumns) -> set[str]:
    """Return the columns, in lower case, that hold words even where a file writes digits."""
    named = {name.lower() for name in (columns.url_col, columns.caption_col) if name}
    return {*URL_NAMES, *CAPTION_NAMES, *named, "uid", "source"}


def _identify(table: pa.Table) -> pa.Table:
    """Add uid and the hash that parts are cut by; mark repeated candidates and rows without URL."""
    n = len(table)
    text = {c: _strings(table, c) for c in ("url", "caption", "source", "uid")}
    canonical = [canonical_url(u) if u else "" for u in text["url"]]
    uids = [
        u if is_uid(u) else _digest("\x1f".join(key), 16).hex()
        for u, *key in zip(text["uid"], canonical, text["caption"], text["source"], strict=True)
    ]
    hashes = [
        int.from_bytes(_digest(u or uid, 8), "big") for u, uid in zip(canonical, uids, strict=True)
    ]
    own = pa.array([u or None for u in text["uid"]], pa.string())
    if text["uid"] != uids and own.null_count < n:
        table = table.append_column("pool_uid", own)  # some are no uid of ours, and stay to be read
    columns: dict[str, Sequence[str | None]] = {"uid": uids, "caption": text["caption"]}
    columns |= {"url": [u or None for u in text["url"]]} if "url" in table.column_names else {}
    table = table.drop_columns([c for c in columns if c in table.column_names])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.string()))
    table = table.append_column("_hash", pa.array(hashes, pa.uint64()))
    return _mark(_sorted(table))


def _strings(table: pa.Table, name: str) -> list[str]:
    if name not in table.column_names:
        return [""] * len(table)
    try:
        return [v or "" for v in table[name].to_pylist()]
    except UnicodeDecodeError:  # parquet does not check what it calls a string
        raise PoolError(f"the pool's column {name!r} holds no UTF-8 text: convert it") from None


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def _sorted(table: pa.Table) -> pa.Table:
    """Sort by hash, uid, then every other column, so that the pool's own order is forgotten."""
    first = ["uid", "url", "caption"]
    names = [c for c in first if c in table.column_names]
    names += sorted(c for c in table.column_names if c not in {*names, *INTERNAL})
    table = table.select([*names, *(c for c in INTERNAL if c in table.column_names)])
    keys = [("_hash", "ascending"), ("uid", "ascending")]
    keys += [(c, "ascending") for c in table.column_names if c not in ("_hash", "uid")]
    return table.sort_by(keys).combine_chunks()


def _mark(table: pa.Table) -> pa.Table:
    """Say of each candidate why it is none: the first of each uid that has a picture stays."""
    n = len(table)
    reason = np.full(n, None, object)
    if "_no_picture" in table.column_names:
        without = table["_no_picture"].to_numpy()
        reason[without] = "no picture"
        table = table.drop_columns(["_no_picture"])
    else:
        reason[pc.is_null(table["url"]).to_numpy()] = "no url"
    usable = np.flatnonzero(reason == None)  # noqa: E711
    uids = table["uid"].combine_chunks().take(pa.array(usable))
    codes = uids.dictionary_encode().indices.to_numpy()  # they count up as new uids come
    known = np.maximum.accumulate(np.append(-1, codes))[:-1]
    reason[usable[codes <= known]] = "repeated"
    return table.append_column("_dropped", pa.array(reason, pa.string()))


def _cut(table: pa.Table, parts: int) -> Iterable[pa.Table]:
    hashes = table["_hash"].to_numpy()
    edges = [(p << 64) // parts for p in range(parts)]
    starts = [int(np.searchsorted(hashes, np.uint64(e))) for e in edges] + [len(table)]
    for start, end in pairwise(starts):
        yield table.slice(start, end - start).drop_columns(["_hash"])


def _fingerprint(parts: Sequence[pa.Table]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        columns = [c for c in part.column_names if c != "_shard"]  # a moved folder is the same pool
        digest.update(repr(columns).encode())
        for name in columns:
            for piece in _bytes(part[name].combine_chunks()):
                digest.update(piece)
    return digest.hexdigest()


def _bytes(values: pa.Array) -> Iterable[Any]:
    """Yield all that a flat column says, and nothing that lies under its nulls or beside it."""
    yield f"{values.type} {len(values)}".encode()
    if pa.types.is_null(values.type):
        return
    yield np.packbits(values.is_valid().to_numpy(zero_copy_only=False))
    if pa.types.is_string(values.type):
        whole = values.fill_null("")
        yield pc.binary_length(whole).to_numpy()
        ends = np.frombuffer(whole.buffers()[1], np.int32)[whole.offset :][: len(whole) + 1]
        yield memoryview(whole.buffers()[2] or b"")[ends[0] : ends[-1]]
    else:
        zero = pa.scalar(0).cast(values.type)
        yield np.ascontiguousarray(values.fill_null(zero).to_numpy(zero_copy_only=False))
