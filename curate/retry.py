"""Retry rounds: measure again what failed for a reason that can pass, and nothing else."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from breadth.loaders.whole_file import replaced

from .legs import Leg
from .part_store import stem
from .stage import Stage
from .workspace import Workspace

RETRYABLE = "retryable"
"""The column that says of a pair that a later try can succeed; a stage that writes none has none.

A build begins in round 0. Each retry is a round of its own: it is part of every verdict, and in it
the rows that were retryable when they were measured in an earlier round count as not measured.
"""


def current_round(out: Path) -> int:
    """Return the round in which the build of a folder is."""
    return int(json.loads((out / "build.json").read_bytes()).get("retry_round", 0))


def begin_round(out: Path) -> int:
    """Begin the next round and return its number; a kill at any moment leaves one or the other."""
    record = json.loads((out / "build.json").read_bytes())
    record["retry_round"] = current_round(out) + 1
    with replaced(out / "build.json") as file:
        file.write(json.dumps(record, sort_keys=True).encode())
    return int(record["retry_round"])


def failed_pairs(ledger: Iterable[Path]) -> int:
    """Count the pairs of a ledger that failed for a reason that can pass."""
    tables = [
        pq.read_table(file, columns=[RETRYABLE])
        for file in ledger
        if RETRYABLE in pq.read_schema(file).names
    ]
    return sum(pc.sum(table[RETRYABLE]).as_py() or 0 for table in tables)


def measured(
    workspace: Workspace,
    legs: Sequence[Leg],
    part: int,
    stage: Stage,
    rows: int,
    now: Mapping[str, Sequence[np.ndarray]],
) -> np.ndarray:
    """Return bool [rows]: which rows of a part a stage of ``legs[-1]`` need not measure.

    Not those to be tried again in this round, nor those it measured before an earlier stage tried
    them again. ``now`` has the rows that this task has measured, by the stages' stems.
    """
    leg = legs[-1]
    store = workspace.store(leg, part)
    last = store.rounds(stage, rows)
    done = last >= _since(workspace, legs, part, stage, rows, now)
    if RETRYABLE in stage.writes:
        failed = store.columns(stage, rows, [RETRYABLE])[RETRYABLE]
        again = pc.fill_null(failed, False).to_numpy(zero_copy_only=False)
        done &= ~again | (last >= leg.retry_round)
    for measured_now in now.get(stem(stage), ()):
        done[measured_now] = True
    return done


def _since(
    workspace: Workspace,
    legs: Sequence[Leg],
    part: int,
    stage: Stage,
    rows: int,
    now: Mapping[str, Sequence[np.ndarray]],
) -> np.ndarray:
    """Return int [rows]: the last round in which a stage before this one measured a row."""
    since = np.zeros(rows, np.int64)
    if legs[-1].retry_round == 0:
        return since
    for leg in legs:
        for before in leg.stages:
            if before is stage:
                return since
            if RETRYABLE in before.writes:
                since = np.maximum(since, workspace.store(leg, part).rounds(before, rows))
                for measured_now in now.get(stem(before), ()):
                    since[measured_now] = leg.retry_round
    return since
