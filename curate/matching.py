"""Decide which pairs a Matcher drops, from its keys and its edges alone.

The kept pairs are the first maximal independent set in priority order: go through the pairs by
rank, keep each one unless a kept pair before it is too alike. So every dropped pair has a kept
witness, and the answer depends on neither the order of rows nor parts.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .stage import Matcher

ROWS_AT_ONCE = 2048  # of one bucket in one call of edges: at most 2 million edges, 42 MB
EDGES_AT_ONCE = 4_000_000  # above that the pairs are cut in two by rank; 100 MB

_TYPES = (pa.int64(), pa.int64(), pa.string(), pa.float32())
DROPPED = pa.schema(list(zip(("pair", "witness", "reason", "distance"), _TYPES, strict=True)))


class _Edges(NamedTuple):
    """Pairs that are too alike, by rank (left < right), with the kind of their bucket."""

    left: np.ndarray
    right: np.ndarray
    kind: np.ndarray
    distance: np.ndarray

    def of(self, rows: np.ndarray) -> "_Edges":
        return _Edges(*(column[rows] for column in self))


class _Keys:
    """Keys sorted by bucket and rank, without the buckets that hold one pair only."""

    def __init__(self, keys: pa.Table, priority: np.ndarray) -> None:
        self.kinds: list[str] = sorted(keys["kind"].unique().to_pylist())
        kind = pc.index_in(keys["kind"], pa.array(self.kinds, pa.string())).to_numpy()
        bucket = keys["bucket"].to_numpy()
        ranks = np.asarray(priority)[keys["pair"].to_numpy()]
        order = np.lexsort((ranks, bucket, kind))
        kind, bucket, ranks = kind[order], bucket[order], ranks[order]
        new = np.ones(len(order), bool)
        new[1:] = (kind[1:] != kind[:-1]) | (bucket[1:] != bucket[:-1])
        group = np.cumsum(new) - 1
        # A pair that is twice in one bucket counts once.
        again = np.zeros(len(order), bool)
        again[1:] = ~new[1:] & (ranks[1:] == ranks[:-1])
        sizes = np.bincount(group[~again], minlength=group[-1] + 1 if len(group) else 0)
        shared = ~again & (sizes[group] > 1)
        self.group, self.kind = group[shared], kind[shared]
        # From here on a pair is its place among the pairs that share a bucket, in priority order.
        self.ranked, self.rank = np.unique(ranks[shared], return_inverse=True)
        payload = [c for c in keys.column_names if c not in ("pair", "bucket", "kind")]
        self.rows = order[shared]
        self.payload = keys.select(["bucket", "kind", *payload])

    def buckets(self, chosen: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield start and end, within the chosen rows, of each bucket with two of them."""
        group = self.group[chosen]
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else group
        ends = np.r_[starts[1:], len(group)]
        several = ends - starts > 1
        yield from zip(starts[several].tolist(), ends[several].tolist(), strict=True)


def match(keys: pa.Table, priority: np.ndarray, stage: Matcher) -> pa.Table:
    """Return the pairs that ``stage`` drops: pair, witness, reason, distance, by pair number.

    ``keys`` is what ``stage.keys`` returns, with ``pair`` (int64, the pair's number in the whole
    pool) for ``row``. ``priority`` gives each pair number its rank: unique, smallest first.
    Cost: 100 bytes a key; time is that of the stage's ``edges``.
    """
    if keys.num_rows == 0:
        return DROPPED.empty_table()
    sorted_keys = _Keys(keys.combine_chunks(), priority)
    room = stage.capacity
    dropped = _too_alike(sorted_keys, stage) if room is None else _over_capacity(sorted_keys, room)
    return _table(dropped, sorted_keys, np.asarray(priority))


def _table(dropped: _Edges, keys: _Keys, priority: np.ndarray) -> pa.Table:
    number = np.argsort(priority)  # rank -> pair number; ranks need not be dense
    by_rank = priority[number]
    pairs = number[np.searchsorted(by_rank, keys.ranked[dropped.right])]
    witnesses = number[np.searchsorted(by_rank, keys.ranked[dropped.left])]
    order = np.argsort(pairs)
    reasons = pa.array(keys.kinds, pa.string()).take(pa.array(dropped.kind[order], pa.int64()))
    distance = pa.array(dropped.distance[order], pa.float32())
    columns = [pa.array(pairs[order], pa.int64()), pa.array(witnesses[order], pa.int64())]
    return pa.Table.from_arrays([*columns, reasons, distance], schema=DROPPED)


def _over_capacity(keys: _Keys, capacity: int) -> _Edges:
    """Keep pairs by rank while each of their buckets has room; the witness came first."""
    sizes = np.bincount(keys.group, minlength=1)
    contested = np.flatnonzero(sizes[keys.group] > capacity)
    # A pair's buckets are asked in the order of their kinds, so its reason is settled too.
    contested = contested[np.lexsort((keys.group[contested], keys.rank[contested]))]
    ranks, groups = keys.rank[contested].tolist(), keys.group[contested].tolist()
    kinds = keys.kind[contested].tolist()
    held: dict[int, list[int]] = {}
    dropped: list[tuple[int, int, int, float]] = []
    row = 0
    while row < len(ranks):
        end = row + 1
        while end < len(ranks) and ranks[end] == ranks[row]:
            end += 1
        full = next((i for i in range(row, end) if len(held.get(groups[i], ())) >= capacity), None)
        if full is not None:
            dropped.append((held[groups[full]][0], ranks[row], kinds[full], 0.0))
        else:
            for group in groups[row:end]:
                held.setdefault(group, []).append(ranks[row])
        row = end
    return _columns(dropped)


def _columns(edges: list[tuple[int, int, int, float]]) -> _Edges:
    columns = zip(*edges, strict=True) if edges else ((), (), (), ())
    kinds = (np.int64, np.int64, np.int64, np.float32)
    return _Edges(*(np.array(c, kind) for c, kind in zip(columns, kinds, strict=True)))


def _too_alike(keys: _Keys, stage: Matcher) -> _Edges:
    """Settle spans of ranks in order; a span with too many edges is cut in two.

    Of 100,000 copies of one picture every two are joined, yet the first copy alone drops the rest:
    once a span is settled only the edges of its kept pairs to the pairs after it matter.
    """
    n = len(keys.ranked)
    undecided = np.ones(n, bool)
    dropped: list[_Edges] = []
    spans = [(0, n)]
    while spans:
        low, high = spans.pop()
        inside = np.zeros(n, bool)
        inside[low:high] = undecided[low:high]
        edges = _edges_within(keys, stage, inside)
        if edges is None:
            middle = int(np.median(np.flatnonzero(inside))) + 1
            spans += [(middle, high), (low, middle)]
            continue
        lost = _greedy(edges, n)
        inside[lost.right] = False
        dropped.append(lost)
        undecided[low:high] = False
        if high < n:
            late = _edges_across(keys, stage, inside, undecided, high)
            undecided[late.right] = False
            dropped.append(late)
    return _Edges(*(np.concatenate(column) for column in zip(*dropped, strict=True)))


def _edges_within(keys: _Keys, stage: Matcher, inside: np.ndarray) -> _Edges | None:
    """Return all edges among the chosen pairs, each once; None where there are too many."""
    found, total = [_columns([])], 0
    few = np.count_nonzero(inside) <= 2
    for edges in _asked(keys, stage, np.flatnonzero(inside[keys.rank]), None):
        found.append(edges)
        total += len(edges.left)
        if total > EDGES_AT_ONCE and not few:
            return None
    edges = _Edges(*(np.concatenate(column) for column in zip(*found, strict=True)))
    return _first_of_each(edges, edges.right, edges.left)


def _edges_across(
    keys: _Keys, stage: Matcher, kept: np.ndarray, undecided: np.ndarray, border: int
) -> _Edges:
    """Return for each undecided pair its edge to the first kept pair before the border."""
    found = [_columns([])]
    chosen = np.flatnonzero((kept | undecided)[keys.rank])
    for edges in _asked(keys, stage, chosen, border):
        across = edges.of((edges.left < border) & (edges.right >= border))
        found.append(_first_of_each(across, across.right))
    edges = _Edges(*(np.concatenate(column) for column in zip(*found, strict=True)))
    return _first_of_each(edges, edges.right)


def _asked(keys: _Keys, stage: Matcher, chosen: np.ndarray, border: int | None) -> Iterator[_Edges]:
    """Ask the stage for the edges of each bucket, of large ones a few rows at a time.

    With a border only rows on different sides of it are sure to meet.
    """
    ranks, kinds = keys.rank[chosen], keys.kind[chosen]
    payload = keys.payload.take(pa.array(keys.rows[chosen])).combine_chunks()
    for start, end in keys.buckets(chosen):
        if border is None:
            meetings = _all_meet(start, end)
        else:
            middle = start + int(np.searchsorted(ranks[start:end], border))
            meetings = _meet_across(start, middle, end)
        for rows in meetings:
            together = rows[-1] - rows[0] + 1 == len(rows)
            bucket = payload.slice(rows[0], len(rows)) if together else payload.take(pa.array(rows))
            left, right, distance = stage.edges(bucket)
            if len(left):
                kind = np.full(len(left), kinds[start], np.int64)
                yield _Edges(ranks[rows[left]], ranks[rows[right]], kind, distance)


def _parts(start: int, end: int, size: int) -> list[np.ndarray]:
    return [np.arange(at, min(at + size, end)) for at in range(start, end, size)]


def _all_meet(start: int, end: int) -> Iterator[np.ndarray]:
    """Yield sets of rows such that every two rows are in one of them."""
    if end - start <= ROWS_AT_ONCE:
        yield np.arange(start, end)
        return
    for first, second in combinations(_parts(start, end, ROWS_AT_ONCE // 2), 2):
        yield np.concatenate([first, second])


def _meet_across(start: int, middle: int, end: int) -> Iterator[np.ndarray]:
    """Yield sets of rows such that every row before the middle meets every row after it."""
    for early in _parts(start, middle, ROWS_AT_ONCE // 2):
        # Late rows meet each other in vain: with few early ones, no more than a few at a time.
        for late in _parts(middle, end, max(len(early), 128)):
            yield np.concatenate([early, late])


def _first_of_each(edges: _Edges, *same: np.ndarray) -> _Edges:
    """Keep one edge per value of ``same``: the first left, the least distance, the first kind."""
    order = np.lexsort((edges.kind, edges.distance, edges.left, *reversed(same)))
    new = np.zeros(len(order), bool)
    new[:1] = True
    for column in same:
        ranked = column[order]
        new[1:] |= ranked[1:] != ranked[:-1]
    return edges.of(order[new])


def _greedy(edges: _Edges, n: int) -> _Edges:
    """Return the edges that drop a pair; ``edges`` are sorted by right, then left."""
    kept = bytearray(b"\x01") * n
    drops = []
    for row, (left, right) in enumerate(
        zip(edges.left.tolist(), edges.right.tolist(), strict=True)
    ):
        if kept[right] and kept[left]:
            kept[right] = 0
            drops.append(row)
    return edges.of(np.array(drops, np.int64))
