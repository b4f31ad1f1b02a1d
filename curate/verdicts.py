"""Who dropped which pair: a part's verdicts up to and including a leg, in one small file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from breadth.loaders.arrow_file import read_arrow, write_arrow

ALIVE = -1
POOL = 0
"""``dropped_by`` counts stages from 1; 0 is the pool itself (repeated candidates, no URL)."""


@dataclass
class Verdicts:
    """One row per candidate of a part."""

    dropped_by: np.ndarray  # int16 [rows]: ALIVE, POOL or the number of the stage
    reason: np.ndarray  # object [rows]
    witness: np.ndarray  # object [rows]
    distance: np.ndarray  # float32 [rows], NaN where there is none

    @classmethod
    def of_candidates(cls, candidates: pa.Table) -> "Verdicts":
        """Begin with what the pool itself dropped."""
        reason = np.array(candidates["_dropped"].to_pylist(), object)
        dropped = np.array([r is not None for r in reason], bool)
        rows = len(candidates)
        return cls(
            np.where(dropped, POOL, ALIVE).astype(np.int16),
            reason,
            np.full(rows, None, object),
            np.full(rows, np.nan, np.float32),
        )

    @property
    def alive(self) -> np.ndarray:
        """Return the indices of the rows that no stage has dropped."""
        return np.flatnonzero(self.dropped_by == ALIVE)

    def drop(self, rows: np.ndarray, stage: int, reasons: list[str]) -> None:
        """Drop ``rows`` for ``reasons``."""
        self.dropped_by[rows] = stage
        self.reason[rows] = reasons

    def write(self, path: Path) -> None:
        """Write the verdicts under their final name when complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "dropped_by": pa.array(self.dropped_by, pa.int16()),
                "reason": pa.array(self.reason, pa.string()),
                "witness": pa.array(self.witness, pa.string()),
                "distance": pa.array(self.distance, pa.float32(), from_pandas=True),
            }
        )
        write_arrow(path, table)

    @classmethod
    def read(cls, path: Path) -> "Verdicts":
        """Read what ``write`` wrote."""
        table = read_arrow(path)
        return cls(
            table["dropped_by"].to_numpy().copy(),
            np.array(table["reason"].to_pylist(), object),
            np.array(table["witness"].to_pylist(), object),
            table["distance"].to_numpy().copy(),
        )
