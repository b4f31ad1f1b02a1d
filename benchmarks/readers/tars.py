"""Read pairs out of tars to convert them to a peer's own format."""

import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from .task import Task


def pictures(task: Task) -> Iterator[bytes]:
    """Yield the pictures of a folder's tars; a tar that has several names is read once."""
    for name in task.tars:
        yield from _pictures(Path(name).resolve().stat().st_ino, name)


@lru_cache(maxsize=1)
def _pictures(inode: int, name: str) -> list[bytes]:
    with tarfile.open(name, "r:") as tar:
        jpegs = (member for member in tar if member.name.endswith(".jpg"))
        return [file.read() for file in map(tar.extractfile, jpegs) if file]
