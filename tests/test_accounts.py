"""Accounts: a build whose numbers do not add up is found, and an honest one passes."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from breadth.curate.shard_writer import write_folder
from breadth.loaders.accounts import check_accounts
from breadth.loaders.errors import ShardError
from breadth.loaders.manifest import Manifest
from breadth.scripts.inspect import inspect

FUNNEL = (
    {"stage": "pool", "kind": "pool", "in": 10, "kept": 9, "dropped": {"repeated": 1}},
    {"stage": "image_size", "kind": "filter", "in": 9, "kept": 6, "dropped": {"small": 2, "x": 1}},
)
PNG = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Make the folder of a build: six pairs of ten in shards, and a ledger in two parts."""
    pairs = (({"uid": f"{i:032x}", "caption": f"c {i}", "width": 9}, PNG, "png") for i in range(6))
    manifest = write_folder(tmp_path / "shards", pairs, name="b", pairs_per_shard=4)
    (tmp_path / "shards" / "manifest.json").unlink()
    dropped = [("pool", "repeated"), ("image_size", "small"), ("image_size", "small")]
    dropped += [("image_size", "x")] + [(None, None)] * 6
    rows = [{"kept": s is None, "dropped_by": s, "reason": why} for s, why in dropped]
    write_ledger(tmp_path, rows)
    pool = {"fingerprint": "0", "candidates": 10}
    replace(manifest, pool=pool, funnel=FUNNEL, recipe='name = "b"\n').write(tmp_path)
    return tmp_path


def write_ledger(build: Path, rows: list[dict]) -> None:
    """Write a ledger in two parts."""
    (build / "ledger").mkdir(exist_ok=True)
    for part, some in enumerate((rows[:3], rows[3:])):
        pq.write_table(pa.Table.from_pylist(some), build / "ledger" / f"{part:05d}.parquet")


def test_honest_accounts_pass(build: Path) -> None:
    """A build whose funnel, shards and ledger agree passes, and ``breadth inspect`` says so."""
    check_accounts(build, Manifest.read(build))
    result = CliRunner().invoke(inspect, [str(build), "--verify"])
    assert result.exit_code == 0, result.output
    for words in ("6 pairs in 2 shards", "image_size", "2 small; 1 x", "all accounts agree", "c 4"):
        assert words in result.output
    result = CliRunner().invoke(inspect, [str(build), "--json"])
    found = json.loads(result.output)
    assert found["funnel"] == list(FUNNEL)
    assert found["recipe"] == 'name = "b"\n'
    assert len(found["samples"]) == 5


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        (0, {"in": 11}),
        (0, {"kept": 8}),
        (1, {"kept": 7}),
        (1, {"in": 8}),
        (1, {"dropped": {"small": 3}}),
        (1, {"dropped": {"small": 1, "x": 2}}),
        (1, {"dropped": {"small": 2, "x": 1, "y": 1}}),
    ],
)
def test_a_funnel_that_does_not_add_up_is_found(build: Path, entry: int, changes: dict) -> None:
    """Any number that is changed anywhere in the funnel is found."""
    funnel = [dict(stage) for stage in FUNNEL]
    funnel[entry] |= changes
    with pytest.raises(ShardError, match="but"):
        check_accounts(build, replace(Manifest.read(build), funnel=tuple(funnel)))


def test_a_ledger_that_does_not_add_up_is_found(build: Path) -> None:
    """A lost row, a row kept too many and a ledger that is gone are each found."""
    manifest = Manifest.read(build)
    part = build / "ledger" / "00001.parquet"
    rows = pq.read_table(part)
    pq.write_table(rows.slice(1), part)
    with pytest.raises(ShardError, match="rows of the ledger: 9, but candidates of the pool: 10"):
        check_accounts(build, manifest)
    pq.write_table(rows.set_column(0, "kept", [[True] * len(rows)]), part)
    with pytest.raises(ShardError, match="rows kept in the ledger: 7, but"):
        check_accounts(build, manifest)
    for path in (build / "ledger").iterdir():
        path.unlink()
    with pytest.raises(ShardError, match="has no ledger"):
        check_accounts(build, manifest)


def test_shards_must_hold_the_pairs_of_the_manifest(build: Path) -> None:
    """A manifest that counts other pairs than its shards is found."""
    manifest = Manifest.read(build)
    with pytest.raises(ShardError, match="pairs in the shards: 6, but pairs of the manifest: 7"):
        check_accounts(build, replace(manifest, pairs=7))
