"""What a stage that fetches is given besides its pairs: places on disk, and where to tell of it.

One such stage sees a whole part at once, which can take an hour and more memory than there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa


@dataclass
class Scratch:
    """The places of one try at one part; every folder is there, ``live`` is not yet."""

    part: Path
    """Folder of this try alone; it goes when the part is written, or the try has failed."""
    journal: Path
    """Folder of this part that outlives its tries, until the build is done."""
    shared: Path
    """One folder for all running parts of the build, until it is done."""
    live: Path
    """File to replace about once a second: JSON figures of this part, as ``live.py`` sums them."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by phase, to be filled by the stage."""

    @classmethod
    def within(cls, folder: Path) -> "Scratch":
        """Make the places of a stage that is called by itself."""
        part, journal, shared = (folder / name for name in ("part", "journal", "shared"))
        for place in (part, journal, shared):
            place.mkdir()
        return cls(part, journal, shared, folder / "live.json")


class Fetches(Protocol):
    """What a network stage's ``annotate`` takes; pictures may come as any sequence."""

    def annotate(self, pairs: pa.Table, *, scratch: Scratch | None = None) -> Mapping[str, Any]:
        """Measure each pair of a part; without ``scratch`` the stage makes places of its own."""
        ...
