"""How a subset is fetched: by what each way would cost."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.loaders.access import EXTENT_BYTES, GAP_BYTES, choose_access


def made_folder(shards: int = 20, pairs: int = 1000, picture: int = 30_000, step: int = 0) -> Any:
    """Return the index of a folder: pictures of one size, ``step`` bytes apart."""
    step = step or picture + 1536
    offsets = np.tile(512 + step * np.arange(pairs), shards).astype(np.uint64)
    lengths = np.full(shards * pairs, picture, np.uint32)

    class Index(SimpleNamespace):
        def __len__(self) -> int:
            return shards * pairs

    shard_of = np.repeat(np.arange(shards, dtype=np.int32), pairs)
    index = pa.table({"image_offset": offsets, "image_length": lengths})
    return Index(pieces=index, shard_of=shard_of)


def some_rows(folder: Any, fraction: float) -> np.ndarray:
    """Return that many rows, drawn at random."""
    return np.flatnonzero(np.random.default_rng(0).random(len(folder)) < fraction)


def test_a_local_folder_is_read_by_range_at_any_share() -> None:
    """What is mapped into memory costs what is kept, and there is nothing to write first."""
    folder = made_folder()
    for fraction in (0.01, 0.5, 1.0):
        rows = some_rows(folder, fraction)
        access = choose_access(folder, rows, remote=False, epochs=100)
        assert access.kind == "ranged"
        assert access.read_bytes == access.kept_bytes == 30_000 * len(rows)
        assert "the folder is local" in access.why


@pytest.mark.parametrize(
    ("picture", "fraction", "kind"),
    [
        (10_000, 0.02, "ranged"),
        (10_000, 0.1, "stream"),
        (10_000, 0.5, "stream"),
        (100_000, 0.1, "ranged"),
        (100_000, 0.5, "ranged"),
        (100_000, 1.0, "stream"),
    ],
)
def test_a_remote_folder_is_read_in_the_cheaper_way(picture, fraction, kind) -> None:
    """Small pictures are skipped through sooner than large ones, and all of them always."""
    folder = made_folder(picture=picture)
    access = choose_access(folder, some_rows(folder, fraction), remote=True)
    assert access.kind == kind
    assert "\n" not in access.why
    assert access.why.startswith({"ranged": "ranged reads", "stream": "whole shards"}[kind])
    assert access.kept_bytes == picture * len(some_rows(folder, fraction))
    assert access.kept_bytes <= access.read_bytes <= 1000 * 20 * (picture + 1536)


def test_the_break_even_is_where_requests_cost_what_bytes_do() -> None:
    """With pictures so far apart that each is a request, the shares at which both take as long."""
    folder = made_folder(step=200_000)
    shares = np.linspace(0.5, 1, 101)
    # A request takes 30 ms / 64 = 469 us and 200 kB of a shard 400 us; 0.9 is asked for.
    kinds = [choose_access(folder, some_rows(folder, s), remote=True).kind for s in shares]
    assert shares[kinds.index("stream")] == pytest.approx(0.9 * 400 / 469, abs=0.02)
    assert "ranged" not in kinds[kinds.index("stream") :]


def test_many_epochs_over_a_small_share_are_best_written_out_first() -> None:
    """Advice to materialise comes only with epochs, and not where a cache holds what is read."""
    folder = made_folder()
    rows = some_rows(folder, 0.05)
    access = [choose_access(folder, rows, remote=True, epochs=e) for e in (1, 2, 30)]
    assert [a.kind for a in access] == ["ranged", "ranged", "materialise"]
    assert "write the subset out" in access[2].why
    cached = choose_access(folder, rows, remote=True, epochs=30, cache_bytes=access[2].read_bytes)
    assert cached.kind == "ranged"
    everything = choose_access(folder, np.arange(len(folder)), remote=True, epochs=30)
    assert everything.kind == "stream"


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 400), st.integers(1, 90)),
        min_size=1,
        max_size=30,
        unique_by=lambda pair: pair[:2],
    )
)
@settings(max_examples=200, deadline=None)
def test_extents_are_those_that_a_loop_would_make(pairs: list[tuple[int, int, int]]) -> None:
    """Near pictures are one extent, shards are not joined, long extents are several requests."""
    unit = GAP_BYTES // 2
    pairs = sorted(pairs)
    index = pa.table(
        {
            "image_offset": pa.array([p[1] * unit for p in pairs], pa.uint64()),
            "image_length": pa.array([p[2] * 1000 for p in pairs], pa.uint32()),
        }
    )
    extents: list[list[int]] = []
    for shard, place, size in pairs:
        begin, end = place * unit, place * unit + size * 1000
        if extents and extents[-1][0] == shard and begin - extents[-1][2] <= GAP_BYTES:
            extents[-1][2] = end
        else:
            extents.append([shard, begin, end])

    class Made(SimpleNamespace):
        def __len__(self) -> int:
            return 10**9

    far = np.array([p[0] for p in pairs], np.int32)
    folder: Any = Made(pieces=index, shard_of=far)
    access = choose_access(folder, np.arange(len(pairs)), remote=True)
    if access.kind == "ranged":
        assert access.read_bytes == sum(end - begin for _, begin, end in extents)
        assert access.requests == sum(
            -(-(end - begin) // EXTENT_BYTES) for _, begin, end in extents
        )
