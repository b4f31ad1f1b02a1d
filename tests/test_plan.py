"""The order of pairs: a pure function that visits each once an epoch."""

from hashlib import blake2b, sha256
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.loaders.errors import Refused
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


GOLDEN = {
    "block": (
        "a4fc9fbfac8e84baa71b99d3869d73cf16600e8b1041c661553522c1c7c4e73e",
        "2460610e4ff7553bed8ea02442a0a7c835d63a892703fd8d4fdce58358e1937c",
    ),
    "global": (
        "018f2d7d0b69dda77094dcd529b8361772458e90147305313b3fa6edca56b666",
        "56ffc27796ad3a662d29dba1ffcceb00d99af9869a793951256fc534d808f683",
    ),
}
"""sha256 of the first 10,000 uids of epochs 0 and 1; a change breaks every run that is resumed."""


@pytest.mark.parametrize("shuffle", ["block", "global"])
def test_the_order_never_changes(shuffle: str) -> None:
    """The first 10,000 uids of 150 shards are those that they have always been."""
    shard_of = np.repeat(np.arange(150), 80).astype(np.int32)
    order = Order(shard_of, np.arange(12_000), seed=7, digest="0123456789abcdef", shuffle=shuffle)
    for epoch, expected in enumerate(GOLDEN[shuffle]):
        rows = order.rows(epoch * 12_000, epoch * 12_000 + 10_000)
        assert sha256("".join(f"{row:032x}" for row in rows).encode()).hexdigest() == expected


def some_order(rows: np.ndarray | None = None, seed: int = 0, digest: str = "d", **more) -> Order:
    """Order 50 shards of 20 pairs in blocks of four."""
    shard_of = np.repeat(np.arange(50), 20).astype(np.int32)
    rows = np.arange(1000) if rows is None else rows
    return Order(shard_of, rows, seed=seed, digest=digest, block_shards=4, **more)


@given(folders, st.sampled_from(["block", "global"]), st.booleans(), st.data())
@settings(max_examples=100, deadline=None)
def test_every_epoch_visits_what_it_should(shard_of, shuffle, weighted, data) -> None:
    """Each epoch of any subset has each pair once, or as often as its weight says."""
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, len(shard_of) - 1), min_size=1))))
    visits = np.where(rows % 2, 2.0, 1.0) if weighted else None
    order = Order(shard_of, rows, seed=1, digest="d", shuffle=shuffle, visits=visits)
    expected = rows.tolist() if visits is None else np.repeat(rows, visits.astype(int)).tolist()
    assert len(order) == len(expected)
    for epoch in range(3):
        found = order.rows(epoch * len(order), (epoch + 1) * len(order))
        assert sorted(found.tolist()) == expected


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shuffle", ["block", "global"])
def test_positions_run_on_over_epochs(shuffle: str, weighted: bool) -> None:
    """Any cutting of the positions gives the same rows as asking for all at once."""
    visits = np.tile([0.5, 1.5], 500) if weighted else None
    order = some_order(shuffle=shuffle, visits=visits)
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


def test_a_global_batch_is_mixed_of_all_shards() -> None:
    """The count of shards in a batch is reported: four by blocks, nearly all 50 globally."""
    assert some_order().shards_per_batch(40) == pytest.approx(4, abs=0.1)
    expected = 50 * (1 - (1 - 1 / 50) ** 200)  # as if each of 200 came from any shard
    assert some_order(shuffle="global").shards_per_batch(200) == pytest.approx(expected, abs=0.7)
    assert some_order(shuffle="global").shards_per_batch(5000) == 50


def test_another_shuffle_is_refused() -> None:
    """A name that is none says which there are."""
    with pytest.raises(Refused, match="no shuffle 'buffer': choose block or global"):
        some_order(shuffle="buffer")


@pytest.mark.parametrize("shuffle", ["block", "global"])
def test_each_pair_is_first_equally_often(shuffle: str) -> None:
    """Over 4,000 seeds the first of 40 pairs is spread evenly (chi-square, 39 degrees)."""
    shard_of = np.repeat(np.arange(4), 10).astype(np.int32)
    rows = np.arange(40)
    first = [Order(shard_of, rows, seed=s, digest="d", shuffle=shuffle) for s in range(4000)]
    counts = np.bincount([order.rows(0, 1)[0] for order in first], minlength=40)
    assert ((counts - 100) ** 2 / 100).sum() < 83


def test_weights_of_one_change_nothing() -> None:
    """One visit each by weights is the order without weights, bit for bit."""
    for shuffle in ("block", "global"):
        plain, weighted = (
            some_order(shuffle=shuffle),
            some_order(shuffle=shuffle, visits=np.ones(1000)),
        )
        assert plain.rows(0, 2500).tolist() == weighted.rows(0, 2500).tolist()


def test_a_second_visit_moves_no_first_one() -> None:
    """Pairs that come twice do so at unlike places, and the others keep their order."""
    visits = np.where(np.arange(1000) % 4 == 0, 2.0, 1.0)
    twice = some_order(visits=visits).rows(0, 1250).tolist()
    once = some_order().rows(0, 1000).tolist()
    assert [row for row in twice if row % 4] == [row for row in once if row % 4]
    gaps = [len(twice) - 1 - twice[::-1].index(r) - twice.index(r) for r in range(0, 1000, 4)]
    assert np.mean(gaps) == pytest.approx(100 / 3, rel=0.2)  # anywhere in a block of 100 visits


def test_a_substitute_is_drawn_by_position_and_attempt() -> None:
    """It is one of the rows that take part, the same each time, and unlike for each attempt."""
    rows = np.arange(0, 1000, 3)
    order = some_order(rows)
    drawn = [order.substitute(p, a) for p in range(400) for a in range(5)]
    assert drawn == [some_order(rows).substitute(p, a) for p in range(400) for a in range(5)]
    assert set(drawn) <= set(rows.tolist())
    counts = np.bincount(np.array(drawn) // 3, minlength=334)
    assert ((counts - 2000 / 334) ** 2 / (2000 / 334)).sum() < 333 + 5 * np.sqrt(666)
    assert drawn[:5] != [some_order(rows, seed=1).substitute(0, a) for a in range(5)]


def test_the_identity_tells_orders_apart() -> None:
    """Two streams may be exchanged only if all that the order depends on is the same."""
    visits = np.full(1000, 1.5)
    changed: dict[str, Order] = {
        "order": some_order(seed=1),
        "data": some_order(digest="e"),
        "subset": some_order(np.arange(999)),
        "weights": some_order(visits=visits),
    }
    first = some_order().identity
    for name, order in changed.items():
        assert {key for key in first if first[key] != order.identity[key]} == {name}
    assert some_order(shuffle="global").identity["order"] == "global/seed0"
    assert some_order(visits=visits * 1.01).identity != changed["weights"].identity
    assert some_order().identity == first
