"""Join a part's candidates, measures and verdicts into the ledger, and count the funnel."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from breadth.loaders.errors import Failed
from breadth.loaders.whole_file import replaced

from .legs import Leg
from .pool import INTERNAL
from .pool_files import WORDS
from .stage import Annotator, Filter, Matcher, Selector, Stage
from .verdicts import ALIVE, POOL, Verdicts
from .workspace import Workspace


@dataclass(frozen=True)
class LedgerTask:
    """Write the ledger of one part; returns its counts by stage and reason, and its kept rows."""

    workspace: Workspace
    legs: tuple[Leg, ...]
    part: int

    def __call__(self) -> dict[str, Any]:
        """Write ``ledger/<part>.parquet``, one row per candidate."""
        verdicts = Verdicts.read(self.workspace.verdict_file(self.legs[-1], self.part))
        table = _columns(self.workspace, self.legs, self.part)
        names = np.array(["pool", *(s.name for leg in self.legs for s in leg.stages)], object)
        alive = verdicts.dropped_by == ALIVE
        by = np.where(alive, None, names[np.maximum(verdicts.dropped_by, 0)])
        facts = {
            "kept": pa.array(alive),
            "dropped_by": pa.array(by, pa.string()),
            "reason": pa.array(verdicts.reason, pa.string()),
            "witness": pa.array(verdicts.witness, pa.string()),
            "distance": pa.array(verdicts.distance, pa.float32(), from_pandas=True),
        }
        for name, values in facts.items():
            table = table.append_column(name, values)
        file = self.workspace.ledger_file(self.part)
        file.parent.mkdir(exist_ok=True)
        with replaced(file) as sink:
            pq.write_table(table, sink, compression="zstd")
        dropped = zip(verdicts.dropped_by[~alive].tolist(), verdicts.reason[~alive], strict=True)
        return {"rows": len(table), "kept": np.flatnonzero(alive), "dropped": Counter(dropped)}


def _columns(workspace: Workspace, legs: Sequence[Leg], part: int) -> pa.Table:
    """Return every scalar column of a part: the candidates', then what each stage wrote.

    A stage's column is filled for the pairs that reached it under these verdicts, whatever
    earlier recipes on the same folder measured; the others keep what was there before it.
    """
    candidates = workspace.candidates(part)
    dropped_by = Verdicts.read(workspace.verdict_file(legs[-1], part)).dropped_by
    kept = [c for c in candidates.column_names if c not in INTERNAL]
    columns = {name: candidates[name].combine_chunks() for name in kept}
    # what a list of links says of a picture stays beside what was found; shards were measured here
    links = set() if "_shard" in candidates.column_names else set(kept) - set(WORDS)
    for leg in legs:
        for number, stage in enumerate(leg.stages, leg.first_stage + 1):
            names = [n for n, t in stage.writes.items() if not pa.types.is_nested(t)]
            measured = workspace.store(leg, part).columns(stage, len(candidates), names)
            reached = pa.array((dropped_by == ALIVE) | (dropped_by >= number))
            for name, values in measured.items():
                if name in columns and (name in links or columns[name].type != values.type):
                    own = _aside(name, columns)
                    columns[own] = columns.pop(name)
                    links.discard(name)
                before = columns.get(name, pa.nulls(len(values), values.type))
                columns[name] = pc.if_else(reached, values, before)
    return pa.table(columns)


def _aside(name: str, taken: Collection[str]) -> str:
    """Return the name under which a pool's own column stays beside what a stage wrote."""
    while name in taken:
        name = f"pool_{name}"
    return name


def funnel(legs: Sequence[Leg], parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per stage: stage, kind, in, kept and dropped by reason.

    Raises Failed where in = kept + dropped does not hold in a part or in all: a pair was lost.
    """
    dropped: Counter[tuple[int, str]] = sum((part["dropped"] for part in parts), Counter())
    rows = sum(part["rows"] for part in parts)
    stages: list[Stage | None] = [None, *(stage for leg in legs for stage in leg.stages)]
    entries, entering = [], rows
    for number, stage in enumerate(stages):
        reasons = {r: n for (s, r), n in dropped.items() if s == number}
        kept = entering - sum(reasons.values())
        entries.append(
            {
                "stage": "pool" if stage is None else stage.name,
                "kind": "pool" if number == POOL else kind(stage),
                "in": entering,
                "kept": kept,
                "dropped": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            }
        )
        entering = kept
    for number, part in enumerate(parts):
        if part["rows"] != len(part["kept"]) + part["dropped"].total():
            raise Failed(f"the accounts of part {number} do not add up: delete the folder's parts/")
    if entering != sum(len(part["kept"]) for part in parts):
        raise Failed("the accounts of the build do not add up: delete the folder's parts/")
    return entries


def kind(stage: Stage | None) -> str:
    """Return the name of a stage's kind."""
    kinds = (Filter, Selector, Matcher, Annotator)
    return next((k.__name__.lower() for k in kinds if isinstance(stage, k)), "stage")
