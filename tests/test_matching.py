"""Which pairs a Matcher drops, against a greedy walk over all pairs of pairs."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate import matching
from breadth.curate.matching import match
from breadth.curate.stage import Matcher


@dataclass(frozen=True)
class Near(Matcher):
    """Numbers closer than a limit; buckets are two overlapping grids, so pairs share several."""

    limit: float = 1.0

    def edges(self, bucket):
        x = bucket["x"].to_numpy()
        apart = abs(x[:, None] - x[None, :])
        left, right = np.nonzero(np.triu(apart < self.limit, 1))
        return left, right, apart[left, right].astype(np.float32)


@dataclass(frozen=True)
class Room(Matcher):
    """Buckets with room for a number of pairs."""

    capacity: int = 2


def near_keys(x: np.ndarray) -> pa.Table:
    """Put numbers in the cells of two grids, one moved by half a cell."""
    n = len(x)
    low, high = np.floor(x / 4), np.floor((x + 2) / 4) + 1000
    return pa.table(
        {
            "pair": np.tile(np.arange(n), 2),
            "bucket": np.concatenate([low, high]).astype(np.uint64),
            "kind": ["near"] * (2 * n),
            "x": np.tile(x, 2),
        }
    )


def greedy(x: np.ndarray, priority: np.ndarray, limit: float) -> dict[int, tuple[int, float]]:
    """Walk all pairs in priority order and compare each with all that were kept."""
    kept: list[int] = []
    dropped = {}
    for pair in np.argsort(priority):
        witness = next((k for k in kept if abs(x[k] - x[pair]) < limit), None)
        if witness is None:
            kept.append(pair)
        else:
            dropped[int(pair)] = (int(witness), float(np.float32(abs(x[witness] - x[pair]))))
    return dropped


def as_dict(table: pa.Table) -> dict[int, tuple[int, float]]:
    """Map each dropped pair to its witness and distance."""
    return {r["pair"]: (r["witness"], r["distance"]) for r in table.to_pylist()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 60), st.floats(0.5, 60))
def test_the_same_pairs_fall_as_in_a_greedy_walk_over_all(seed, n, spread):
    """Dropped pairs, witnesses and distances equal the oracle's, for sparse and dense inputs."""
    rng = np.random.default_rng(seed)
    x, priority = rng.random(n) * spread, rng.permutation(n)
    assert as_dict(match(near_keys(x), priority, Near())) == greedy(x, priority, 1.0)


@pytest.mark.parametrize(("rows", "edges"), [(6, 10**9), (6, 50), (10**9, 20), (10**9, 0), (8, 3)])
def test_cutting_large_buckets_and_spans_changes_nothing(monkeypatch, rows, edges):
    """However few rows and edges fit at once, the answer is the oracle's."""
    monkeypatch.setattr(matching, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(matching, "EDGES_AT_ONCE", edges)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, priority = rng.random(120) * 12, rng.permutation(120)
        assert as_dict(match(near_keys(x), priority, Near())) == greedy(x, priority, 1.0)


def test_the_order_of_keys_does_not_matter():
    """Shuffled and repeated keys give the same table, row for row."""
    rng = np.random.default_rng(5)
    x, priority = rng.random(200) * 40, rng.permutation(200)
    keys = near_keys(x)
    expected = match(keys, priority, Near())
    assert expected.num_rows > 20
    shuffled = pa.concat_tables([keys, keys.slice(0, 50)]).take(rng.permutation(450))
    assert match(shuffled, priority, Near()).equals(expected)


def test_every_dropped_pair_has_a_kept_witness_within_the_limit():
    """A chain a-b-c drops b alone: c is not near the kept a, though it is near b."""
    x = np.array([10.0, 10.7, 11.4])
    dropped = match(near_keys(x), np.array([0, 1, 2]), Near())
    assert dropped.to_pylist() == [
        {"pair": 1, "witness": 0, "reason": "near", "distance": pytest.approx(0.7)}
    ]


def test_thousands_of_copies_of_one_picture_are_no_square(monkeypatch):
    """Of n equal pairs one stays, and only a fraction of their n^2 / 2 edges is looked at."""
    monkeypatch.setattr(matching, "EDGES_AT_ONCE", 10_000)
    seen = []

    class Counting(Near):
        def edges(self, bucket):
            found = super().edges(bucket)
            seen.append(len(found[0]))
            return found

    n = 4000
    monkeypatch.setattr(matching, "ROWS_AT_ONCE", 256)
    dropped = match(near_keys(np.full(n, 7.0)), np.arange(n)[::-1], Counting())
    assert dropped["witness"].unique().to_pylist() == [n - 1]
    assert dropped.num_rows == n - 1
    assert sum(seen) < n * n / 20


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 50), st.integers(1, 4))
def test_buckets_hold_no_more_than_their_room(seed, n, capacity):
    """With pairs in several buckets of several kinds the walk in priority order is the oracle."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, max(n, 1), 2 * n)
    kinds = np.array(["bytes", "pixels"])[rng.integers(0, 2, 2 * n)]
    buckets = rng.integers(0, 8, 2 * n).astype(np.uint64)
    keys = pa.table({"pair": rows, "bucket": buckets, "kind": kinds.tolist()})
    priority = rng.permutation(max(n, 1)) * 3 + 1
    places: dict[int, set] = {}
    for pair, kind, bucket in zip(rows.tolist(), kinds.tolist(), buckets.tolist(), strict=True):
        places.setdefault(pair, set()).add((kind, bucket))
    held: dict[tuple, list[int]] = {}
    expected = []
    for pair in sorted(places, key=lambda p: priority[p]):
        full = [p for p in sorted(places[pair]) if len(held.get(p, [])) >= capacity]
        if full:
            expected.append((pair, held[full[0]][0], full[0][0], 0.0))
        else:
            for place in places[pair]:
                held.setdefault(place, []).append(pair)
    got = match(keys, priority, Room(capacity))
    assert [tuple(row.values()) for row in got.to_pylist()] == sorted(expected)


def test_no_keys_drop_nothing():
    """An empty table of keys gives an empty table of drops."""
    assert match(near_keys(np.zeros(0)), np.zeros(0, int), Near()).num_rows == 0
