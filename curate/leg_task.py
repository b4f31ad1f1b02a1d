"""Run one leg on one part: measure what is missing, then decide."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.errors import Failed

from .legs import Leg
from .measuring import Measuring
from .part_view import PartView
from .stage import Filter, Stage
from .verdicts import Verdicts
from .workspace import Workspace


@dataclass(frozen=True)
class LegTask:
    """One leg on one part; ``legs`` are all up to and including the one that runs."""

    workspace: Workspace
    legs: tuple[Leg, ...]
    part: int

    @property
    def leg(self) -> Leg:
        """Return the leg that runs."""
        return self.legs[-1]

    @property
    def overlaps(self) -> bool:
        """Whether a worker may do another part meanwhile, as all stages mostly wait."""
        return all(stage.overlaps for stage in self.leg.stages)

    def __call__(self) -> None:
        """Measure and decide. A part that is done is not looked at again."""
        name = ".local" if self.leg.barrier else ""
        file = self.workspace.verdict_file(self.leg, self.part, name)
        final = self.workspace.verdict_file(self.leg, self.part)
        if not file.is_file() and not final.is_file():
            self._run().write(file)

    def _run(self) -> Verdicts:
        previous = self.legs[-2] if len(self.legs) > 1 else None
        verdicts = self.workspace.verdicts_before(self.leg, previous, self.part)
        view = PartView(self.workspace, self.legs[:-1], self.part)
        measuring = Measuring(view, self.workspace, self.leg, self.part)
        seconds: dict[str, float] = {}
        for offset, stage in enumerate(self.leg.stages):
            number = self.leg.first_stage + offset + 1
            started = time.perf_counter()
            measuring.measure(stage, verdicts.alive)
            if isinstance(stage, Filter):
                _judge(stage, number, view, verdicts)
            seconds[stage.name] = time.perf_counter() - started
        view.close()
        # where another attempt was first (of a driver that was killed, or a worker that was thought
        # dead), what it has measured counts: fetched twice, a picture can differ
        return verdicts if measuring.commit(seconds) else self._run()


def _judge(stage: Filter, number: int, view: PartView, verdicts: Verdicts) -> None:
    alive = verdicts.alive
    table = view.table(stage, alive, pictures=False)
    drop_rows(stage, number, table, stage.keep(table), alive, verdicts)


def drop_rows(
    stage: Stage, number: int, table: pa.Table, keep: Any, rows: np.ndarray, verdicts: Verdicts
) -> None:
    """Drop the rows that ``keep`` does not hold, with the stage's reasons."""
    kept = np.asarray(pc.fill_null(pa.array(keep, pa.bool_()), False))
    if len(kept) != len(rows):
        raise Failed(f"stage {stage.name} must give one verdict per pair")
    dropped = table.filter(pa.array(~kept))
    reasons = stage.reason(dropped) if isinstance(stage, Filter) and len(dropped) else None
    words = [stage.name] * len(dropped) if reasons is None else list(_words(reasons, stage.name))
    verdicts.drop(rows[~kept], number, words)


def _words(reasons: Any, default: str) -> Any:
    values = reasons.to_pylist() if hasattr(reasons, "to_pylist") else list(reasons)
    return (str(value) if value is not None else default for value in values)
