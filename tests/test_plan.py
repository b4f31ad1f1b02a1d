"""The order of pairs: a pure function that visits each once an epoch."""

from hashlib import blake2b
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.loaders.plan import Order

MASK = (1 << 64) - 1


def plain_order(
    shard_of: list[int], rows: list[int], seed: int, digest: str, epoch: int, block: int
) -> list[int]:
    """The documented order in plain integers: shards by hash, blocks, then rows by hash."""

    def finalised(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def mixed(number: int, key: int) -> int:
        return finalised((finalised(number) + key) & MASK)

    keys = blake2b(f"{seed}/{epoch}/{digest}".encode(), digest_size=16).digest()
    shard_key, row_key = (int.from_bytes(keys[i : i + 8], "little") for i in (0, 8))
    shards = sorted(range(max(shard_of) + 1), key=lambda s: mixed(s, shard_key))
    place = {shard: i // block for i, shard in enumerate(shards)}
    return sorted(rows, key=lambda r: (place[shard_of[r]], mixed(r, row_key)))


folders = st.lists(st.integers(1, 9), min_size=1, max_size=12).map(
    lambda sizes: np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
)


@given(folders, st.integers(0, 2**40), st.integers(1, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_order_is_the_documented_one(shard_of, seed, block, data) -> None:
    """Any subset of any folder in any epoch has the order that plain integers give."""
    rows = sorted(data.draw(st.sets(st.integers(0, len(shard_of) - 1), min_size=1)))
    epoch = data.draw(st.integers(0, 3))
    order = Order(shard_of, np.array(rows), seed=seed, digest="d", block_shards=block)
    n = len(rows)
    found = order.rows(epoch * n, (epoch + 1) * n).tolist()
    assert found == plain_order(shard_of.tolist(), rows, seed, "d", epoch, block)
    assert sorted(found) == rows


def some_order(rows: np.ndarray | None = None, seed: int = 0, digest: str = "d") -> Order:
    """Order 50 shards of 20 pairs in blocks of four."""
    shard_of = np.repeat(np.arange(50), 20).astype(np.int32)
    rows = np.arange(1000) if rows is None else rows
    return Order(shard_of, rows, seed=seed, digest=digest, block_shards=4)


def test_positions_run_on_over_epochs() -> None:
    """Any cutting of the positions gives the same rows as asking for all at once."""
    order = some_order()
    whole = order.rows(0, 3000).tolist()
    cuts = [0, 1, 999, 1000, 1001, 1700, 3000]
    assert [r for a, b in pairwise(cuts) for r in order.rows(a, b)] == whole
    assert order.rows(5, 5).tolist() == []


def test_epochs_seeds_and_folders_have_different_orders() -> None:
    """Epoch, seed and folder each change the order; equal ones repeat it."""
    first = some_order().rows(0, 1000).tolist()
    others = [
        some_order().rows(1000, 2000).tolist(),
        some_order(seed=1).rows(0, 1000).tolist(),
        some_order(digest="e").rows(0, 1000).tolist(),
    ]
    assert some_order().rows(0, 1000).tolist() == first
    assert all(np.mean(np.equal(first, other)) < 0.02 for other in others)


def test_a_subset_keeps_the_order_of_the_whole() -> None:
    """The pairs of a subset come in the order that they have in the whole folder."""
    rows = np.flatnonzero(np.random.default_rng(0).random(1000) < 0.3)
    whole = some_order().rows(0, 1000)
    expected = whole[np.isin(whole, rows)].tolist()
    assert some_order(rows).rows(0, len(rows)).tolist() == expected


def test_a_block_touches_few_shards() -> None:
    """Four shards of 20 pairs are read, mixed, before the next four are begun."""
    shards = some_order().rows(0, 1000) // 20
    for block in shards[:960].reshape(12, 80):
        assert len(set(block.tolist())) == 4
        assert len(set(block[:20].tolist())) > 1


def test_each_pair_is_first_equally_often() -> None:
    """Over 4,000 seeds the first of 40 pairs is spread evenly (chi-square, 39 degrees)."""
    shard_of = np.repeat(np.arange(4), 10).astype(np.int32)
    rows = np.arange(40)
    first = [Order(shard_of, rows, seed=s, digest="d").rows(0, 1)[0] for s in range(4000)]
    counts = np.bincount(first, minlength=40)
    assert ((counts - 100) ** 2 / 100).sum() < 83


def test_the_digest_tells_orders_apart() -> None:
    """Two streams may be exchanged only if seed, subset and folder are the same."""
    orders = [some_order(), some_order(seed=1), some_order(digest="e"), some_order(np.arange(999))]
    assert len({order.digest for order in orders}) == 4
    assert some_order().digest == orders[0].digest
