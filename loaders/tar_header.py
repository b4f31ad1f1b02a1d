"""Read one header of a tar: a member's kind, name and length, or that there is no header here."""

import mmap
import re
from struct import Struct
from zlib import adler32

BLOCK = 512
FILES, PREFIXES, PASSED_OVER = b"0\0", b"xL", b"g5"
"""Kinds of members: files, what only says something of the next member, and what is no file."""

MEMBER_BYTES = 64 << 20
"""Larger pictures, captions and json members are not read."""

NAME_CHARACTERS = 1024
PREFIX_BYTES = 64 << 10

Header = tuple[bytes, str, int]
"""Kind, name and length of a member."""

Records = dict[str, str]
"""What a PAX or GNU header says of the member after it."""

ONLY_TIME = re.compile(rb"\d\d mtime=\d+\.\d+\n")
"""The PAX header that Python's tarfile writes for each member whose time has a fraction."""

OCTAL = re.compile(rb"[0-7]+")

_FIELDS = Struct("100s24x12s12x8sc100x6s82x155s12x")


def read_header(tar: mmap.mmap, position: int) -> Header | None:
    """Return the header at ``position``, or None where its checksum or length is wrong."""
    if position + BLOCK > len(tar):
        return None
    block = tar[position : position + BLOCK]
    name, size, stated, kind, magic, folder = _FIELDS.unpack(block)
    # The low half of adler32 is 1 + the sum of the bytes, at a tenth of the cost of sum.
    found = (adler32(block) & 0xFFFF) - (adler32(stated) & 0xFFFF) + 8 * ord(" ")
    length = _number(size)
    if (found - _number(stated)) % 65521 or length < 0:
        return None
    name = name.partition(b"\0")[0]
    if magic == b"ustar\0" and folder[0]:
        name = folder.partition(b"\0")[0] + b"/" + name
    return kind, name.decode("utf-8", "replace"), length


def after_member(position: int, length: int) -> int:
    """Return where the header after the member is whose header is at ``position``."""
    return position + BLOCK + (length + BLOCK - 1) // BLOCK * BLOCK


def read_records(kind: bytes, body: bytes) -> Records | None:
    """Read a PAX header (records ``length key=value``) or a GNU long name; None where damaged."""
    if kind == b"L":
        return _checked({"path": body.rstrip(b"\0").decode("utf-8", "replace")})
    records: Records = {}
    while body:
        size = body[:8].split(b" ", 1)[0]
        end = int(size) if size.isdigit() else 0
        key, equals, value = body[len(size) + 1 : end].partition(b"=")
        if end > len(body) or not key or not equals or not value.endswith(b"\n"):
            return None
        records[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "replace")
        body = body[end:]
    return _checked(records)


def _checked(records: Records) -> Records | None:
    """Return records whose name and size can be."""
    has_name = 0 < len(records.get("path", "?")) <= NAME_CHARACTERS
    size = records.get("size", "0")
    has_size = size.isascii() and size.isdigit() and len(size) < 20
    return records if has_name and has_size else None


def _number(field: bytes) -> int:
    """Read an octal field, or GNU's binary one for sizes from 8 GiB; -1 where it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if OCTAL.fullmatch(digits):
        return int(digits, 8)
    return -1 if digits else 0
