"""Read the scalar columns of a shard's pairs, from the parquet beside it or the json members."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from .errors import ShardError


def parquet_columns(parquet: Path) -> list[str]:
    """Return the names of a parquet's columns; raises ShardError where it is damaged."""
    import pyarrow.parquet as pq  # here and below: the loader process mostly needs neither

    try:
        return pq.read_schema(parquet).names
    except pa.ArrowInvalid as error:
        raise ShardError(f"{parquet} is damaged: delete it or build it again") from error


def join_parquet(index: pa.Table, parquet: Path, names: Sequence[str] | None) -> pa.Table:
    """Return the rows of a parquet that belong to the pairs of an index, without ``uid``.

    A damaged pair may have lost what links it to its row, and has null in every column then.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    present = parquet_columns(parquet)
    wanted = [name for name in names or present if name in present and name != "uid"]
    # img2dataset's parquet has a row for failures too, and is joined by key.
    for link in (link for link in ("uid", "key") if link in present):
        table = pq.read_table(parquet, columns=list(dict.fromkeys([*wanted, link])))
        places = pc.index_in(index[link], table[link])
        if not pc.any(pc.and_(places.is_null(), index["damage"].is_null())).as_py():
            return table.take(places).select(wanted)
    raise ShardError(f"{parquet} describes other pairs than its shard: delete or rebuild it")


def from_json(described: list[dict[str, Any]], names: Sequence[str] | None) -> pa.Table:
    """Make a table of the pairs' json members; a column that a pair lacks is null there."""
    present: set[str] = set().union(*described) - {"uid"}
    wanted = [name for name in names or sorted(present) if name in present]
    return pa.table(
        {name: _column([columns.get(name) for columns in described]) for name in wanted}
    )


def _column(values: list[Any]) -> pa.Array:
    """Make a column of JSON values; what is no Arrow type (mixed, above 64 bits) is their text."""
    try:
        return pa.array(values)
    except (ValueError, TypeError, OverflowError):
        texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        return pa.array([text and as_unicode(text) for text in texts], pa.string())


def as_unicode(text: str) -> str:
    """Replace the halves of surrogate pairs, which JSON allows and UTF-8 does not."""
    return text.encode("utf-8", "replace").decode()
