"""Which kept pair goes into which shard, and what the files of shards in the making are called."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from .legs import Leg, digest
from .workspace import Workspace

Rows = tuple[tuple[int, np.ndarray], ...]
"""Which rows of which parts, in order."""


@dataclass(frozen=True)
class Layout:
    """Which kept pairs go into which shard: sizes differ by one at most."""

    workspace: Workspace
    legs: tuple[Leg, ...]
    kept: tuple[np.ndarray, ...]  # by part
    pairs_per_shard: int

    @cached_property
    def shards(self) -> tuple[Rows, ...]:
        """Return the rows of every shard, in the order of parts."""
        part = np.repeat(np.arange(len(self.kept)), [len(rows) for rows in self.kept])
        row = np.concatenate(self.kept) if len(part) else np.array([], np.int64)
        count = -(-len(part) // self.pairs_per_shard)
        edges = [len(part) * i // count for i in range(count + 1)] if count else [0]
        return tuple(
            tuple((int(p), row[a:b][part[a:b] == p]) for p in np.unique(part[a:b]))
            for a, b in pairwise(edges)
        )

    @property
    def key(self) -> str:
        """Return a fingerprint of what the shards will hold."""
        return digest([self.legs[-1].verdict, self.pairs_per_shard])[:16]

    @property
    def new(self) -> Path:
        """Return the folder the shards are written in before they take their place."""
        return self.workspace.out / f"shards.new-{self.key}"

    def record(self, number: int) -> Path:
        """Return the record of a finished shard."""
        return self.records / f"{number:05d}.json"

    @property
    def records(self) -> Path:
        """Return the folder of the records of finished shards."""
        return self.workspace.parts / f"shards-{self.key}"
