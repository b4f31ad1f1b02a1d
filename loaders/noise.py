"""Exchange an exact share of the captions, to see what wrong captions do to training."""

from typing import TYPE_CHECKING

import numpy as np

from .errors import PoolError, Refused
from .shuffle import keys_of, mixed

if TYPE_CHECKING:
    from .folder import Folder


class CaptionNoise:
    """Says whose caption each pair is given: ``givers`` are for ``takers``, both rows."""

    def __init__(self, takers: np.ndarray, givers: np.ndarray) -> None:
        order = np.argsort(takers)
        self._takers, self._givers = takers[order], givers[order]

    def __len__(self) -> int:
        """Return how many captions are exchanged."""
        return len(self._takers)

    def givers(self, rows: np.ndarray) -> np.ndarray:
        """Return the row that gives each row its caption: int64, mostly the row itself."""
        if not len(self):
            return rows
        places = np.minimum(np.searchsorted(self._takers, rows), len(self) - 1)
        return np.where(self._takers[places] == rows, self._givers[places], rows)


def resolve_noise(folder: "Folder", rows: np.ndarray, share: float, seed: int) -> CaptionNoise:
    """Exchange ``round(share * len(rows))`` captions of ``rows`` among themselves.

    No pair of them keeps its own; one that gets another's may still read the same words, where two
    captions are equal. Which pairs they are and who gives to whom are hashes of uid and seed, so
    they depend on no order of rows or shards, and a greater share keeps the pairs of a smaller one.
    The exchange is one ring: a uniform draw of the permutations of a single cycle. Raises Refused
    for a share that is none, PoolError where it is a single pair. Cost: a microsecond a pair.
    """
    if not 0 <= share <= 1:
        raise Refused(f"a caption noise of {share} is no share: give 0 to 1")
    count = round(share * len(rows))
    if not count:
        return CaptionNoise(np.empty(0, np.int64), np.empty(0, np.int64))
    if count == 1:
        least = f" or at least {2 / len(rows):.3g}" if len(rows) > 1 else ""
        raise PoolError(
            f"a caption noise of {share} is one pair of {len(rows)}, and an exchange takes two: "
            f"give 0{least}"
        )
    uids = _halves(folder, rows)
    chosen = _ordered(uids, f"noise/pairs/{seed}")[:count]
    ring = chosen[_ordered(uids[chosen], f"noise/ring/{seed}")]
    return CaptionNoise(rows[ring], rows[np.roll(ring, -1)])


def _halves(folder: "Folder", rows: np.ndarray) -> np.ndarray:
    """Return the high and low 64 bits of some rows' uids: uint64 [rows, 2]."""
    digits = "".join(folder.uids_of(rows))
    return np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, 2).astype(np.uint64)


def _ordered(uids: np.ndarray, purpose: str) -> np.ndarray:
    """Return the order of uids by a hash of all their bits; of equal hashes by the uids."""
    high_key, low_key = keys_of(purpose, 2)
    hashes = mixed(mixed(uids[:, 0], high_key) ^ uids[:, 1], low_key)
    return np.lexsort((uids[:, 1], uids[:, 0], hashes))
