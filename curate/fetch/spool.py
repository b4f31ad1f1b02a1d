"""Keep encoded pictures on disk until a part is whole, so that memory holds none of them."""

import os
import tempfile
from pathlib import Path

import numpy as np


class Spool:
    """Pictures in a file without a name: written as they come, read by row.

    ``lay`` says which picture each row has; several rows may share one. The file is the kernel's
    to free as soon as nobody holds it, however this process ends.
    """

    def __init__(self, folder: Path, pictures: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._offsets = np.zeros(pictures, np.int64)
        self._lengths = np.full(pictures, -1, np.int64)
        self._rows = np.arange(pictures)
        self._end = 0

    def put(self, number: int, picture: bytes) -> None:
        """Keep picture ``number``; raises OSError where the disk is full."""
        written = 0
        while written < len(picture):  # a raw file may take less than it is given
            written += self._file.write(picture[written:])
        self._offsets[number], self._lengths[number] = self._end, len(picture)
        self._end += len(picture)

    def lay(self, rows: np.ndarray) -> None:
        """Give row i the picture ``rows[i]``, or none where that is -1."""
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> bytes | None:
        number = int(self._rows[row])  # IndexError ends an iteration
        length = int(self._lengths[number]) if number >= 0 else -1
        if length < 0:
            return None
        return os.pread(self._file.fileno(), length, int(self._offsets[number]))
