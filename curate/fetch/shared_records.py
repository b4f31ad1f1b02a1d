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
BUCKETS = 1 << 15  # 16 MiB if every page is touched; the file is sparse
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux; OFD locks want pid 0
_KEYS = struct.Struct("<" + f"Q{SIZE - 8}x" * WAYS)
_USED = struct.Struct("<" + f"8xd{SIZE - 16}x" * WAYS)
_SUM = struct.Struct("<I")
_NOBODYS = 2**63 - 2  # a byte that is locked to see whether that works
_PAUSES_S = (0.0, 0.00002, 0.0001, 0.0005, 0.001, 0.003)  # between tries to lock


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


class Records:
    """Records of the same ``fields`` (struct's letters) under 64-bit keys.

    A full bucket gives the place of its least recently written record to a new key. A record
    whose checksum is wrong, torn by a crash of the machine, counts as absent. It is read and
    written by pread and pwrite, not mapped: a full disk is then an error and no SIGBUS, and
    over NFS neighbours on one page do not overwrite each other. Cost: 1.5 us a read, 1.2 a
    write, 1.5 for lock and unlock. One instance a thread.
    """

    def __init__(self, file: Path, fields: str) -> None:
        self._record = struct.Struct("<Qd" + fields)
        assert self._record.size <= SIZE - _SUM.size
        self._padding = bytes(SIZE - _SUM.size - self._record.size)
        self._file = open_shared(file)
        os.ftruncate(self._file, BUCKETS * WAYS * SIZE)

    def read(self, key: int) -> tuple[int, tuple | None]:
        """Return the place of a key, and its (time written, *fields), or None if it has none."""
        start = (key % BUCKETS) * WAYS * SIZE
        bucket = os.pread(self._file, WAYS * SIZE, start)
        keys = _KEYS.unpack(bucket)
        if key not in keys:
            way = keys.index(0) if 0 in keys else _oldest(bucket)
            return start + way * SIZE, None
        way = keys.index(key) * SIZE
        end = way + SIZE - _SUM.size
        whole = crc32(bucket[way:end]) == _SUM.unpack_from(bucket, end)[0]
        return start + way, self._record.unpack_from(bucket, way)[1:] if whole else None

    def write(self, place: int, key: int, now: float, *fields: float) -> None:
        """Write a record to the place that ``read`` named, under the key's lock."""
        data = self._record.pack(key, now, *fields) + self._padding
        os.pwrite(self._file, data + _SUM.pack(crc32(data)), place)

    def lock(self, key: int, patience: int = 1) -> bool:
        """Lock the bucket of a key; False if its holder seems suspended, after 5 ms x patience."""
        for pause_s in _PAUSES_S * patience:
            if lock_byte(self._file, key % BUCKETS):
                return True
            time.sleep(pause_s)
        return False

    def unlock(self, key: int) -> None:
        """Unlock the bucket of a key."""
        unlock_byte(self._file, key % BUCKETS)

    def close(self) -> None:
        """Close the file, which releases its locks."""
        os.close(self._file)


def _oldest(bucket: bytes) -> int:
    used = _USED.unpack(bucket)
    return used.index(min(used))
