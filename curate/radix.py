"""Keep exactly the first k of any number of rows, without ever sorting them in one place.

A row's key is one or two unsigned 64-bit words, most significant first. Each look counts, part by
part, the 16 bits that decide next among the rows that are still undecided; the counts of all parts
merge by addition. Four looks settle a word, so a second word (a hash of the uid) breaks ties.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.errors import RecipeError

DIGIT_BITS = 16
BINS = 1 << DIGIT_BITS
LOOKS_PER_WORD = 64 // DIGIT_BITS

Words = Sequence[np.ndarray]
States = tuple[np.ndarray, ...]


def ordered(values: pa.ChunkedArray, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Turn numbers into unsigned integers of the same order.

    Returns uint64 [n] and bool [n], False where the value is null or NaN.
    Raises RecipeError where the column holds no numbers.
    """
    kind = values.type
    if pa.types.is_floating(kind):
        numbers = pc.fill_null(values.cast(pa.float64()), np.nan).to_numpy()
        # -0.0 and 0.0 are equal and must tie; adding zero makes both 0.0.
        bits = np.ascontiguousarray(numbers + 0.0).view(np.uint64)
        negative = bits >> np.uint64(63) == 1
        return np.where(negative, ~bits, bits | np.uint64(1 << 63)), ~np.isnan(numbers)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        valid = pc.is_valid(values).to_numpy()
        if pa.types.is_uint64(kind):
            return pc.fill_null(values, 0).to_numpy(), valid
        signed = pc.fill_null(values, False if pa.types.is_boolean(kind) else 0).cast(pa.int64())
        return signed.to_numpy().view(np.uint64) ^ np.uint64(1 << 63), valid
    raise RecipeError(f"column {column!r} holds {kind}, not numbers; name a column of numbers")


def uid_hash(uids: pa.ChunkedArray, seed: int = 0) -> np.ndarray:
    """Hash each uid, keyed by ``seed``: uint64 [n], the same whatever part a pair is in."""
    key = seed.to_bytes(8, "little", signed=True)
    digests = b"".join(
        blake2b(uid.encode(), digest_size=8, key=key).digest() for uid in uids.to_pylist()
    )
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _narrow(states: States, keep: Callable[[int], int]) -> tuple[list[int], bool]:
    """Return the digits that are decided, and whether they settle every row."""
    digits: list[int] = []
    wanted = keep(int(states[0].sum())) if states else 0
    for state in states:
        reach = np.cumsum(state)
        digit = int(np.searchsorted(reach, wanted)) if wanted else -1
        digits.append(digit)
        if digit < 0 or reach[digit] == wanted:
            return digits, True
        wanted -= int(reach[digit - 1]) if digit else 0
    return digits, False


def _digit(words: Words, look: int) -> np.ndarray:
    word, place = divmod(look, LOOKS_PER_WORD)
    shift = np.uint64(64 - DIGIT_BITS * (place + 1))
    return (words[word] >> shift & np.uint64(BINS - 1)).astype(np.int64)


def count(words: Words, states: States, keep: Callable[[int], int]) -> np.ndarray:
    """Count the next digit of the rows that earlier looks left undecided: int64 [65536].

    ``keep`` says how many rows stay, given how many there are in all. Returns int64 [1] where
    nothing is undecided any more.
    """
    digits, settled = _narrow(states, keep)
    if settled:
        return np.zeros(1, np.int64)
    undecided = np.ones(len(words[0]), bool)
    for look, digit in enumerate(digits):
        undecided &= _digit(words, look) == digit
    return np.bincount(_digit(words, len(states))[undecided], minlength=BINS)


def first(words: Words, states: States, keep: Callable[[int], int]) -> np.ndarray:
    """Say which rows are among the first ``keep(n)`` by key: bool [n]."""
    digits, _ = _narrow(states, keep)
    ahead = np.zeros(len(words[0]), bool)
    level = np.ones(len(words[0]), bool)
    for look, digit in enumerate(digits):
        place = _digit(words, look)
        ahead |= level & (place < digit)
        level &= place == digit
    return ahead | level
