"""Keep account of the pairs that could not be read: which, why, and what was taken instead."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from .errors import Failed, PoolError

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("epoch", pa.int64()),
        ("step", pa.int64()),
        ("rank", pa.int32()),
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("substitute", pa.string()),
    ]
)
"""One row per position that got another pair; ``substitute`` is its uid, ``error`` a class."""

MOST_CHARACTERS = 300  # of a message


def write_quarantine(folder: Path, rank: int, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to ``folder/rank-00000.jsonl``; each is there whole or not at all after a kill.

    Raises Failed where the disk does not take them. Cost: waits for the disk.
    """
    path = folder / f"rank-{rank:05}.jsonl"
    # A line that a kill cut short must not swallow the next one.
    text = "".join("\n" + json.dumps(row) for row in rows) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(text.encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise Failed(
            f"cannot write {path} ({error}): make room, and the same command goes on"
        ) from error


def read_quarantine(folder: str | Path) -> pa.Table:
    """Return what all ranks wrote, ``SCHEMA``, in order of position, each position once.

    Where nothing was quarantined there is no folder, and no row. Raises PoolError for a file of
    another kind; a last line that a kill cut short is not counted.
    """
    rows: dict[int, dict[str, Any]] = {}
    for path in sorted(Path(folder).glob("rank-*.jsonl")):
        for row in _rows(path):
            rows[row["position"]] = row
    return pa.Table.from_pylist([rows[position] for position in sorted(rows)], schema=SCHEMA)


def one_line(error: Exception) -> str:
    """Return an error's message on one line, cut to what the file holds."""
    return " ".join(str(error).split())[:MOST_CHARACTERS]


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line or "null")
        except ValueError:
            continue  # cut short: the batch it belongs to was never used for a checkpoint
        if row is None:
            continue
        if not isinstance(row, dict) or row.keys() != set(SCHEMA.names):
            raise PoolError(f"{path} is no quarantine of this Breadth: move it away")
        yield row
