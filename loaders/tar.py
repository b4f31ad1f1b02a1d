"""Walk the headers of a tar and account for every byte.

``tarfile`` takes a damaged header for the end of the archive and says nothing, and costs twenty
times as much. A walk that ends well has read the whole tar; anything else is a ``ShardError``.
"""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import ShardError

BLOCK = 512


class Member(NamedTuple):
    """One regular file in a tar: its bytes are ``[offset, offset + length)``."""

    name: str
    offset: int
    length: int


def map_tar(path: Path) -> mmap.mmap:
    """Map a tar into memory; raises ShardError where it is missing or empty."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise ShardError(
            f"shard {path} is missing: put it back or build the folder again"
        ) from error
    except ValueError as error:
        raise ShardError(f"shard {path} is empty: build or fetch it again") from error


def walk(path: Path, tar: mmap.mmap) -> Iterator[Member]:
    """Yield every regular file of a tar, whose end mark has been seen when this ends.

    Raises ShardError where the tar is cut short, damaged, compressed or holds links.
    """
    position = 0
    extended: dict[str, str] = {}  # what a PAX or GNU header says of the next member
    while not _is_end(path, tar, position):
        header = tar[position : position + BLOCK]
        _check_sum(path, header, position)
        length = _length(path, header, extended, position)
        begin, kind = position + BLOCK, header[156:157]
        if begin + length > len(tar):
            raise _cut(path, len(tar))
        if kind in b"0\0":
            yield Member(extended.get("path", _name(header)), begin, length)
        elif kind not in b"xLg5":
            raise ShardError(f"shard {path} holds a link or device: write it with plain files only")
        is_prefix = kind in b"xL"
        body = tar[begin : begin + length] if is_prefix else b""
        extended = extended | _extended(path, kind, body) if is_prefix else {}
        position = begin + -(-length // BLOCK) * BLOCK


def _is_end(path: Path, tar: mmap.mmap, position: int) -> bool:
    """Say whether the end mark is here, and that nothing comes after it."""
    header = tar[position : position + BLOCK]
    if len(header) < BLOCK:
        raise _cut(path, len(tar))
    if any(header):
        return False
    if any(tar[position:]):
        raise ShardError(
            f"shard {path} has an empty header at byte {position} and goes on after it: "
            "it is damaged; build or fetch it again"
        )
    return True


def _check_sum(path: Path, header: bytes, position: int) -> None:
    if position == 0 and header[:2] == b"\x1f\x8b":
        raise ShardError(f"shard {path} is compressed: decompress it first (gunzip)")
    found = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if found != _number(header[148:156]):
        raise _damaged(path, position)


def _length(path: Path, header: bytes, extended: dict[str, str], position: int) -> int:
    """Return a member's length; a PAX header before it may give it, for lengths from 8 GiB."""
    stated = extended.get("size")
    if stated is not None and not stated.isdecimal():
        raise _damaged(path, position)
    length = _number(header[124:136]) if stated is None else int(stated)
    if length < 0:
        raise _damaged(path, position)
    return length


def _damaged(path: Path, position: int) -> ShardError:
    return ShardError(
        f"shard {path} has a damaged header at byte {position}: build or fetch it again"
    )


def _cut(path: Path, end: int) -> ShardError:
    return ShardError(f"shard {path} is cut short at byte {end}: build or fetch it again")


def _number(field: bytes) -> int:
    """Read an octal field, or GNU's binary one for sizes from 8 GiB; -1 where it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else (-1 if digits else 0)


def _name(header: bytes) -> str:
    name, prefix = (field.split(b"\0", 1)[0] for field in (header[:100], header[345:500]))
    is_ustar = header[257:263] == b"ustar\0"
    return (prefix + b"/" + name if prefix and is_ustar else name).decode("utf-8", "replace")


def _extended(path: Path, kind: bytes, body: bytes) -> dict[str, str]:
    """Read a PAX header (records ``length key=value``) or a GNU long name."""
    if kind == b"L":
        return {"path": body.rstrip(b"\0").decode("utf-8", "replace")}
    records = {}
    while body:
        size = body.split(b" ", 1)[0]
        if not size.isdigit() or not 0 < int(size) <= len(body):
            raise ShardError(f"shard {path} has a damaged PAX header: build or fetch it again")
        key, _, value = (
            body[len(size) + 1 : int(size) - 1].decode("utf-8", "replace").partition("=")
        )
        records[key] = value
        body = body[int(size) :]
    if any(key.startswith("GNU.sparse") for key in records):
        raise ShardError(f"shard {path} holds a sparse file: write it with plain files only")
    return records
