"""Say where every pair of a tar lies, so that any of them can be read alone.

An index lies beside its tar as ``<stem>.index``, or in another folder where the tars are read-only.
"""

import json
import mmap
import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import orjson
import pyarrow as pa

from .arrow_arrays import as_arrow
from .arrow_file import read_arrow, write_arrow
from .errors import ShardError
from .pair_members import IMAGE_EXTENSIONS, PairMembers, joined
from .tar import Gap, map_tar, walk

VERSION = "2"
GAPS_LISTED = 1000

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uid", pa.string()),
        ("image_ext", pa.string()),
        ("image_offset", pa.uint64()),
        ("image_length", pa.uint32()),
        ("caption_offset", pa.uint64()),
        ("caption_length", pa.uint32()),
        ("json_offset", pa.uint64()),
        ("json_length", pa.uint32()),
        ("image_crc", pa.uint32()),
        ("damage", pa.string()),
    ]
)
"""One row per pair, in the order of the tar; offset 0 says that there is no such member.

``image_crc`` is the picture's zlib.crc32, if known; ``damage`` says what is wrong with the pair, if
anything is: it is not to be read then.
"""

_UID = re.compile(r"[0-9a-f]{32}")
_MAGIC = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"))


class Damage(NamedTuple):
    """What of a tar cannot be read: rows of its index, and bytes that belong to no named member.

    ``gaps`` are (begin, end, why), the first thousand.
    """

    pairs: int
    lost_bytes: int
    gaps: list[tuple[int, int, str]]


def is_uid(text: object) -> bool:
    """Say whether ``text`` is a uid: 32 lower-case hex characters."""
    return isinstance(text, str) and _UID.fullmatch(text) is not None


def picture_extension(encoded: bytes) -> str:
    """Return the extension for a picture by its first bytes; raises ShardError for other formats.

    >>> picture_extension(bytes.fromhex("ffd8ffe0"))
    'jpg'
    """
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "webp"
    for magic, extension in _MAGIC:
        if encoded.startswith(magic):
            return extension
    raise ShardError("a picture is neither JPEG, PNG nor WebP: encode it as one of them first")


def index_tar(path: Path, *, checksums: bool = True) -> pa.Table:
    """Walk a tar and return its index (``INDEX_SCHEMA``), one row per pair.

    Damage costs the pairs that it touches: their rows say so. Raises ShardError as ``walk`` does.
    Cost: reads every byte; without ``checksums`` headers and json members only, 15 microseconds a
    pair.
    """
    with map_tar(path) as tar:
        found = walk(path, tar)
        pairs = joined(found)
        rows = [_row(path, tar, key, pair, checksums) for key, pair in pairs.items()]
        return index_table(rows, len(tar), found.gaps)


def index_table(
    rows: list[dict[str, object]], tar_bytes: int, gaps: Sequence[Gap] = ()
) -> pa.Table:
    """Make an index of its rows; it remembers the size of the tar that it is for, and its gaps."""
    lost = sorted((gap.begin, gap.end, gap.why) for gap in gaps)
    metadata = {
        "breadth_index": VERSION,
        "tar_bytes": str(tar_bytes),
        "lost_bytes": str(sum(gap.end - gap.begin for gap in gaps if not gap.name)),
        "gaps": json.dumps(lost[:GAPS_LISTED]),
    }
    schema = INDEX_SCHEMA.with_metadata(metadata)
    columns = [pa.array([row[c.name] for row in rows], c.type) for c in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def damage_of(index: pa.Table) -> Damage:
    """Return what an index says of damage to its tar."""
    metadata = index.schema.metadata
    return Damage(
        len(index) - index["damage"].null_count,
        int(metadata[b"lost_bytes"]),
        [(begin, end, why) for begin, end, why in json.loads(metadata[b"gaps"])],
    )


def write_index(table: pa.Table, path: Path) -> None:
    """Write an index as an Arrow IPC file, under its final name only when complete."""
    write_arrow(path, table)


def read_index(tar_path: Path, index_dir: Path | None = None) -> pa.Table:
    """Return the index of a tar: the file in ``index_dir`` or beside it if it fits, else a walk.

    An index fits when it has this version and was made for a tar of this size, so a tar that was
    cut is walked, which finds the damage. A walk leaves ``image_crc`` empty.
    """
    name = f"{tar_path.stem}.index"
    elsewhere = index_dir is not None and (index_dir / name).is_file()
    beside = index_dir / name if index_dir and elsewhere else tar_path.with_suffix(".index")
    if not tar_path.is_file():
        raise ShardError(f"shard {tar_path} is missing: put it back or build the folder again")
    if beside.is_file():
        table = read_index_file(beside)
        if table is not None and made_for(table) == tar_path.stat().st_size:
            return table
    return index_tar(tar_path, checksums=False)


def whole_index(tar_path: Path, index_dir: Path | None = None) -> pa.Table:
    """Return the index of a tar as ``read_index`` does; raises ShardError where it is damaged."""
    index = read_index(tar_path, index_dir)
    refuse_damage(tar_path, index)
    return index


def refuse_damage(tar_path: Path, index: pa.Table) -> None:
    """Raise ShardError where an index says of any damage to its tar."""
    damage = damage_of(index)
    if damage.gaps:
        begin, _, why = damage.gaps[0]
        raise ShardError(f"shard {tar_path} has {why} at byte {begin}: build or fetch it again")
    if damage.pairs:
        pair = index.filter(index["damage"].is_valid()).to_pylist()[0]
        raise ShardError(
            f"pair {pair['key']} of shard {tar_path} is damaged ({pair['damage']}): "
            "build or fetch it again"
        )


def read_index_file(path: Path) -> pa.Table | None:
    """Read an index file, or None where it is of another version; raises ShardError if damaged."""
    try:
        table = read_arrow(path)
    except pa.ArrowInvalid as error:
        raise ShardError(f"index {path} is damaged: delete it, it is made anew") from error
    is_ours = (table.schema.metadata or {}).get(b"breadth_index") == VERSION.encode()
    return table if is_ours and table.schema.equals(INDEX_SCHEMA) else None


def made_for(index: pa.Table) -> int:
    """Return the size of the tar that an index was made for, in bytes."""
    return int(index.schema.metadata[b"tar_bytes"])


def numbered(indexes: list[pa.Table]) -> Iterator[pa.Table]:
    """Add to every index the number of its shard and the number of each row in it."""
    for number, table in enumerate(indexes):
        shard = as_arrow(np.full(len(table), number, np.int32))
        row = as_arrow(np.arange(len(table)))
        plain = table.replace_schema_metadata(None)
        yield plain.append_column("shard", shard).append_column("shard_row", row)


def foreign_uid(stem: str, key: str) -> str:
    """Return the uid of a pair that brings none: a hash of its shard's name and its key."""
    return blake2b(f"{stem}/{key}".encode(), digest_size=16).hexdigest()


def _row(path: Path, tar: mmap.mmap, key: str, pair: PairMembers, sums: bool) -> dict[str, object]:
    extension = next((e for e in pair.members if e in IMAGE_EXTENSIONS), "")
    image = pair.members.get(extension, (0, 0))
    caption, described = pair.members.get("txt", (0, 0)), pair.members.get("json", (0, 0))
    uid, json_damage = _uid(path, key, tar[described[0] : sum(described)])
    return {
        "key": key,
        "uid": uid,
        "image_ext": extension,
        "image_offset": image[0],
        "image_length": image[1],
        "caption_offset": caption[0],
        "caption_length": caption[1],
        "json_offset": described[0],
        "json_length": described[1],
        "image_crc": crc32(tar[image[0] : sum(image)]) if sums and image[0] else None,
        "damage": pair.damage or json_damage,
    }


def _uid(path: Path, key: str, described: bytes) -> tuple[str, str | None]:
    """Return the uid of a pair, and what is wrong with its json member."""
    damage = None
    try:
        own = _json(described).get("uid") if described else None
    except (ValueError, AttributeError):
        own, damage = None, "its json is not a JSON object"
    return (str(own) if is_uid(own) else foreign_uid(path.stem, key)), damage


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)  # takes NaN, lone surrogates and numbers of any size, too
