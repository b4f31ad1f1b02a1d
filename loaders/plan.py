"""Say which pair comes when: a pure function, so nothing has to be remembered but a position.

Positions count visits from 0 and run on through all epochs; epoch e is positions [e n, (e + 1) n).

``block``: the shards are put in an order by hash and cut into blocks, and the visits of a block
are put in an order by hash. So a reader touches few shards at a time, no generator's state exists,
and a subset keeps the order that its pairs have in the whole. ``global``: the visits are put in an
order by a keyed permutation, which mixes best and touches every shard all the time.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from .errors import Refused
from .shuffle import ROUNDS, keys_of, mixed, permuted
from .weights import draw_visits, in_units, total_visits

BLOCK_SHARDS = 64  # a batch of 1,024 then holds pairs of about 64 shards
SHUFFLES = ("block", "global")
COPY_SHIFT = np.uint64(48)  # rows are below 2^48: a pair's second visit has a hash of its own
MEASURED_BATCHES = 16


class Blocks(NamedTuple):
    """How one epoch is cut: block b holds ``shards[64 b : 64 (b + 1)]`` from ``starts[b]`` on."""

    visits: np.ndarray  # rows, ascending
    begins: np.ndarray  # where each shard begins in visits
    shards: np.ndarray  # in the epoch's order
    starts: np.ndarray  # in positions of the epoch
    key: np.uint64


class Order:
    """The order of some rows: ``shard_of`` is the shard of every row of the folder, ascending.

    ``rows`` are those that take part (a subset), ascending; ``digest`` identifies the folder's
    content. ``visits`` are each row's mean visits in an epoch (``weights.resolve_weights``); one
    each by default. Raises Refused for another shuffle.
    """

    def __init__(
        self,
        shard_of: np.ndarray,
        rows: np.ndarray,
        *,
        seed: int,
        digest: str,
        shuffle: str = "block",
        visits: np.ndarray | None = None,
        block_shards: int = BLOCK_SHARDS,
    ) -> None:
        if shuffle not in SHUFFLES:
            raise Refused(f"there is no shuffle {shuffle!r}: choose block or global")
        self._shards = int(shard_of.max()) + 1
        self._shard_of = shard_of
        self._rows = rows
        once = visits is None or (visits == 1).all()
        self._units = None if visits is None or once else in_units(visits)
        self._pairs = len(rows) if self._units is None else total_visits(self._units)
        self._seed, self._content = seed, digest
        self._shuffle, self._block_shards = shuffle, block_shards
        self._visits = lru_cache(maxsize=2)(self._draw)  # a batch may cross one border
        self._blocks = lru_cache(maxsize=2)(self._cut)
        self._block = lru_cache(maxsize=4)(self._shuffled_block)

    def __len__(self) -> int:
        """Return the visits of an epoch: of every epoch as many."""
        return self._pairs

    @property
    def visited(self) -> np.ndarray:
        """The rows that any epoch may visit: those that take part, less those of no weight."""
        return self._rows if self._units is None else self._rows[self._units > 0]

    @property
    def identity(self) -> dict[str, str]:
        """All that the order depends on, in short: streams with equal ones may be continued."""
        everything = len(self._rows) == len(self._shard_of)
        name = f"block{self._block_shards}" if self._shuffle == "block" else "global"
        return {
            "data": self._content[:8],
            "subset": "all" if everything else _short_hash(self._rows),
            "weights": "none" if self._units is None else _short_hash(self._units),
            "order": f"{name}/seed{self._seed}",
        }

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the rows at positions [start, stop): int64 [stop - start]."""
        pieces = []
        while start < stop:
            epoch, first = divmod(start, len(self))
            last = min(len(self), first + stop - start)
            pieces.append(self._epoch_rows(epoch, first, last))
            start += last - first
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def substitute(self, position: int, attempt: int) -> int:
        """Return a row to take at a position whose own cannot be read, drawn as visits are."""
        visits = self._visits(position // len(self))
        key = keys_of(f"substitute/{position}/{attempt}/{self._seed}/{self._content}", 1)[0]
        return int(visits[int(key) % len(visits)])

    def shards_per_batch(self, batch_pairs: int) -> float:
        """Return how many shards a batch is mixed of: the mean over some batches of epoch 0."""
        batches = max(1, len(self) // batch_pairs)
        some = sorted({batches * i // MEASURED_BATCHES for i in range(MEASURED_BATCHES)})
        starts = [number * batch_pairs for number in some]
        found = [self._shard_of[self.rows(start, start + batch_pairs)] for start in starts]
        return float(np.mean([len(np.unique(shards)) for shards in found]))

    def _epoch_rows(self, epoch: int, first: int, last: int) -> np.ndarray:
        if self._shuffle == "global":
            keys = keys_of(f"global/{self._epoch_name(epoch)}", ROUNDS)
            return self._visits(epoch)[permuted(np.arange(first, last), len(self), keys)]
        starts, pieces = self._blocks(epoch).starts, []
        while first < last:
            number = int(np.searchsorted(starts, first, side="right")) - 1
            end = min(last, int(starts[number + 1]))
            begin = int(starts[number])
            pieces.append(self._block(epoch, number)[first - begin : end - begin])
            first = end
        return np.concatenate(pieces)

    def _epoch_name(self, epoch: int) -> str:
        return f"{self._seed}/{epoch}/{self._content}"

    def _draw(self, epoch: int) -> np.ndarray:
        """Return every row as often as one epoch visits it, ascending."""
        if self._units is None:
            return self._rows
        return draw_visits(self._rows, self._units, f"visits/{self._epoch_name(epoch)}")

    def _cut(self, epoch: int) -> Blocks:
        """Put the shards of an epoch in order. Cost: O(shards log n)."""
        shard_key, row_key = keys_of(self._epoch_name(epoch), 2)
        shards = np.argsort(mixed(np.arange(self._shards), shard_key))
        visits = self._visits(epoch)
        edges = np.searchsorted(self._shard_of, np.arange(self._shards + 1))
        begins = np.searchsorted(visits, edges)
        sizes = np.diff(begins)[shards]
        per_block = np.add.reduceat(sizes, np.arange(0, self._shards, self._block_shards))
        starts = np.concatenate([[0], np.cumsum(per_block)])
        return Blocks(visits, begins, shards, starts, row_key)

    def _shuffled_block(self, epoch: int, number: int) -> np.ndarray:
        blocks, size = self._blocks(epoch), self._block_shards
        shards = blocks.shards[number * size : (number + 1) * size]
        ranges = zip(blocks.begins[shards], blocks.begins[shards + 1], strict=True)
        rows = np.concatenate([blocks.visits[begin:end] for begin, end in ranges])
        names = rows.astype(np.uint64)
        if self._units is not None:
            names |= _copies(rows) << COPY_SHIFT
        return rows[np.argsort(mixed(names, blocks.key))]


def _copies(rows: np.ndarray) -> np.ndarray:
    """Number the visits of each row, from 0; equal rows lie together."""
    places = np.arange(len(rows))
    is_first = np.append(True, rows[1:] != rows[:-1])[: len(rows)]
    return (places - np.maximum.accumulate(np.where(is_first, places, 0))).astype(np.uint64)


def _short_hash(numbers: np.ndarray) -> str:
    return blake2b(numbers.astype("<i8").tobytes(), digest_size=4).hexdigest()
