"""Duplicates by an embedder: against every two pictures compared."""

import numpy as np
import pyarrow as pa
import pytest

from breadth.curate.matching import match
from breadth.curate.stages.embedding_duplicates import EmbeddingDuplicates

WIDTH = 16


def clustered(groups: int, spread: float) -> np.ndarray:
    """Return float16 rows of norm 1: ten around each of some directions."""
    rng = np.random.default_rng(3)
    rows = np.repeat(rng.standard_normal((groups, WIDTH)), 10, axis=0)
    rows += spread * rng.standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def column(rows: np.ndarray, missing: tuple[int, ...] = ()) -> pa.Table:
    """Return pairs with these embeddings; the missing ones have none."""
    values = [None if n in missing else row for n, row in enumerate(rows)]
    kind = pa.list_(pa.float16(), WIDTH)
    return pa.table({"image_embedding:run": pa.array(values, kind)})


def dropped(stage: EmbeddingDuplicates, pairs: pa.Table) -> dict[int, tuple[int, float]]:
    """Run the stage as the engine does: dropped row -> witness and distance."""
    keys = stage.keys(pairs).rename_columns({"row": "pair"})
    found = match(keys, np.arange(len(pairs)), stage).to_pylist()
    return {row["pair"]: (row["witness"], row["distance"]) for row in found}


def walked(rows: np.ndarray, distance: float) -> set[int]:
    """Go through all rows in order: keep each one unless a kept one before it is too near."""
    unit = rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept: list[int] = []
    for row in range(len(unit)):
        if not kept or (1 - unit[kept] @ unit[row]).min() > distance:
            kept.append(row)
    return set(range(len(unit))) - set(kept)


@pytest.mark.parametrize("distance", [0.02, 0.05, 0.2])
def test_nearly_all_of_what_a_walk_over_all_pairs_drops_is_dropped(distance):
    """At least 99 % of it, and little else: each missed edge may keep one pair more."""
    rows = clustered(60, 0.15)
    found = dropped(EmbeddingDuplicates(distance=distance), column(rows))
    expected = walked(rows, distance)
    assert len(expected) > 30
    assert len(expected & found.keys()) >= 0.99 * len(expected)
    assert len(found.keys() - expected) <= 0.02 * len(expected)


def test_every_dropped_pair_has_a_kept_witness_within_the_distance():
    """The witness was kept, comes first and is as near as the row says."""
    rows = clustered(60, 0.2)
    stage = EmbeddingDuplicates(distance=0.05)
    found = dropped(stage, column(rows))
    unit = rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for row, (witness, distance) in found.items():
        assert witness not in found
        assert witness < row
        assert distance == pytest.approx(1 - unit[row] @ unit[witness], abs=1e-3)
        assert distance <= 0.05


def test_pairs_without_an_embedding_are_kept():
    """A picture that could not be decoded is a duplicate of nothing."""
    rows = np.tile(clustered(1, 0.0)[:1], (4, 1))
    assert dropped(EmbeddingDuplicates(distance=0), column(rows, missing=(0, 2))).keys() == {3}


def test_the_number_of_tables_follows_from_the_distance():
    """All but 1 in 100 at the very distance meet: 15 tables of 12 bits at 0.05, one at 0."""
    assert EmbeddingDuplicates(distance=0).tables == 1
    stage = EmbeddingDuplicates()
    angle = np.arccos(1 - stage.distance) / np.pi
    missed = (1 - (1 - angle) ** stage.bits) ** stage.tables
    assert missed <= 0.01 < missed ** ((stage.tables - 1) / stage.tables)
