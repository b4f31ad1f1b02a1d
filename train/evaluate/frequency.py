"""Which frequencies a run reads: labels that one band alone tells, pictures that lack a band.

Contrastive learning is said to learn the low frequencies, masked modelling the high ones (Park
et al. 2023, arXiv 2305.00729).
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from breadth.loaders.errors import Refused
from breadth.loaders.gratings import DIRECTIONS, Gratings, between
from breadth.loaders.scene_drawing import picture
from breadth.loaders.world import World, scene

from ..checkpoint import Run
from .band_filter import high_pass, low_pass
from .drawn_scores import banded
from .probe import Split, read_off
from .token_spectrum import token_spectrum

WAYS = ("refitted", "carried")
_SPECTRUM_PICTURES = 512


def frequency(
    run: Run, world: World, indices: Sequence[int], tasks: Sequence[str] = ("colour", "shape")
) -> dict[str, Any]:
    """Probe a run's features on gratings and on scenes ``indices``, bands taken away.

    The result has ``probe`` by task and band: ``refitted`` (probe fitted and tested on filtered
    pictures: what the features still tell) and ``carried`` (fitted on whole pictures: what the
    features' use of the other band does to it); ``spectrum`` by layer, or None with a note where
    there are too few tokens; ``rows`` by table. A run needs pictures of 24 pixels. Cost: nine
    passes over ``indices`` pictures and two dozen small regressions.
    """
    px = run.recipe.image_px
    result: dict[str, Any] = {"cutoff": between(px), "probe": {}, "notes": [], "rows": {}}
    images, labels = _scenes(world, indices, px, tasks)
    classes = {task: len(world.classes(task)) for task in tasks}
    drawn = [(images, labels, classes)]
    for agree in (False, True):
        gratings, told = Gratings(world.seed, agree).draw(indices, px)
        drawn.append((_channels_first(gratings), told, dict.fromkeys(told, DIRECTIONS)))
    answers = []
    for pictures, told, counts in drawn:
        scores, rows = probe_bands(run, pictures, told, counts, between(px))
        result["probe"] |= scores
        answers.append(rows)
    result["rows"]["probe"] = {k: np.concatenate([a[k] for a in answers]) for k in answers[0]}
    try:
        spectrum = token_spectrum(run, images[:_SPECTRUM_PICTURES])
        result["rows"]["spectrum"] = spectrum.pop("rows")
    except Refused as why:
        spectrum = None
        result["notes"].append(str(why))
    return {**result, "spectrum": spectrum}


def probe_bands(
    run: Run,
    images_nCHW: np.ndarray,
    labels: Mapping[str, np.ndarray],
    classes: Mapping[str, int],
    cutoff: float,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Probe each task on whole, low-pass and high-pass pictures; return scores and answers.

    Of five pictures in a row three fit the probe, one chooses its regularisation, one tests it.
    Raises Refused for fewer than 50 pictures.
    """
    if len(images_nCHW) < 50:
        raise Refused(f"probes by band need 50 pictures or more, not {len(images_nCHW)}")
    whole = run.features(images_nCHW)
    by_band = {
        "all": whole,
        "low": run.features(low_pass(images_nCHW, cutoff)),
        "high": run.features(high_pass(images_nCHW, cutoff)),
    }
    probes: dict[str, Any] = {task: {band: {} for band in by_band} for task in labels}
    rows = []
    for task, band, way in product(labels, by_band, WAYS):
        if (band, way) != ("all", "carried"):  # whole pictures need no carrying
            fitted_on = whole if way == "carried" else by_band[band]
            strength, tested = _read(fitted_on, by_band[band], labels[task], classes[task])
            probes[task][band][way] = {"classes": classes[task], "strength": strength}
            rows.append({"task": task, "band": band, "way": way, **tested})
    columns = _columns(rows)
    return banded(columns, probes), columns


def _read(
    fitted_on_nD: np.ndarray, tested_on_nD: np.ndarray, labels_n: np.ndarray, classes: int
) -> tuple[float, dict[str, np.ndarray]]:
    """Fit a probe on some rows of the one features and test it on other rows of the other."""
    n = len(labels_n)
    fifth = np.arange(n) % 5
    train, validation, test = (np.flatnonzero(part) for part in (fifth > 1, fifth == 1, fifth == 0))
    split = Split(train, validation, test + n)
    features, twice = np.concatenate([fitted_on_nD, tested_on_nD]), np.tile(labels_n, 2)
    answers, strength = read_off(features, twice, classes, split)
    return strength, {"picture": test, "label": labels_n[test], "answer": answers}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Put answers below one another; what they share is repeated."""
    length = [len(row["answer"]) for row in rows]
    return {
        name: np.concatenate(
            [np.broadcast_to(r[name], k) for r, k in zip(rows, length, strict=True)]
        )
        for name in rows[0]
    }


def _scenes(
    world: World, indices: Sequence[int], px: int, tasks: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    shown = [scene(world, index) for index in indices]
    images = _channels_first(np.stack([picture(one, px) for one in shown]))
    places = {task: {c: i for i, c in enumerate(world.classes(task))} for task in tasks}
    labels = {task: np.array([places[task][one.labels[task]] for one in shown]) for task in tasks}
    return images, labels


def _channels_first(pictures_nHWC: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pictures_nHWC.transpose(0, 3, 1, 2))
