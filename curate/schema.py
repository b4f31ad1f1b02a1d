"""The columns a pair can have that two or more stages share: type and meaning."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column of the ledger."""

    type: pa.DataType
    meaning: str


COLUMNS: dict[str, Column] = {
    "uid": Column(pa.string(), "128-bit identity of the pair, 32 hexadecimal digits"),
    "url": Column(pa.string(), "where the picture was"),
    "caption": Column(pa.string(), "the words beside the picture"),
    "source": Column(pa.string(), "the collection the pool says the pair is from"),
    "image": Column(pa.binary(), "the encoded picture; in shards, never in the ledger"),
    "status": Column(pa.string(), "success, failed_to_download or failed_to_resize"),
    "failure": Column(pa.string(), "what kind of failure, by its name in fetch/failures.py"),
    "retryable": Column(pa.bool_(), "whether a later try can succeed"),
    "error_message": Column(pa.string(), "why a pair failed, in the fetcher's words"),
    "width": Column(pa.int32(), "px, as stored"),
    "height": Column(pa.int32(), "px, as stored"),
    "original_width": Column(pa.int32(), "px, as downloaded"),
    "original_height": Column(pa.int32(), "px, as downloaded"),
    "exif": Column(pa.string(), "EXIF tags as JSON"),
    "sha256": Column(pa.string(), "of the bytes as downloaded"),
    "opt_out": Column(pa.string(), "who forbids it, as JSON: rule, where it stands, time read"),
}

VERDICT: dict[str, Column] = {
    "kept": Column(pa.bool_(), "whether the pair is in the shards"),
    "dropped_by": Column(pa.string(), "the stage that dropped the pair"),
    "reason": Column(pa.string(), "why, in a word or phrase"),
    "witness": Column(pa.string(), "uid of the kept pair that a duplicate is too like"),
    "distance": Column(pa.float32(), "how far the witness is, in the stage's unit"),
}
"""What the ledger adds to every candidate; stages cannot write these."""
