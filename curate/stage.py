"""What a stage is: four kinds, one for each way the work is spread over parts."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

STAGES: dict[str, type["Stage"]] = {}
"""Every stage by its registered name; ``breadth.curate.stages`` fills it."""


class Stage:
    """One step of a recipe: a frozen dataclass whose fields are its options.

    ``reads`` names the columns the stage is given, ``reads_if_there`` those it is given where the
    pool or an earlier stage has them, ``writes`` those ``annotate`` returns; they may be properties
    where they depend on an option. ``thresholds`` names the options that change only
    the verdict: all others are taken to change what is measured. Raise ``version`` when the code
    measures something else than before.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    resource: ClassVar[str] = "cpu"  # network, cpu or gpu: a leg ends where it changes
    overlaps: bool = False  # mostly waits, and may run beside another part in one process
    thresholds: ClassVar[tuple[str, ...]] = ()
    reads: tuple[str, ...] = ()
    reads_if_there: tuple[str, ...] = ()
    writes: Mapping[str, pa.DataType] = {}

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = name
            STAGES[name] = cls

    def annotate(self, pairs: pa.Table) -> Mapping[str, Any]:
        """Measure each pair by itself: column name -> one value per row of ``pairs``."""
        return {}

    def options(self) -> dict[str, Any]:
        """Return the options that a recipe may set, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}  # type: ignore[arg-type]

    def measuring(self) -> dict[str, Any]:
        """Return the options that change what ``annotate`` writes."""
        return {k: v for k, v in self.options().items() if k not in self.thresholds}

    @classmethod
    def required_options(cls) -> set[str]:
        """Return the names of the options without a default."""
        return {
            f.name
            for f in fields(cls)  # type: ignore[arg-type]
            if f.default is MISSING and f.default_factory is MISSING
        }


class Annotator(Stage):
    """Adds columns and drops nothing."""


class Filter(Stage):
    """Adds columns, then says of each pair by itself whether it stays."""

    def keep(self, pairs: pa.Table) -> pa.BooleanArray:
        """Return one verdict per row; null counts as False.

        ``pairs`` holds the columns the stage reads and writes, without ``image``: what the verdict
        needs was stored by ``annotate``, so another threshold measures nothing again.
        """
        raise NotImplementedError

    def reason(self, dropped: pa.Table) -> Any:
        """Return one short word or phrase per dropped row; None says the stage's name is enough."""
        return None


class Selector(Stage):
    """Looks at a small sketch of every pair at once, then decides row by row.

    Sketches are int64 arrays that merge by addition. A selector that needs several looks sets
    ``passes``; look k is given the merged sketches of the looks before it.
    """

    passes: ClassVar[int] = 1

    def sketch(self, pairs: pa.Table, states: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return this part's int64 sketch for look ``len(states)``."""
        raise NotImplementedError

    def keep(self, pairs: pa.Table, states: tuple[np.ndarray, ...]) -> pa.BooleanArray:
        """Return one verdict per row, from the row (with ``uid``) and the merged sketches."""
        raise NotImplementedError


class Matcher(Stage):
    """Finds pairs that are too alike; the engine keeps the first of each in priority order.

    Priority is the column named by the option ``prefer`` (larger first) where one is set, then
    larger original area, then smaller uid. A pair is kept unless a kept pair before it is too
    like it, so every dropped pair has a kept witness.
    """

    capacity: int | None = None
    """Where set, the pairs of a bucket are equals and at most so many stay; edges are not asked."""

    def keys(self, pairs: pa.Table) -> pa.Table:
        """Put pairs in buckets.

        Returns a table with ``row`` (int64, index into ``pairs``), ``bucket`` (uint64), ``kind``
        (string: the drop reason) and any columns ``edges`` needs. ``pairs`` holds the columns the
        stage reads and writes, without ``image``. A pair may be in several buckets or in none.
        """
        raise NotImplementedError

    def edges(self, bucket: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Name the pairs of one bucket that are too alike.

        ``bucket`` is rows of ``keys`` in priority order. Returns left and right (indices into
        ``bucket``, left < right) and their distance (float32).
        """
        raise NotImplementedError
