"""What a loader is asked to do, and what is measured of it, as JSON between two processes."""

import json
from collections.abc import Iterator, Sized
from dataclasses import asdict, dataclass
from pathlib import Path

WORKERS = 2
BATCH_PAIRS = 64
TAR_PAIRS = 500


@dataclass(frozen=True)
class Task:
    """One pass of a loader over a folder, in the loader's own format."""

    folder: str  # of tars, or of what ``convert`` made of them
    warm_pairs: int = 0  # read before the clock starts
    pairs: int = 1 << 62  # read then, or as many as ``seconds`` allow
    seconds: float = 1e9
    px: int = 224
    decoder: str = "simplejpeg"
    keep: str = ""  # a text file of the subset's keys, or of its uids
    state: str = ""  # a JSON file, of a loader that stores its state
    position: int = 0  # pairs of the epoch that were seen before
    device: str = ""  # where a ViT-B/16 is trained on what comes
    to: str = ""  # what ``convert`` writes

    def write(self, file: Path) -> None:
        """Write the task as JSON."""
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> "Task":
        """Read a task."""
        return cls(**json.loads(file.read_text()))

    @property
    def tars(self) -> list[str]:
        """The folder's tars, in order."""
        return sorted(str(path) for path in Path(self.folder).glob("*.tar"))

    @property
    def kept(self) -> list[str]:
        """The lines of ``keep``."""
        return Path(self.keep).read_text().split()


Batches = Iterator[Sized]
"""Tensors uint8 [B, px, px, 3] or [B, 3, px, px], or lists of pairs as they lie in the tar."""


@dataclass(frozen=True)
class Measured:
    """What was measured after the imports; times are of the whole session's processes."""

    first_s: float  # until the first batch
    first_cpu_s: float
    pairs: int
    wall_s: float
    cpu_s: float
    stalled_s: float  # of the wall time, waiting for the loader
