"""Make tars with Python's own writer, and say where every member of them lies."""

import io
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}


class Part(NamedTuple):
    """A member of a tar: its first header, its bytes, and where the next member's header is."""

    start: int
    begin: int
    length: int
    end: int


def write_tar(path: Path, members: dict[str, bytes], kind: str = "ustar", mtime: float = 0) -> Path:
    """Write a tar with Python's own writer."""
    with tarfile.open(path, "w", format=FORMATS[kind]) as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(body), mtime
            tar.addfile(info, io.BytesIO(body))
    return path


def some_members(pairs: int = 4, prefix: str = "") -> dict[str, bytes]:
    """Make the members of a few pairs as img2dataset names them, of unlike lengths."""
    members = {}
    for i in range(pairs):
        key = f"{prefix}{i:09d}"
        members[f"{key}.jpg"] = bytes([i % 255 + 1]) * (100 + 411 * (i % 90))
        members[f"{key}.txt"] = f"caption {i}".encode()
        members[f"{key}.json"] = json.dumps({"key": key, "status": "success"}).encode()
    return members


def parts_of(path: Path) -> dict[str, Part]:
    """Return where tarfile finds every member of a whole tar."""
    with tarfile.open(path) as tar:
        found = {m.name: (m.offset, m.offset_data, m.size) for m in tar}
    return {
        name: Part(start, begin, size, begin + -(-size // 512) * 512)
        for name, (start, begin, size) in found.items()
    }


def overwrite(path: Path, at: int, what: bytes) -> None:
    """Replace some bytes of a file."""
    body = bytearray(path.read_bytes())
    body[at : at + len(what)] = what
    path.write_bytes(body)


def with_sum(header: bytes | bytearray) -> bytes:
    """Return a tar header with its right checksum."""
    blank = bytes(header[:148]) + b" " * 8 + bytes(header[156:])
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]
