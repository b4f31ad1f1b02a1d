"""Retry rounds: measure again what failed for a reason that can pass, and nothing else."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from breadth.loaders.errors import Failed
from breadth.loaders.whole_file import replaced

from .legs import Leg
from .part_store import PartStore, stem
from .stage import Stage
from .workspace import Workspace

RETRYABLE = "retryable"
"""The column that says of a pair that a later try can succeed; a stage that writes none has none.

A build begins in round 0. Each retry is a round of its own: it is part of every verdict, and in it
the rows that were retryable when they were measured in an earlier round count as not measured.
A round that brings nothing, or cannot be finished, is taken back: what it measured does not count
for the build as it was, and the next round, of another number, need not measure it again.
"""


class PictureGone(Failed):
    """A picture that is to be stored is neither on disk nor where it was."""


class NothingNew(Exception):
    """A retry round found every failure as it was."""


def current_round(out: Path) -> int:
    """Return the round in which the build of a folder is."""
    return int(_record(out).get("retry_round", 0))


def begin_round(out: Path) -> None:
    """Begin the next round; a kill at any moment leaves one or the other."""
    begun = int(_record(out).get("rounds_begun", current_round(out))) + 1
    _note(out, retry_round=begun, rounds_begun=begun, before=current_round(out))


def take_back_round(out: Path) -> None:
    """Leave a round that is not finished for the one before it."""
    before = int(_record(out)["before"])
    _note(out, retry_round=before, before=before)


def finish_round(out: Path) -> None:
    """Note that the build of the round is done: from now on it is not taken back."""
    if current_round(out):
        _note(out, before=current_round(out))


def is_unfinished(out: Path) -> bool:
    """Say whether the build is in a retry round that has not been done yet."""
    return current_round(out) > int(_record(out).get("before", 0))


def _record(out: Path) -> dict[str, Any]:
    return json.loads((out / "build.json").read_bytes())


def _note(out: Path, **values: int) -> None:
    with replaced(out / "build.json") as file:
        file.write(json.dumps(_record(out) | values, sort_keys=True).encode())


def check_news(workspace: Workspace, leg: Leg, parts: int) -> None:
    """Raise NothingNew where a leg that tried failures again has found them all as they were."""
    before = int(_record(workspace.out).get("before", 0))
    trying = [stage for stage in leg.stages if RETRYABLE in stage.writes]
    for stage in trying:
        for part in range(parts):
            rows = len(workspace.candidates(part))
            then, now = (
                _failed(replace(workspace.store(leg, part), retry_round=last), stage, rows)
                for last in (before, leg.retry_round)
            )
            if (then & ~now).any():
                return
    if trying:
        raise NothingNew


def _failed(store: PartStore, stage: Stage, rows: int) -> np.ndarray:
    """Return bool [rows]: which rows failed for a reason that can pass."""
    column = store.columns(stage, rows, [RETRYABLE])[RETRYABLE]
    return pc.fill_null(column, False).to_numpy(zero_copy_only=False)


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
        done &= ~_failed(store, stage, rows) | (last >= leg.retry_round)
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
