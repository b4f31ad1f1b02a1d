"""Write pairs as shards: a plain tar, its columns as parquet and its index; equal for equal input.

Tars are USTAR with integer times of zero, which every WebDataset reader opens; PAX headers, as
Python's ``tarfile`` writes them for fractional times, cost readers 1.7 times as much.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from breadth.loaders.errors import OutputError, ShardError
from breadth.loaders.index import index_table, is_uid, picture_extension, write_index
from breadth.loaders.manifest import MANIFEST_NAME, Manifest, Shard
from breadth.loaders.whole_file import replaced

from .ustar import TarWriter

BATCH_ROWS = 512
"""Rows as Python objects take three times the memory of Arrow's: so many are such at once."""

PairToWrite = tuple[Mapping[str, Any], bytes, str]
"""Scalar columns with at least uid and caption, the encoded picture, and its extension."""


def write_shard(path: Path, pairs: Iterable[PairToWrite], schema: pa.Schema | None = None) -> Shard:
    """Write one shard with its parquet and index; the tar takes its name last.

    ``schema`` gives the types of the columns, else they are inferred from the values. Raises
    ShardError for a uid that is malformed or comes twice.
    """
    columns = _Columns(schema)
    rows: dict[str, dict[str, object]] = {}
    with replaced(path) as file:
        tar = TarWriter(file)
        for own, encoded, extension in pairs:
            uid = own["uid"]
            if not is_uid(uid) or uid in rows:
                raise ShardError(f"uid {uid!r} is malformed or comes twice: give each pair its own")
            rows[uid] = _add_pair(tar, own, encoded, extension)
            columns.append(own)
        digest = tar.finish()
        with replaced(path.with_suffix(".parquet")) as parquet:
            pq.write_table(columns.table(), parquet)
        write_index(index_table(list(rows.values()), tar.size), path.with_suffix(".index"))
    return Shard(path.name, len(rows), tar.size, digest)


def write_folder(
    folder: Path,
    pairs: pa.Table | Iterable[PairToWrite],
    *,
    name: str,
    pairs_per_shard: int = 10_000,
    seed: int = 0,
) -> Manifest:
    """Write a set made in process as shards ``00000.tar`` on, with its manifest beside them.

    A table carries the encoded picture in its column ``image``. Raises OutputError where the
    folder already holds a finished set; an unfinished one is written anew.
    """
    if (folder / MANIFEST_NAME).exists():
        raise OutputError(f"{folder} already holds a set: give another folder or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    schema = _scalar_schema(pairs) if isinstance(pairs, pa.Table) else None
    stream = _rows(pairs) if isinstance(pairs, pa.Table) else iter(pairs)
    shards = [
        write_shard(folder / f"{number:05d}.tar", chunk, schema)
        for number, chunk in enumerate(_chunks(stream, pairs_per_shard))
    ]
    if not shards:
        raise OutputError(f"there is no pair to write to {folder}: give at least one")
    types = pq.read_schema((folder / shards[0].name).with_suffix(".parquet"))
    manifest = Manifest(
        name=name,
        seed=seed,
        pairs=sum(shard.pairs for shard in shards),
        columns={column.name: str(column.type) for column in types},
        shards=tuple(shards),
    )
    manifest.write(folder)
    return manifest


def _add_pair(
    tar: TarWriter, columns: Mapping[str, Any], encoded: bytes, extension: str
) -> dict[str, object]:
    uid, caption = columns["uid"], columns["caption"].encode()
    described = _compact_json(columns)
    return {
        "key": uid,
        "uid": uid,
        "image_ext": extension,
        "image_offset": tar.add(f"{uid}.{extension}", encoded),
        "image_length": len(encoded),
        "caption_offset": tar.add(f"{uid}.txt", caption),
        "caption_length": len(caption),
        "json_offset": tar.add(f"{uid}.json", described),
        "json_length": len(described),
        "image_crc": crc32(encoded),
        "damage": None,
    }


def _compact_json(columns: Mapping[str, Any]) -> bytes:
    """Encode columns with sorted keys; NaN and infinity, which JSON lacks, become null.

    orjson has the bytes of ``json`` at a tenth of its cost, but for numbers with an exponent.
    """
    if all(type(value) in _PLAIN or _has_no_exponent(value) for value in columns.values()):
        return orjson.dumps(dict(columns), option=orjson.OPT_SORT_KEYS)
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in columns.items()
    }
    text = json.dumps(
        finite, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


_PLAIN = frozenset({str, int, bool, type(None)})


def _has_no_exponent(value: object) -> bool:
    return isinstance(value, float) and (value == 0 or 1e-4 <= abs(value) < 1e16)


class _Columns:
    """Rows on their way to a table; those of a known schema are Arrow's after some hundred."""

    def __init__(self, schema: pa.Schema | None) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[Mapping[str, Any]] = []

    def append(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if self._schema is not None and len(self._rows) == BATCH_ROWS:
            self._pack(self._schema)

    def _pack(self, schema: pa.Schema) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=schema))
        self._rows.clear()

    def table(self) -> pa.Table:
        if self._schema is not None:
            self._pack(self._schema)
            return pa.Table.from_batches(self._batches).combine_chunks()
        # Arrow by itself takes the first row's columns and drops what only later rows have.
        names = dict.fromkeys(name for row in self._rows for name in row)
        return pa.table({name: [row.get(name) for row in self._rows] for name in names})


def _scalar_schema(pairs: pa.Table) -> pa.Schema:
    return pa.schema([column for column in pairs.schema if column.name != "image"])


def _rows(pairs: pa.Table) -> Iterator[PairToWrite]:
    for batch in pairs.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            encoded = row.pop("image")
            yield row, encoded, picture_extension(encoded)


def _chunks(stream: Iterator[PairToWrite], size: int) -> Iterator[Iterator[PairToWrite]]:
    """Cut a stream into runs of ``size``; each must be read before the next is asked for."""
    for first in stream:
        yield chain([first], islice(stream, size - 1))
