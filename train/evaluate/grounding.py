"""Does a run look at what the caption names? Heat maps against boxes of which all is known.

Each scene asks for its main object and, where it has any, for its companions. The main object is
large and near the middle, so the middle alone often hits it; companions stand at the rim.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from breadth.loaders.errors import Refused
from breadth.loaders.scene_drawing import Scene, Thing, boxes, picture

from ..checkpoint import Run
from ..initialise import initialise
from .drawn_scores import MEASURES, heat
from .heat_maps import METHODS, heat_maps

_RANDOM_RUNS = 3  # one alone may lean to the middle or the rim by luck
_TIE = 1e-6  # of a map's range: what differs less is a tie


@dataclass(frozen=True)
class Queries:
    """What is asked: a picture, a caption of a thing in it, and where that thing is."""

    scenes: np.ndarray  # int64 [q], index of the scene in the list that was given
    things: np.ndarray  # str [q], main or companions
    captions: list[str]
    images: np.ndarray  # uint8 [scenes, 3, px, px]
    targets: np.ndarray  # bool [q, px, px], the pixels that its boxes touch


def grounding(run: Run, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Score a run's heat maps by the pointing game and by the energy in the box.

    The result has ``maps`` by method and thing, each measure as a score beside those of the
    middle and of the same model with random weights (Adebayo et al. 2018, arXiv 1810.03292), with
    the paired differences; and ``rows``, columns with one value for each query and method.
    Chance is the box's share of the picture. Errors are over scenes. Cost: the maps of four
    models, a few milliseconds a scene.
    """
    run.require_joint_space()
    if not scenes:
        raise Refused("grounding needs one scene at least")
    queries = _ask(scenes, run.recipe.image_px)
    middle = _measure(np.broadcast_to(_middle(run.recipe.image_px), queries.targets.shape), queries)
    unlearnt = [randomised(run, seed) for seed in range(1, _RANDOM_RUNS + 1)]
    parts: dict[str, list[np.ndarray]] = {}
    for method in METHODS:
        columns = {
            "method": np.full(len(queries.captions), method),
            "scene": queries.scenes,
            "thing": queries.things,
            "area": queries.targets.mean(axis=(1, 2)),
            **_measure(query_maps(run, queries, method), queries),
            **{f"{name}_middle": values for name, values in middle.items()},
            **_random_measures(unlearnt, queries, method),
        }
        for name, values in columns.items():
            parts.setdefault(name, []).append(values)
    rows = {name: np.concatenate(columns) for name, columns in parts.items()}
    return {"scenes": len(scenes), "maps": heat(rows), "rows": rows}


def randomised(run: Run, seed: int) -> Run:
    """Return the run as if it had learnt nothing: weights drawn anew from ``seed``."""
    model = deepcopy(run.model).cpu()  # weights are drawn there, whatever device they are used on
    initialise(model, run.recipe.seed + seed, logit_scale=0.0)  # a cosine has no scale
    return replace(run, model=model.to(run.device))


def query_maps(run: Run, queries: Queries, method: str) -> np.ndarray:
    """Return the map of every query in pixels: float32 [q, px, px], bilinear between tokens."""
    heat = heat_maps(run, queries.images[queries.scenes], queries.captions, method)
    px = run.recipe.image_px
    return np.stack([cv2.resize(one, (px, px), interpolation=cv2.INTER_LINEAR) for one in heat])


def pointing(maps_qHW: np.ndarray, targets_qHW: np.ndarray) -> np.ndarray:
    """Return the chance that the hottest pixel, drawn among equals, is in the target: [q].

    Source: Zhang et al. 2016 (arXiv 1608.00507), section 4.2, without its margin of 15 pixels.
    """
    highest = maps_qHW.max(axis=(1, 2), keepdims=True)
    reach = highest - maps_qHW.min(axis=(1, 2), keepdims=True)
    hottest = maps_qHW >= highest - _TIE * reach
    return (hottest & targets_qHW).sum(axis=(1, 2)) / hottest.sum(axis=(1, 2))


def energy(maps_qHW: np.ndarray, targets_qHW: np.ndarray) -> np.ndarray:
    """Return the share of a map's heat, above its coldest pixel, that is in the target: [q].

    A map without any difference counts as spread evenly. Source: Wang et al. 2020 (Score-CAM,
    arXiv 1910.01279), section 4.3.
    """
    above = (maps_qHW - maps_qHW.min(axis=(1, 2), keepdims=True)).astype(np.float64)
    above[above.max(axis=(1, 2)) == 0] = 1
    return (above * targets_qHW).sum(axis=(1, 2)) / above.sum(axis=(1, 2))


def _measure(maps_qHW: np.ndarray, queries: Queries) -> dict[str, np.ndarray]:
    measured = pointing(maps_qHW, queries.targets), energy(maps_qHW, queries.targets)
    return dict(zip(MEASURES, measured, strict=True))


def _random_measures(
    unlearnt: Sequence[Run], queries: Queries, method: str
) -> dict[str, np.ndarray]:
    drawn = [_measure(query_maps(run, queries, method), queries) for run in unlearnt]
    return {f"{name}_random": np.mean([d[name] for d in drawn], axis=0) for name in MEASURES}


def _ask(scenes: Sequence[Scene], px: int) -> Queries:
    """Ask for the main object of each scene and for its companions, all of one kind."""
    asked = []
    for number, scene in enumerate(scenes):
        corners = boxes(scene, px)
        asked.append((number, "main", _naming(scene.main), _inside(corners[:1], px)))
        if scene.companions:
            words = _naming(scene.companions[0], "small ")
            asked.append((number, "companions", words, _inside(corners[1:], px)))
    numbers, things, captions, targets = zip(*asked, strict=True)
    images = np.stack([picture(scene, px).transpose(2, 0, 1) for scene in scenes])
    return Queries(np.array(numbers), np.array(things), list(captions), images, np.stack(targets))


def _naming(thing: Thing, size: str = "") -> str:
    return f"this is a {size}{thing.colour} {thing.shape}".replace(" a orange", " an orange")


def _inside(corners: np.ndarray, px: int) -> np.ndarray:
    """Return the pixels that one of the boxes touches: bool [px, px]."""
    first = np.arange(px)
    inside = np.zeros((px, px), bool)
    for left, top, right, bottom in corners:
        rows = (first + 1 > top) & (first < bottom)
        inside |= rows[:, None] & ((first + 1 > left) & (first < right))[None, :]
    return inside


def _middle(px: int) -> np.ndarray:
    """Return a map that looks at the middle whatever is there: a bell half the picture wide."""
    away = (np.arange(px) + 0.5) / px - 0.5
    bell = np.exp(-((away / 0.25) ** 2) / 2)
    return bell[:, None] * bell[None, :]
