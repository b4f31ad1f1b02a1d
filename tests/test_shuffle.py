"""The keyed permutation: every place once, well mixed, another for every key."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.loaders.shuffle import ROUNDS, keys_of, mixed, permuted

MASK = (1 << 64) - 1


def plain_permuted(place: int, size: int, keys: list[int]) -> int:
    """The documented permutation of one place, in plain integers."""

    def finalised(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    columns = 1
    while columns * columns < size:
        columns += 1
    lines = -(-size // columns)
    while True:
        left, right = divmod(place, columns)
        for number, key in enumerate(keys):
            if number % 2:
                right = (right + finalised((finalised(left) + key) & MASK) % columns) % columns
            else:
                left = (left + finalised((finalised(right) + key) & MASK) % lines) % lines
        place = left * columns + right
        if place < size:
            return place


@given(st.integers(1, 3000), st.text(max_size=5))
@settings(max_examples=100, deadline=None)
def test_every_place_is_met_once(size: int, purpose: str) -> None:
    """Whatever the size and the keys, it is a bijection of [0, size)."""
    found = permuted(np.arange(size), size, keys_of(purpose, ROUNDS))
    assert sorted(found.tolist()) == list(range(size))


@given(st.integers(1, 2**40), st.integers(0, 2**40), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_it_is_the_documented_one(size: int, place: int, seed: int) -> None:
    """A single place of a permutation of up to 2^40 is what plain integers give."""
    size = min(size, 2**24) if size % 3 else size  # plain_permuted counts up to a square root
    keys = keys_of(f"{seed}", ROUNDS)
    found = permuted(np.array([place % size]), size, keys)
    assert found.tolist() == [plain_permuted(place % size, size, keys.tolist())]


def test_a_cut_asks_for_no_more_than_its_places() -> None:
    """Places may be asked for in any pieces: there is no state."""
    keys = keys_of("cut", ROUNDS)
    whole = permuted(np.arange(1009), 1009, keys)
    pieces = [permuted(np.arange(a, a + 10), 1009, keys) for a in range(0, 999, 10)]
    assert np.concatenate(pieces).tolist() == whole[:1000].tolist()
    assert len(permuted(np.arange(0), 1009, keys)) == 0


def test_every_pair_of_place_and_value_is_as_likely() -> None:
    """Over 6,000 keys each value is at each of 12 places equally often (chi-square, 121 d.f.)."""
    counts = np.zeros((12, 12))
    for key in range(6_000):
        counts[np.arange(12), permuted(np.arange(12), 12, keys_of(f"{key}", ROUNDS))] += 1
    expected = 6_000 / 12
    assert ((counts - expected) ** 2 / expected).sum() < 205  # 121 + 5.4 sigma


@pytest.mark.parametrize("change", ["key", "size"])
def test_other_keys_and_sizes_give_unlike_orders(change: str) -> None:
    """Of 10,000 places about one stays where it was."""
    first = permuted(np.arange(10_000), 10_000, keys_of("a", ROUNDS))
    other = (
        permuted(np.arange(10_000), 10_000, keys_of("b", ROUNDS))
        if change == "key"
        else permuted(np.arange(10_000), 10_001, keys_of("a", ROUNDS))
    )
    assert (first == other).sum() < 12
    assert (first == np.arange(10_000)).sum() < 12


def test_no_two_numbers_have_one_hash() -> None:
    """The hash is a bijection, so that an order by it has no ties."""
    found = mixed(np.arange(100_000), keys_of("a", 1)[0])
    assert len(np.unique(found)) == 100_000
