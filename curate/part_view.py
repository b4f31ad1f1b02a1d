"""A part's columns and pictures, as the stages of a leg see them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .legs import Leg, picture_legs
from .pictures import Pictures
from .stage import Stage
from .workspace import Workspace


class PartView:
    """A part's candidates, what ``legs`` measured of them, and what a running leg puts on top."""

    def __init__(self, workspace: Workspace, legs: Sequence[Leg], part: int) -> None:
        self.candidates = workspace.candidates(part)
        self.rows = len(self.candidates)
        self.legs, self._workspace, self._part = tuple(legs), workspace, part
        self._columns: dict[str, pa.Array] = {}
        self._pictures: Pictures | None = None

    def column(self, name: str) -> pa.Array:
        """Return one column over all rows, as the last stage that writes it left it."""
        if name not in self._columns:
            self._columns[name] = self._load(name)
        return self._columns[name]

    def _load(self, name: str) -> pa.Array:
        for leg in reversed(self.legs):
            for stage in reversed(leg.stages):
                if name in stage.writes:
                    store = self._workspace.store(leg, self._part)
                    return store.columns(stage, self.rows, [name])[name]
        return self.candidates[name].combine_chunks()

    def has(self, name: str) -> bool:
        """Say whether the candidates have a column or a stage so far has written it."""
        written = (name in stage.writes for leg in self.legs for stage in leg.stages)
        return name in self._columns or name in self.candidates.column_names or any(written)

    def put(self, name: str, values: pa.Array) -> None:
        """Replace a column by what a stage of the running leg has measured."""
        self._columns[name] = values

    def table(self, stage: Stage, rows: np.ndarray, *, pictures: bool) -> pa.Table:
        """Return the columns a stage may see, of ``rows``."""
        names = [*stage.reads, *(n for n in stage.reads_if_there if self.has(n))]
        names += [] if pictures else [*stage.writes, "uid"]
        take = pa.array(rows, pa.int64())
        columns = {n: pc.take(self.column(n), take) for n in names if n != "image"}
        if pictures and "image" in stage.reads:
            columns["image"] = pa.array(map(self.pictures.read, rows.tolist()), pa.binary())
        return (
            pa.table(columns) if columns else pa.table({"uid": pc.take(self.column("uid"), take)})
        )

    @property
    def pictures(self) -> Pictures:
        """Return the pictures as ``legs`` left them."""
        if self._pictures is None:
            stored = picture_legs(self.legs)
            self._pictures = Pictures(self._workspace.out, self._part, self.candidates, stored)
        return self._pictures

    def close(self) -> None:
        """Close the tars that were read and forget where pictures lay."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None
