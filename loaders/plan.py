"""Say which pair comes when: a pure function, so nothing has to be remembered but a position.

Positions count pairs from 0 and run on through all epochs; epoch e is positions [e n, (e + 1) n).
Within an epoch the shards are put in an order by hash and cut into blocks, and the pairs of a
block are put in an order by hash. So a reader touches few shards at a time, no generator's state
exists, and a subset keeps the order that its pairs have in the whole.
"""

from functools import lru_cache
from hashlib import blake2b

import numpy as np

BLOCK_SHARDS = 64  # a batch of 1,024 then holds pairs of about 64 shards


class Order:
    """The order of some rows: ``shard_of`` is the shard of every row of the folder.

    ``rows`` are those that take part (a subset), ``digest`` identifies the folder's content.
    """

    def __init__(
        self,
        shard_of: np.ndarray,
        rows: np.ndarray,
        *,
        seed: int,
        digest: str,
        block_shards: int = BLOCK_SHARDS,
    ) -> None:
        self._shards = int(shard_of.max()) + 1
        self._shard_of = shard_of[rows]
        self._rows = rows
        self.seed = seed
        self._content = digest
        self._block_shards = block_shards
        self.epoch_rows = lru_cache(maxsize=2)(self._epoch_rows)  # a batch may cross one border

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def digest(self) -> str:
        """A hash of all that the order depends on: streams with equal digests may be continued."""
        state = blake2b(f"{self._content}/{self.seed}/{self._block_shards}".encode(), digest_size=8)
        state.update(self._rows.astype("<i8").tobytes())
        return state.hexdigest()

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the rows at positions [start, stop): int64 [stop - start]."""
        pairs = len(self)
        pieces = []
        while start < stop:
            epoch, first = divmod(start, pairs)
            last = min(pairs, first + stop - start)
            pieces.append(self.epoch_rows(epoch)[first:last])
            start += last - first
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def _epoch_rows(self, epoch: int) -> np.ndarray:
        """Return every row once, in the order of one epoch. Cost: O(n log n), 8 B a pair."""
        key = f"{self.seed}/{epoch}/{self._content}".encode()
        shard_key, row_key = np.frombuffer(blake2b(key, digest_size=16).digest(), "<u8")
        place = np.empty(self._shards, np.int64)
        place[np.argsort(_mixed(np.arange(self._shards), shard_key))] = np.arange(self._shards)
        block = place[self._shard_of] // self._block_shards
        return self._rows[np.lexsort((_mixed(self._rows, row_key), block))]


def _mixed(numbers: np.ndarray, key: np.uint64) -> np.ndarray:
    """Hash numbers with a key: a bijection of 64 bits, so that no two are equal.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), applied before and after the
    key is added: with it only after, keys that differ little would give similar orders.
    """
    return _finalised(_finalised(numbers.astype(np.uint64)) + key)


def _finalised(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
