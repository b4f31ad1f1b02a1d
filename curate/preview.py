"""Say what a build would do, from the recipe and the pool's own columns; nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .legs import Leg, bind_embedders, cut
from .pool import INTERNAL, Candidates, read_pool
from .recipe import Recipe
from .stage import Filter, Stage

STAGED_BYTES_PER_PX = 0.45
"""JPEG at quality 95, bytes per pixel of a photo; measured 0.4-0.5 on 256 px photos."""


@dataclass(frozen=True)
class Preview:
    """What a build would do."""

    legs: tuple[Leg, ...]
    candidates: int
    parts: int
    known: tuple[tuple[str, int, int], ...]  # (stage, in, kept) as far as the pool's columns tell
    peak_bytes: int


def preview(recipe: Recipe, pool: str, embedder: str | None = None) -> Preview:
    """Check a recipe against a pool and say what would be done; raises RecipeError, PoolError.

    Cost: reads the pool's rows; fetches nothing.
    """
    candidates = read_pool(pool, recipe.pool, recipe.output.part_pairs)
    recipe.check(candidates.columns, candidates.has_pictures)
    legs = cut(bind_embedders(recipe, embedder), candidates.fingerprint, recipe.seed)
    known = _funnel(recipe.stages, candidates)
    peak = _peak_bytes(recipe, candidates)
    return Preview(legs, candidates.count, len(candidates.parts), known, peak)


def _funnel(stages: Sequence[Stage], candidates: Candidates) -> tuple[tuple[str, int, int], ...]:
    """Run the filters that need nothing but the pool's own columns."""
    table = pa.concat_tables(candidates.parts)
    alive = table.filter(pc.is_null(table["_dropped"]))
    steps: list[tuple[str, int, int]] = [("pool", len(table), len(alive))]
    for stage in stages:
        if not isinstance(stage, Filter) or not set(stage.reads) <= _own(table, stages, stage):
            continue
        columns = stage.annotate(alive.select(list(stage.reads)))
        seen = alive.select(["uid", *(c for c in stage.reads if c != "uid")])
        for name, values in columns.items():
            seen = seen.append_column(name, values)
        kept = alive.filter(pc.fill_null(stage.keep(seen), False))
        steps.append((stage.name, len(alive), len(kept)))
        alive = kept
    return tuple(steps)


def _own(table: pa.Table, stages: Sequence[Stage], upto: Stage) -> set[str]:
    """Return the pool's columns that no earlier stage replaces, if ``upto`` can run on them."""
    if upto.resource != "cpu":
        return set()
    own = {c for c in table.column_names if c not in INTERNAL}
    for stage in stages:
        if stage is upto:
            break
        own -= set(stage.writes)
    return own


def _peak_bytes(recipe: Recipe, candidates: Candidates) -> int:
    """Estimate the disk a build takes at its peak: staged pictures, and the shards beside them."""
    names = [stage.name for stage in recipe.stages]
    if "download" not in names:
        return 0
    place = names.index("download")
    download: Any = recipe.stages[place]
    *_, (_, _, fetched) = _funnel(recipe.stages[:place], candidates)
    each = int(download.image_size**2 * 4 / 3 * STAGED_BYTES_PER_PX)
    return int(fetched * each * (2 if recipe.output.materialise else 1))
