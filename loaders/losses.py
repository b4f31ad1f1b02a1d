"""Hold a stream to its budget of losses: planned = delivered + quarantined, all written down."""

from pathlib import Path
from typing import Any

import numpy as np

from .errors import ShardError
from .folder import Folder
from .pipeline import Making
from .plan import Order
from .quarantine import read_quarantine, write_quarantine


class Losses:
    """Counts one rank's pairs, and writes those that were replaced to ``path``, a folder."""

    def __init__(
        self,
        folder: Folder,
        order: Order,
        batch_pairs: int,
        rank: int,
        path: str | Path | None,
        budget_ppm: float,
    ) -> None:
        self._folder, self._order = folder, order
        self._batch_pairs, self._rank, self._budget_ppm = batch_pairs, rank, budget_ppm
        self._path = None if path is None else Path(path)
        self._planned, self._delivered = 0, 0
        self._substitutes: dict[int, str] = {}

    def accounts(self) -> dict[str, int]:
        """Return the pairs so far: planned = delivered + quarantined."""
        lost = len(self._substitutes)
        return {"planned": self._planned, "delivered": self._delivered, "quarantined": lost}

    def substitutes(self) -> dict[int, str]:
        """Return the uid that came at each position whose own pair did not."""
        if self._path is None:
            return self._substitutes
        table = read_quarantine(self._path)
        written = zip(table["position"].to_pylist(), table["substitute"].to_pylist(), strict=True)
        return dict(written) | self._substitutes

    def bearable(self, pairs: int) -> int:
        """Return how many of the next ``pairs`` may be lost.

        The budget is of an epoch's pairs in all, so that one rank of many is not stopped for a few
        that happen to come early.
        """
        counted = max(len(self._order), self._planned + pairs)
        return int(self._budget_ppm * counted / 1e6) - len(self._substitutes)

    def count(self, made: Making, rows: np.ndarray) -> None:
        """Enter a batch whose slot holds ``rows``; raises ShardError beyond the budget."""
        if len(made.lost) > self.bearable(len(rows)):
            self._refuse(made)
        self._planned += len(rows)
        self._delivered += len(rows) - len(made.lost)
        if not made.lost:
            return
        entries = [self._entry(made, place, int(rows[place])) for place in sorted(made.lost)]
        self._substitutes |= {entry["position"]: entry["substitute"] for entry in entries}
        if self._path is not None:
            write_quarantine(self._path, self._rank, entries)

    def _entry(self, made: Making, place: int, substitute: int) -> dict[str, Any]:
        row, fault = made.lost[place]
        index, position = self._folder.pieces, made.start + place
        return {
            "position": position,
            "epoch": position // len(self._order),
            "step": position // self._batch_pairs,
            "rank": self._rank,
            "uid": index["uid"][row].as_py(),
            "shard": self._folder.shards[int(self._folder.shard_of[row])].name,
            "key": index["key"][row].as_py(),
            "offset": index["image_offset"][row].as_py(),
            "error": fault.error,
            "message": fault.message,
            "substitute": index["uid"][substitute].as_py(),
        }

    def _refuse(self, made: Making) -> None:
        row, fault = made.lost[min(made.lost)]
        lost = len(self._substitutes) + len(made.lost)
        message = fault.message
        if fault.error != ShardError.__name__:  # whose messages name the pair
            message = f"{self._folder.name_of(row)} cannot be decoded ({message})"
        raise ShardError(
            f"{message}; with it {lost} of {max(len(self._order), self._planned):,} pairs are lost,"
            f" more than the budget of {self._budget_ppm:g} in a million: leave such uids out with"
            " --subset, or mend the folder"
        )
