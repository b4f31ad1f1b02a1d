"""What a run said item by item, beside the run: every score can be made again of these files.

``RUN/predictions/<data>/<score>.parquet`` has a row for each item with its uid, what was right,
what was predicted and what that was worth; facts that all rows share, such as the number of
classes, are JSON in the file's schema. Nothing here needs torch.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from breadth.loaders.errors import PoolError
from breadth.loaders.whole_file import replaced

FOLDER = "predictions"
_FACTS, _STAMP = b"breadth.facts", b"breadth.evaluation"


@dataclass(frozen=True)
class Predictions:
    """The items of one score, and what they share."""

    score: str
    rows: pa.Table
    facts: Mapping[str, Any]


def predictions_folder(run: Path, data_digest: str, limit: int | None = None) -> Path:
    """Return where the predictions on a data folder, or on ``limit`` of its pairs, are kept."""
    name = data_digest[:16] if limit is None else f"{data_digest[:16]}-{limit}"
    return run / FOLDER / name


def write_predictions(folder: Path, kept: Iterable[Predictions], stamp: Mapping[str, Any]) -> None:
    """Replace the predictions in a folder; each file is written whole.

    ``stamp`` says which evaluation it was: files of two are never read as one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for one in kept:
        metadata = {_FACTS: _json(one.facts), _STAMP: _json(stamp)}
        with replaced(folder / f"{one.score}.parquet") as file:
            pq.write_table(one.rows.replace_schema_metadata(metadata), file, compression="zstd")
        written.add(one.score)
    for path in folder.glob("*.parquet"):
        if path.stem not in written:
            path.unlink()


def read_predictions(folder: Path) -> tuple[list[Predictions], dict[str, Any]]:
    """Return the predictions of one evaluation, by name of their score, and its stamp.

    Raises PoolError where there are none, or where the files are not those of one evaluation.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise PoolError(f"{folder} holds no predictions; breadth evaluate writes them")
    found, stamps = [], []
    for path in paths:
        try:
            rows = pq.read_table(path)
            metadata = rows.schema.metadata or {}
            found.append(Predictions(path.stem, rows, json.loads(metadata[_FACTS])))
            stamps.append(json.loads(metadata[_STAMP]))
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise PoolError(f"{path} holds no predictions ({error}); evaluate again") from error
    if any(stamp != stamps[0] for stamp in stamps):
        raise PoolError(f"{folder} holds files of two evaluations; evaluate again")
    return found, stamps[0]


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
