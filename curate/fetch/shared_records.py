"""A table of small records in one file that all processes of a build read and write."""

import fcntl
import os
import struct
import time
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

from breadth.loaders.errors import Failed

SIZE = 64  # bytes a record, so that none straddles a page
WAYS = 8  # records a bucket; a name belongs to one bucket
_BUCKET = WAYS * SIZE  # bytes
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux; OFD locks want pid 0
_KEYS = struct.Struct("<" + f"Q{SIZE - 8}x" * WAYS)
_USED = struct.Struct("<" + f"8xd{SIZE - 16}x" * WAYS)
_SUM = struct.Struct("<I")
_NOBODYS = 2**63 - 2  # a byte that is locked to see whether that works
_LONGEST_PAUSE_S = 0.002  # between tries to lock


def key_of(name: str) -> int:
    """Hash a name to a key of 64 bits, never 0; cost: 1 us."""
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def open_shared(file: Path) -> int:
    """Open a file for records or locks, made if need be; raises Failed if it cannot be locked."""
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if lock_byte(opened, _NOBODYS):
            unlock_byte(opened, _NOBODYS)
    except OSError as error:
        os.close(opened)
        raise Failed(f"{file}: {error.strerror}: the build needs a folder with locks") from error
    return opened


def lock_byte(file: int, offset: int) -> bool:
    """Try to lock one byte for this open file; False if another one holds it.

    An open file description owns the lock: it ends with the process, however that ends.
    """
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, offset, 1, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as POSIX has it
        return False
    return True


def unlock_byte(file: int, offset: int) -> None:
    """Release one byte."""
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, offset, 1, 0))


def lock_soon(file: int, offset: int, patience_s: float = 0.005) -> bool:
    """Lock one byte that is never held for long; False if it still is after ``patience_s``."""
    pause_s, until = 0.00002, 0.0
    while not lock_byte(file, offset):
        now = time.monotonic()
        until = until or now + patience_s
        if now > until:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return True


class Records:
    """Records of the same ``fields`` (struct's letters) under 64-bit keys.

    The file has levels of ``buckets``, each a multiple of the one before: what finds its
    bucket full lies in the next level, and in the last one takes the place of the record that
    was written least recently. So a small table stays small. A record whose checksum is
    wrong, torn by a crash of the machine, counts as absent. It is read and written by pread and
    pwrite, not mapped: a full disk is then an error and no SIGBUS, and over NFS neighbours on
    one page do not overwrite each other. Cost: 1.5 us a read and level, 1.2 a write, 1.5 for
    lock and unlock. One instance a thread.
    """

    def __init__(self, file: Path, fields: str, buckets: tuple[int, ...]) -> None:
        self._record = struct.Struct("<Qd" + fields)
        assert self._record.size <= SIZE - _SUM.size
        self._padding = bytes(SIZE - _SUM.size - self._record.size)
        self._buckets = buckets
        self._file = open_shared(file)

    def read(self, key: int) -> tuple[int, tuple | None]:
        """Return the place of a key, and its (time written, *fields), or None if it has none."""
        start = 0
        for buckets in self._buckets:
            place = start + (key % buckets) * _BUCKET
            bucket = os.pread(self._file, _BUCKET, place).ljust(_BUCKET, b"\0")
            keys = _KEYS.unpack(bucket)
            if key in keys:
                way = keys.index(key) * SIZE
                end = way + SIZE - _SUM.size
                whole = crc32(bucket[way:end]) == _SUM.unpack_from(bucket, end)[0]
                return place + way, self._record.unpack_from(bucket, way)[1:] if whole else None
            if 0 in keys:
                return place + keys.index(0) * SIZE, None
            start += buckets * _BUCKET
        used = _USED.unpack(bucket)
        return place + used.index(min(used)) * SIZE, None

    def write(self, place: int, key: int, now: float, *fields: float) -> None:
        """Write a record to the place that ``read`` named, under the key's lock."""
        data = self._record.pack(key, now, *fields) + self._padding
        os.pwrite(self._file, data + _SUM.pack(crc32(data)), place)

    def lock(self, key: int, patience_s: float = 0.005) -> bool:
        """Lock the buckets of a key; False if their holder seems suspended."""
        return lock_soon(self._file, key % self._buckets[0], patience_s)

    def unlock(self, key: int) -> None:
        """Unlock the buckets of a key."""
        unlock_byte(self._file, key % self._buckets[0])

    def close(self) -> None:
        """Close the file, which releases its locks."""
        os.close(self._file)
