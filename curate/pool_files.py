"""Read the tables of links that people have: img2dataset's input formats, local or by URL."""

import gzip
import io
import json
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq

from breadth.loaders.errors import PoolError

FORMATS = ("parquet", "csv", "tsv", "txt", "json", "jsonl")


def read_tables(path: str) -> pa.Table:
    """Read a file, a folder of files or a glob pattern into one table; raises PoolError."""
    filesystem, files = find_files(path)
    tables = []
    for file in files:
        try:
            with filesystem.open(file, "rb") as stream:
                tables.append(_read(file, stream))
        except (OSError, pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PoolError(f"cannot read {file} as a pool: {_one_line(error)}") from None
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise PoolError(f"the files of {path} do not fit together: {_one_line(error)}") from None


def find_files(path: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    """Return the pool's files in sorted order; raises PoolError where there are none."""
    filesystem, root = fsspec.core.url_to_fs(path)
    if any(c in root for c in "*?["):
        found = filesystem.glob(root)
    elif filesystem.isdir(root):
        found = [f for f in filesystem.find(root) if _format(f)]
    elif filesystem.exists(root):
        found = [root]
    else:
        raise PoolError(f"there is no pool at {path}")
    if not found:
        raise PoolError(f"no {', '.join(FORMATS)} files and no shards in {path}")
    return filesystem, sorted(found)


def _format(file: str) -> str | None:
    name = file.removesuffix(".gz")
    return next((f for f in FORMATS if name.endswith(f".{f}")), None)


def _read(file: str, stream: IO[bytes]) -> pa.Table:
    kind = _format(file)
    if kind == "parquet":
        return _scalars(pq.read_table(stream))
    raw = gzip.decompress(stream.read()) if file.endswith(".gz") else stream.read()
    if not raw.strip():
        return pa.table({"url": pa.array([], pa.string())})
    if kind in ("csv", "tsv"):
        options = pcsv.ParseOptions(
            delimiter="," if kind == "csv" else "\t", newlines_in_values=True
        )
        return pcsv.read_csv(io.BytesIO(raw), parse_options=options)
    if kind == "txt":
        return pa.table({"url": [u for u in raw.decode("utf-8").splitlines() if u.strip()]})
    if kind == "jsonl":
        return _scalars(pjson.read_json(io.BytesIO(raw)))
    if kind == "json":
        return _scalars(pa.Table.from_pylist(json.loads(raw)))
    raise PoolError(f"cannot tell what {file} is: name it .{', .'.join(FORMATS)} (or .gz)")


def _scalars(table: pa.Table) -> pa.Table:
    """Drop nested columns: a ledger row is flat."""
    return table.select([f.name for f in table.schema if not pa.types.is_nested(f.type)])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
