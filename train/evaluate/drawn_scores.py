"""Make scores of what a run answered about drawn scenes: numpy is enough, no model and no torch.

Columns are those of ``rows`` that grounding, robustness, frequency and token_spectrum return.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .paired import difference
from .score import Score, classified

Columns = Mapping[str, np.ndarray]

MAPS = ("cosine", "share", "grad_cam")
"""The heat maps of a run, by their names in ``heat_maps.METHODS``."""

MEASURES = ("pointing", "energy")

CHANGES: Mapping[str, str] = {
    "background": "the same things on another background; the answer should stay",
    "companions": "the companions are gone, where there were any; the answer should stay",
    "main": "the main object is gone; an answer that stays was not read off it",
}


def heat(columns: Columns) -> dict[str, Any]:
    """Score every map by method and thing, beside the middle and random weights."""
    found: dict[str, Any] = {}
    for method in dict.fromkeys(columns["method"].tolist()):
        own = columns["method"] == method
        found[method] = _by_thing({name: values[own] for name, values in columns.items()})
    return found


def _by_thing(columns: Columns) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for thing in np.unique(columns["thing"]).tolist():
        own = columns["thing"] == thing
        chance = float(columns["area"][own].mean())
        found[thing] = {
            name: {
                **Score.of(columns[name][own], chance).as_dict(),
                **_beside(columns, name, "middle", own),
                **_beside(columns, name, "random", own),
            }
            for name in MEASURES
        }
    return found


def _beside(columns: Columns, name: str, other: str, own: np.ndarray) -> dict[str, Any]:
    theirs = columns[f"{name}_{other}"][own]
    return {other: float(theirs.mean()), f"above_{other}": difference(theirs, columns[name][own])}


def changed(columns: Columns, classes: int) -> dict[str, Any]:
    """Compare the answers before and after each of CHANGES, where it applies."""
    found = {}
    for change in CHANGES:
        asked = columns[change] >= 0
        label, before, after = (columns[name][asked] for name in ("label", "original", change))
        found[change] = {
            **_compare(before == label, after == label, 1 / classes),
            "flips": difference(np.zeros(len(label)), before != after),
        }
    return found


def combined(columns: Columns, classes: int) -> dict[str, Any]:
    """Compare the answers about seen combinations with those about their unseen twins."""
    seen, unseen = (columns[f"{n}_answer"] == columns[f"{n}_label"] for n in ("seen", "unseen"))
    names = columns["unseen_combination"]
    means = np.array([unseen[names == name].mean() for name in np.unique(names)])
    error = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")
    return {**_compare(seen, unseen, 1 / classes), "error_over_combinations": error}


def _compare(before: np.ndarray, after: np.ndarray, chance: float) -> dict[str, Any]:
    return {
        "before": Score.of(before * 1.0, chance).as_dict(),
        "after": Score.of(after * 1.0, chance).as_dict(),
        "difference": difference(before, after),
    }


def banded(columns: Columns, probes: Mapping[str, Any]) -> dict[str, Any]:
    """Score the answers by task, band and way.

    ``probes`` has, by the same three, the number of ``classes`` and the probe's ``strength``.
    """
    found: dict[str, Any] = {}
    keys = [columns[name] for name in ("task", "band", "way")]
    for task, band, way in dict.fromkeys(zip(*(key.tolist() for key in keys), strict=True)):
        own = (keys[0] == task) & (keys[1] == band) & (keys[2] == way)
        label, probe = columns["label"][own], probes[task][band][way]
        score = classified(columns["answer"][own] == label, label, probe["classes"])
        by_band = found.setdefault(task, {})
        by_band.setdefault(band, {})[way] = {**score, "strength": probe["strength"]}
    return found


def spectrum(columns: Columns) -> dict[str, Any]:
    """Return the relative log amplitude by layer and frequency of the powers of token maps."""
    layers, frequencies = (int(columns[name].max()) + 1 for name in ("layer", "cycles"))
    powers_nLF = columns["power"].reshape(-1, layers, frequencies)
    return {
        "pictures": len(powers_nLF),
        "cycles": list(range(frequencies)),
        "layers": [relative_log_amplitude(powers_nLF[:, layer]) for layer in range(layers)],
    }


def relative_log_amplitude(powers_nF: np.ndarray) -> dict[str, list[float]]:
    """Return log amplitude minus that at the lowest frequency, with errors over pictures.

    Amplitude is the root of the mean power. Errors: delta method on the ratio of means.
    """
    mean_F = powers_nF.mean(axis=0)
    if not (mean_F > 0).all():
        nothing = [float("nan")] * len(mean_F)
        return {"relative_log_amplitude": nothing, "standard_error": nothing}
    log_F = np.log(mean_F) / 2
    relative_nF = powers_nF / mean_F
    spread_F = (relative_nF - relative_nF[:, :1]).std(axis=0) / 2
    return {
        "relative_log_amplitude": (log_F - log_F[0]).tolist(),
        "standard_error": (spread_F / np.sqrt(len(powers_nF))).tolist(),
    }
