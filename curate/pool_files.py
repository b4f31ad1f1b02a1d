"""Read the tables of links that people have: img2dataset's input formats, local or by URL."""

import gzip
import io
import json
import zlib
from collections.abc import Collection, Sequence
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq

from breadth.loaders.errors import PoolError

WORDS = ("uid", "url", "caption", "source")
"""Columns that hold words, whatever else is in a pool."""

FORMATS = ("parquet", "csv", "tsv", "txt", "json", "jsonl")


def read_tables(path: str, words: Collection[str] = (), header: Sequence[str] = ()) -> pa.Table:
    """Read a file, a folder of files or a glob pattern into one table; raises PoolError.

    The columns named in ``words``, in lower case, are words even where a CSV has only digits. With
    a ``header`` a TSV is read as one without names and quotes, and its columns have these.
    """
    filesystem, files = find_files(path)
    tables = []
    for file in files:
        try:
            with filesystem.open(file, "rb") as stream:
                tables.append(_read(file, stream, words, header))
        except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError) as error:
            raise PoolError(f"cannot read {file} as a pool: {_one_line(error)}") from None
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise PoolError(f"the files of {path} do not fit together: {_one_line(error)}") from None


def find_files(path: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    """Return the pool's files in sorted order; raises PoolError where there are none."""
    try:
        filesystem, root = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:  # an unknown protocol, or one whose client is absent
        raise PoolError(f"cannot open {path}: {_one_line(error)}") from None
    if any(c in root for c in "*?["):
        found = filesystem.glob(root)
    elif filesystem.isdir(root):
        found = _without_builds(filesystem.find(root))
    elif filesystem.exists(root):
        found = [root]
    else:
        raise PoolError(f"there is no pool at {path}")
    if not found:
        raise PoolError(f"no {', '.join(FORMATS)} files and no shards in {path}")
    return filesystem, sorted(found)


def _without_builds(files: list[str]) -> list[str]:
    """Return the pool's files of a folder: a build in it has tables of its own."""
    builds = tuple(f.removesuffix("build.json") for f in files if f.endswith("/build.json"))
    return [f for f in files if _format(f) and not f.startswith(builds)]


def _format(file: str) -> str | None:
    name = file.removesuffix(".gz")
    return next((f for f in FORMATS if name.endswith(f".{f}")), None)


def _read(file: str, stream: IO[bytes], words: Collection[str], header: Sequence[str]) -> pa.Table:
    kind = _format(file)
    if kind == "parquet":
        return pq.ParquetFile(stream).read()  # read_table imports much for this alone
    raw = gzip.decompress(stream.read()) if file.endswith(".gz") else stream.read()
    if not raw.strip():
        return pa.table({"url": pa.array([], pa.string())})
    if kind == "tsv" and header:
        return _read_nameless(raw, header)
    if kind in ("csv", "tsv"):
        return _read_csv(raw, "," if kind == "csv" else "\t", words)
    if kind == "txt":
        return pa.table({"url": [u for u in raw.decode("utf-8-sig").splitlines() if u.strip()]})
    if kind == "jsonl":
        return pjson.read_json(io.BytesIO(raw))
    if kind == "json":
        return _from_rows(json.loads(raw))
    raise PoolError(f"cannot tell what {file} is: name it .{', .'.join(FORMATS)} (or .gz)")


def _read_csv(raw: bytes, delimiter: str, words: Collection[str]) -> pa.Table:
    parse = pcsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    head = io.BytesIO(raw.lstrip().split(b"\n", 1)[0] + b"\n")
    nameless = pcsv.ReadOptions(autogenerate_column_names=True)
    header = pcsv.read_csv(head, read_options=nameless, parse_options=parse).to_pylist()[0]
    names = [str(name) for name in header.values()]
    types = {name: pa.string() for name in names if name.lower() in words}
    convert = pcsv.ConvertOptions(column_types=types)
    return pcsv.read_csv(io.BytesIO(raw), parse_options=parse, convert_options=convert)


def _read_nameless(raw: bytes, header: Sequence[str]) -> pa.Table:
    """Read a TSV without a header line, or with the one that img2dataset's users put there."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    first = raw.split(b"\n", 1)[0].rstrip(b"\r").split(b"\t")
    if not 2 <= len(first) <= len(header):
        raise ValueError(f"it has {len(first)} columns, not {', '.join(header)}")
    names = list(header[: len(first)])
    named = [cell.decode("utf-8", "replace").strip().lower() for cell in first] == names
    return pcsv.read_csv(
        io.BytesIO(raw),
        read_options=pcsv.ReadOptions(column_names=names, skip_rows=int(named)),
        parse_options=pcsv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pcsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _from_rows(rows: object) -> pa.Table:
    """Make a table of a JSON list of objects; a key that one of them lacks is null there."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is not a list of objects")
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def flat(table: pa.Table) -> pa.Table:
    """Bring columns to what a ledger row and JSON can hold: numbers, truth values and strings.

    Dates, times and decimals become strings; nested and binary columns are left out, but raise
    PoolError where they should be words.
    """
    columns = {}
    for column in table.schema:
        kind = _flat_type(column.type, column.name in WORDS)
        try:
            if kind is not None:
                columns[column.name] = table[column.name].cast(kind)
        except pa.ArrowException as error:
            raise PoolError(
                f"the pool's column {column.name!r} holds {column.type}, not UTF-8 text: "
                f"{_one_line(error)}"
            ) from None
    return pa.table(columns)


def _flat_type(kind: pa.DataType, words: bool) -> pa.DataType | None:
    if words:
        return pa.string()
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_nested(kind) or "binary" in str(kind):
        return None
    if pa.types.is_float16(kind):
        return pa.float32()
    return kind if any(test(kind) for test in _PLAIN) else pa.string()


_PLAIN = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_string,
    pa.types.is_null,
)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
