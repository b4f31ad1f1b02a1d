"""Put in rows what a run makes of drawn scenes as they are and changed, one for each answer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from breadth.loaders.errors import Refused
from breadth.loaders.world import World, scene

from ..checkpoint import Run
from .drawn import Drawn
from .frequency import frequency
from .grounding import grounding
from .predictions import Predictions
from .robustness import held_out_combinations, robustness

SCENES = 200
"""How many of a folder's scenes are drawn again and changed."""

PROBED = 500
"""How many are drawn again for probes by band, which are tested on a fifth of them."""

TASKS = ("shape", "colour")


def drawn_items(
    run: Run, drawn: Drawn, limit: int | None, notes: list[str]
) -> Iterator[Predictions]:
    """Yield the items of every score of drawn scenes that a run admits, on the first of its scenes.

    ``limit`` bounds their number further. ``notes`` is told what could not be scored.
    """
    scenes = drawn.scenes[: min(SCENES, limit or SCENES)]
    if run.has_joint_space:
        yield _grounding_items(run, drawn.world, scenes)
        if drawn.world.unseen:
            found = held_out_combinations(run, drawn.world, scenes)
            facts = {name: found[name] for name in ("task", "classes")}
            yield Predictions("held_out_combinations", pa.table(found["rows"]), facts)
    else:
        unscored = ["grounding", *(["held-out combinations"] if drawn.world.unseen else [])]
        notes.append(
            f"{run.recipe.name} compares no pictures with captions, so it has no score of "
            f"{' and none of '.join(unscored)}; robustness is that of a probe"
        )
    yield _robustness_items(run, drawn.world, scenes)
    probed = drawn.scenes[: min(PROBED, limit or PROBED)]
    yield from _frequency_items(run, drawn.world, probed, notes)


def _grounding_items(run: Run, world: World, scenes: Sequence[int]) -> Predictions:
    rows = grounding(run, [scene(world, index) for index in scenes])["rows"]
    rows["scene"] = np.asarray(scenes)[rows["scene"]]
    return Predictions("grounding", pa.table(rows), {"scenes": len(scenes)})


def _robustness_items(run: Run, world: World, scenes: Sequence[int]) -> Predictions:
    """Ask for each of TASKS in turn; scores of the two ways to answer do not compare."""
    by = "zero_shot" if run.has_joint_space else "probe"
    parts, facts = [], {}
    for task in TASKS:
        found = robustness(run, world, scenes, task, by)
        parts.append(pa.table({"task": [task] * len(scenes), **found["rows"]}))
        facts[task] = {name: found[name] for name in ("task", "by", "pool", "classes")}
    return Predictions("robustness", pa.concat_tables(parts), facts)


def _frequency_items(
    run: Run, world: World, scenes: Sequence[int], notes: list[str]
) -> Iterator[Predictions]:
    try:
        found = frequency(run, world, scenes)
    except Refused as why:
        notes.append(f"frequency: {why}")
        return
    notes += [f"frequency: {note}" for note in found["notes"]]
    rows = found["rows"]
    probes = _settings(found["probe"])
    yield _by_scene(
        "frequency", rows["probe"], scenes, {"cutoff": found["cutoff"], "probes": probes}
    )
    if found["spectrum"] is not None:
        yield _by_scene("token_spectrum", rows["spectrum"], scenes, {})


def _by_scene(
    score: str, rows: Mapping[str, np.ndarray], scenes: Sequence[int], facts: Mapping[str, Any]
) -> Predictions:
    rest = {name: values for name, values in rows.items() if name != "picture"}
    return Predictions(
        score, pa.table({"scene": np.asarray(scenes)[rows["picture"]], **rest}), facts
    )


def _settings(probe: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of scores by task, band and way what the answers do not tell."""
    return {
        task: {
            band: {
                way: {name: score[name] for name in ("classes", "strength")}
                for way, score in ways.items()
            }
            for band, ways in bands.items()
        }
        for task, bands in probe.items()
    }
