"""Keep the parts of far shards that were read on disk, bounded, for all processes of a machine.

Every shard has one sparse file: its bytes at their own offsets, and after them one byte for each
block that says whether it is here. That byte is written after its block, so a killed process leaves
no torn entry; a machine that goes down might, so what an earlier boot left is not used.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fcntl import F_OFD_SETLK, F_WRLCK, fcntl
from pathlib import Path
from struct import pack
from threading import Lock

from .errors import OutputError

BLOCK = 4096
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CLAIM_S = 60  # a process that holds a claim for longer has stopped
_POLL_S = 0.01
_LOW, _LOOK = 0.9, 1 / 16  # parts of the bound: what is left after trimming, and how often to look


class PartialShard:
    """What is here of one shard. Closing frees it if the cache has dropped it meanwhile."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._marks = -(-size // BLOCK) * BLOCK
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        total = self._marks + self._marks // BLOCK
        if os.fstat(self._file).st_size != total:
            os.ftruncate(self._file, total)
        os.utime(self._file)  # the cache drops what was used longest ago

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def has(self, start: int, stop: int) -> bool:
        """Say whether all of [start, stop) is here."""
        first, last = start // BLOCK, -(-stop // BLOCK)
        marks = os.pread(self._file, last - first, self._marks + first)
        return marks == b"\1" * (last - first)

    def read(self, start: int, stop: int) -> bytes:
        """Return [start, stop), which must be here."""
        return os.pread(self._file, stop - start, start)

    def write(self, start: int, body: bytes) -> None:
        """Put ``body`` at ``start``; both ends are borders of blocks, or the shard's end."""
        _write(self._file, start, body)
        blocks = -(-len(body) // BLOCK)
        _write(self._file, self._marks + start // BLOCK, b"\1" * blocks)

    @contextmanager
    def claimed(self, start: int, stop: int) -> Iterator[None]:
        """Keep other threads and processes from fetching [start, stop), too.

        Only saves work: the claim of a process that has died is void, that of a stopped one ends.
        """
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # the cache has dropped it: nobody else will look for it
            yield
            return
        try:
            _lock(file, start // BLOCK, -(-stop // BLOCK))
            yield
        finally:
            os.close(file)  # ends the lock


class ShardCache:
    """The partial shards in a folder, of which at most ``limit_bytes`` are kept (and a 16th)."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        boot = BOOT_ID.read_text().strip()
        self._folder, self._limit = folder, limit_bytes
        self._place = folder / boot
        self._unseen, self._trimming = 0, Lock()
        try:
            self._place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot hold a cache: give another cache_dir") from error

    def open(self, name: str, size: int) -> PartialShard:
        """Open what is here of a shard; ``name`` says which, and which version."""
        return PartialShard(self._place / f"{name}.part", size)

    def count(self, written: int) -> None:
        """Count bytes that were written, and drop the shards used longest ago where too many."""
        with self._trimming:
            self._unseen += written
            if self._unseen < self._limit * _LOOK:
                return
            self._unseen = 0
            self._trim()

    def _trim(self) -> None:
        entries = []
        for path in self._folder.glob("*/*.part"):
            with suppress(FileNotFoundError):
                found = path.stat()
                entries.append((found.st_mtime_ns, found.st_blocks * 512, path))
        total = sum(size for _, size, _ in entries)
        if total <= self._limit:
            return
        for _, size, path in sorted(entries):
            if total <= self._limit * _LOW:
                break
            path.unlink(missing_ok=True)
            total -= size


def extents(
    stretches: Iterable[tuple[int, int]], *, size: int, grain: int, gap: int, longest: int
) -> list[tuple[int, int]]:
    """Return what to fetch for some stretches of a shard of ``size`` bytes, as few extents.

    Each is rounded out to multiples of ``grain``; those up to ``gap`` apart become one, and none is
    longer than ``longest``.
    """
    merged: list[list[int]] = []
    for start, stop in sorted(stretches):
        first, last = start // grain * grain, min(size, -(-stop // grain) * grain)
        if merged and first - merged[-1][1] <= gap:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return [
        (at, min(stop, at + longest))
        for start, stop in merged
        for at in range(start, stop, longest)
    ]


def _lock(file: int, first: int, last: int) -> None:
    """Lock a range of a file for this opening of it, which threads do not share."""
    wanted = pack("hhqqi4x", F_WRLCK, os.SEEK_SET, first, last - first, 0)
    ends = time.monotonic() + CLAIM_S
    while time.monotonic() < ends:
        try:
            fcntl(file, F_OFD_SETLK, wanted)
        except BlockingIOError:
            time.sleep(_POLL_S)
        else:
            return


def _write(file: int, at: int, body: bytes) -> None:
    rest = memoryview(body)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written
