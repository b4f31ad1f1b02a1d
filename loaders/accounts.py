"""Check that a finished build's numbers add up: nothing may disappear without a row."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from .errors import ShardError
from .manifest import Manifest

Drops = Counter[tuple[str, str]]
"""Pairs dropped, by stage and reason."""


def check_accounts(folder: Path, manifest: Manifest) -> None:
    """Compare funnel, shards and ledger; raises ShardError naming the first two that differ.

    Each stage takes in what the one before kept, and that is what it keeps plus what it drops; the
    last keeps the pairs of the shards; the ledger has a row for every candidate, with as many kept,
    and as many dropped by each stage for each reason. A set without a ledger has only its shards'
    counts to compare. Cost: reads three columns of the ledger.
    """
    shards = sum(shard.pairs for shard in manifest.shards)
    if not manifest.keep_list:
        _equal("pairs in the shards", shards, "pairs of the manifest", manifest.pairs)
    _check_funnel(manifest)
    if manifest.funnel:
        _check_ledger(folder, manifest)


def _check_funnel(manifest: Manifest) -> None:
    came = manifest.pool.get("candidates", manifest.pairs)
    before = "candidates of the pool"
    for entry in manifest.funnel:
        stage, dropped = entry["stage"], sum(entry["dropped"].values())
        _equal(f"pairs into {stage}", entry["in"], before, came)
        _equal(
            f"pairs into {stage}", entry["in"], "kept and dropped there", entry["kept"] + dropped
        )
        came, before = entry["kept"], f"kept by {stage}"
    if manifest.funnel:
        _equal(before, came, "pairs of the manifest", manifest.pairs)


def _check_ledger(folder: Path, manifest: Manifest) -> None:
    rows, dropped = _ledger(folder)
    _equal("rows of the ledger", rows, "candidates of the pool", manifest.pool["candidates"])
    kept = rows - dropped.total()
    _equal("rows kept in the ledger", kept, "pairs of the manifest", manifest.pairs)
    stated: Drops = Counter()
    for entry in manifest.funnel:
        stated.update({(entry["stage"], why): n for why, n in entry["dropped"].items()})
    for stage, why in sorted(stated.keys() | dropped.keys()):
        name = f"{stage} ({why})"
        found = dropped[stage, why]
        _equal(f"ledger rows dropped by {name}", found, "in the funnel", stated[stage, why])


def _ledger(folder: Path) -> tuple[int, Drops]:
    """Count the ledger's rows, and those not kept by stage and reason."""
    parts = sorted((folder / "ledger").glob("*.parquet"))
    if not parts:
        raise ShardError(f"{folder} has no ledger beside its manifest: build it again")
    rows, dropped = 0, Drops()
    for part in parts:
        table = pq.read_table(part, columns=["kept", "dropped_by", "reason"])
        rows += len(table)
        verdicts = zip(*(column.to_pylist() for column in table.columns), strict=True)
        dropped.update((stage, why or stage) for kept, stage, why in verdicts if not kept)
    return rows, dropped


def _equal(what: str, found: int, other: str, expected: int) -> None:
    if found != expected:
        raise ShardError(f"{what}: {found}, but {other}: {expected}; build it again")
