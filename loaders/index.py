"""Say where every pair of a tar lies, so that any of them can be read alone.

An index lies beside its tar as ``<stem>.index``, or in another folder where the tars are read-only.
"""

import json
import mmap
import re
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from .arrow_file import read_arrow, write_arrow
from .errors import ShardError
from .tar import Member, map_tar, walk

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
"""Members that count as a pair's picture; others are left alone."""

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
    ]
)
"""One row per pair, in the order of the tar; offset 0 says that there is no such member."""

_UID = re.compile(r"[0-9a-f]{32}")
_MEMBER_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # WebDataset's rule: the first dot
_MAGIC = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"))


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


def index_tar(path: Path) -> pa.Table:
    """Walk a tar and return its index (``INDEX_SCHEMA``), one row per pair.

    Raises ShardError where the tar is cut short, damaged, compressed or holds links. Cost: reads
    the headers and the json members, about 30 microseconds a pair.
    """
    with map_tar(path) as tar:
        pairs: dict[str, dict[str, Member]] = {}
        for member in walk(path, tar):
            _add(path, pairs, member)
        rows = [_row(path, tar, key, members) for key, members in pairs.items()]
        return index_table(rows, tar_bytes=len(tar))


def index_table(rows: list[dict[str, object]], tar_bytes: int) -> pa.Table:
    """Make an index of its rows; it remembers the size of the tar that it is for."""
    schema = INDEX_SCHEMA.with_metadata({"breadth_index": "1", "tar_bytes": str(tar_bytes)})
    return pa.Table.from_pylist(rows, schema=schema)


def write_index(table: pa.Table, path: Path) -> None:
    """Write an index as an Arrow IPC file, under its final name only when complete."""
    write_arrow(path, table)


def read_index(tar_path: Path, index_dir: Path | None = None) -> pa.Table:
    """Return the index of a tar: the file in ``index_dir`` or beside it if it fits, else a walk.

    An index fits when it was made for a tar of this size, so a tar that was cut is walked, which
    says where it ends.
    """
    name = f"{tar_path.stem}.index"
    elsewhere = index_dir is not None and (index_dir / name).is_file()
    beside = index_dir / name if index_dir and elsewhere else tar_path.with_suffix(".index")
    if not tar_path.is_file():
        raise ShardError(f"shard {tar_path} is missing: put it back or build the folder again")
    if beside.is_file():
        table = _stored(beside)
        made_for = int((table.schema.metadata or {}).get(b"tar_bytes", -1))
        if made_for == tar_path.stat().st_size and table.schema.equals(INDEX_SCHEMA):
            return table
    return index_tar(tar_path)


def read_member(tar: mmap.mmap, offset: int, length: int) -> bytes:
    """Return the bytes of a member; raises ShardError where the tar has become shorter."""
    if offset + length > len(tar):
        raise ShardError(f"a shard ends before byte {offset + length}: build or fetch it again")
    return tar[offset : offset + length]


def foreign_uid(stem: str, key: str) -> str:
    """Return the uid of a pair that brings none: a hash of its shard's name and its key."""
    return blake2b(f"{stem}/{key}".encode(), digest_size=16).hexdigest()


def _stored(path: Path) -> pa.Table:
    try:
        return read_arrow(path)
    except pa.ArrowInvalid as error:
        raise ShardError(f"index {path} is damaged: delete it, it is made anew") from error


def _add(path: Path, pairs: dict[str, dict[str, Member]], member: Member) -> None:
    match = _MEMBER_NAME.fullmatch(member.name)
    if match is None:
        return  # WebDataset readers pass over names without an extension, too
    key, extension = match[1], match[2].lower()
    members = pairs.setdefault(key, {})
    if extension in members:
        raise ShardError(f"shard {path} holds {member.name} twice: write it with unique names")
    members[extension] = member


def _row(path: Path, tar: mmap.mmap, key: str, members: dict[str, Member]) -> dict[str, object]:
    extension = next((e for e in members if e in IMAGE_EXTENSIONS), "")
    absent = Member("", 0, 0)
    image, caption = members.get(extension, absent), members.get("txt", absent)
    columns = members.get("json", absent)
    return {
        "key": key,
        "uid": _uid(path, key, tar[columns.offset : columns.offset + columns.length]),
        "image_ext": extension,
        "image_offset": image.offset,
        "image_length": image.length,
        "caption_offset": caption.offset,
        "caption_length": caption.length,
        "json_offset": columns.offset,
        "json_length": columns.length,
    }


def _uid(path: Path, key: str, columns: bytes) -> str:
    try:
        own = json.loads(columns).get("uid") if columns else None
    except (ValueError, AttributeError) as error:
        raise ShardError(f"shard {path}: {key}.json is not a JSON object: rewrite it") from error
    return str(own) if is_uid(own) else foreign_uid(path.stem, key)
