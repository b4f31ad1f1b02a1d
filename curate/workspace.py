"""Where everything of a build lies: names of files, and nothing else."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from breadth.loaders.arrow_file import read_arrow

from .legs import Leg
from .part_store import PartStore
from .scratch import Scratch
from .verdicts import Verdicts


@dataclass(frozen=True)
class Workspace:
    """The paths of a build folder, and the small files every task reads."""

    out: Path

    @property
    def parts(self) -> Path:
        """Return the folder that holds the state of record while building."""
        return self.out / "parts"

    def candidates_file(self, part: int) -> Path:
        """Return the file of a part's candidates."""
        return self.parts / "pool" / f"{part:05d}.arrow"

    def candidates(self, part: int) -> pa.Table:
        """Read a part's candidates."""
        return read_arrow(self.candidates_file(part))

    def store(self, leg: Leg, part: int) -> PartStore:
        """Return what a leg has measured of a part."""
        return PartStore(self.parts / leg.folder, part, leg.retry_round)

    def verdict_file(self, leg: Leg, part: int, name: str = "") -> Path:
        """Return the file of the verdicts after a leg; ``local`` is before its barrier."""
        return self.verdict_folder(leg) / f"{part:05d}{name}.arrow"

    def verdict_folder(self, leg: Leg) -> Path:
        """Return the folder of the verdicts after a leg."""
        return self.parts / f"verdicts-{leg.number:02d}-{leg.verdict[:16]}"

    def verdicts_before(self, leg: Leg, previous: Leg | None, part: int) -> Verdicts:
        """Return the verdicts with which a part enters a leg."""
        if previous is None:
            return Verdicts.of_candidates(self.candidates(part))
        return Verdicts.read(self.verdict_file(previous, part))

    @property
    def fetching(self) -> Path:
        """Return the folder that all running parts share, which goes when the build is done."""
        return self.out / "fetching"

    @property
    def live(self) -> Path:
        """Return the folder in which running parts say how they fare."""
        return self.out / "live"

    def scratch(self, leg: Leg, part: int, own: Path) -> Scratch:
        """Make the places of one try at a part, ``own`` for itself alone."""
        journal = self.fetching / "journal" / leg.folder / f"{part:05d}"
        for folder in (own, journal, self.live):
            folder.mkdir(parents=True, exist_ok=True)
        return Scratch(own, journal, self.fetching, self.live / f"{part:05d}.json")

    def ledger_file(self, part: int) -> Path:
        """Return the ledger's file of a part."""
        return self.out / "ledger" / f"{part:05d}.parquet"

    def thumbs_file(self, part: int) -> Path:
        """Return the tar of a part's thumbnails."""
        return self.out / "thumbs" / f"{part:05d}.tar"
