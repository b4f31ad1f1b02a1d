"""Put numbers in an order by hash: keys, a keyed hash and a keyed permutation."""

from hashlib import blake2b
from math import isqrt

import numpy as np

ROUNDS = 8


def keys_of(text: str, count: int) -> np.ndarray:
    """Return some keys for a purpose that ``text`` names: uint64 [count], count up to 8."""
    return np.frombuffer(blake2b(text.encode(), digest_size=8 * count).digest(), "<u8")


def mixed(numbers: np.ndarray, key: np.uint64) -> np.ndarray:
    """Hash numbers with a key: a bijection of 64 bits, so that no two are equal.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), applied before and after the
    key is added: with it only after, keys that differ little would give similar orders.
    """
    return _finalised(_finalised(numbers.astype(np.uint64)) + key)


def permuted(places: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Return where a keyed permutation of [0, size) puts some places: int64, as many as places.

    Cost: about 0.3 microseconds a place, whatever the size, and no memory. Source: a Feistel
    network over two digits (Black and Rogaway 2002, "generalised Feistel"): place = left * columns
    + right, each digit in turn shifted by a hash of the other. The few cells of the last row that
    are no place are walked through until a place is met.
    """
    columns = isqrt(max(size, 1) - 1) + 1
    lines = -(-size // columns)
    found = _shifted(places.astype(np.uint64), columns, lines, keys)
    outside = np.flatnonzero(found >= size)
    while len(outside):
        found[outside] = _shifted(found[outside], columns, lines, keys)
        outside = outside[found[outside] >= size]
    return found.astype(np.int64)


def _shifted(cells: np.ndarray, columns: int, lines: int, keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(cells, np.uint64(columns))
    for number, key in enumerate(keys):
        if number % 2:
            right = (right + mixed(left, key) % np.uint64(columns)) % np.uint64(columns)
        else:
            left = (left + mixed(right, key) % np.uint64(lines)) % np.uint64(lines)
    return left * np.uint64(columns) + right


def _finalised(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
