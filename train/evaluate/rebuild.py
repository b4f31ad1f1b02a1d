"""Make scores of kept predictions: numpy and pyarrow are enough, no model and no torch.

In a notebook::

    from breadth.train.evaluate.rebuild import rebuild

    rebuild("run/predictions/0123456789abcdef")["probe"]["shape"]["value"]

``evaluate`` makes its scores by the same functions.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .drawn_scores import Columns, banded, changed, combined, heat, spectrum
from .labels import EXACT
from .predictions import Predictions, read_predictions
from .retrieval import KS, chance_at, recall_at
from .score import Score, classified, mean_by_group, ratio

Scores = dict[str, Any]


def rebuild(folder: str | Path) -> Scores:
    """Return the scores of the predictions in a folder, by name as ``evaluate`` gives them.

    Raises PoolError where the folder holds none.
    """
    found, _ = read_predictions(Path(folder))
    return scores_of(found)


def scores_of(kept: Iterable[Predictions]) -> Scores:
    """Return the scores of some predictions by name; those without any are empty."""
    found: Scores = {name: {} for name in MAKERS}
    for one in kept:
        if one.score in MAKERS:
            found[one.score] = MAKERS[one.score](one.rows, one.facts)
    return found


def classification(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Score each task's share of right classes; ``hit`` shares a tie among its classes."""
    found = {}
    for task, own in _by(rows, "task"):
        shared = {k: v for k, v in facts[task].items() if k != "classes"}
        score = classified(_numbers(own, "hit"), _texts(own, "truth"), facts[task]["classes"])
        found[task] = {**score, **shared}
    return found


def retrieval(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Score recall at each k of each way from every query's place among the items."""
    found: Scores = {}
    for way, own in _by(rows, "way"):
        above, tied, tied_right, right = (
            _numbers(own, name) for name in ("above", "tied", "tied_right", "right")
        )
        items = facts[way]["items"]
        found[way] = {"queries": own.num_rows, "items": items}
        for k in KS:
            chance = float(chance_at(items, right, k).mean())
            hits = recall_at(above, tied, tied_right, k)
            found[way][f"R@{k}"] = Score.of(hits, chance).as_dict()
    return found


def answers(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Score the answers to each kind of question beside the two controls.

    Errors take the questions about one picture for one draw. ``above`` a control is the mean
    difference on the same questions.
    """
    found: Scores = {}
    for kind, own in _by(rows, "kind"):
        truth, picture = _texts(own, "truth"), _texts(own, "uid")
        hits, *controls = (
            (_texts(own, name) == truth).astype(np.float64) for name in ("predicted", *CONTROLS)
        )
        choices = facts["choices"].get(kind, 0)
        chance = 1 / choices if choices else 0.0
        score = classified(hits, truth, max(choices, 1))
        found[kind] = {**score, **Score.clustered(hits, picture, chance).as_dict()}
        found[kind]["pictures"] = len(np.unique(picture))
        for control, others in zip(CONTROLS, controls, strict=True):
            value, error = mean_by_group(hits - others, picture)
            found[kind][control] = {
                **Score.clustered(others, picture, chance).as_dict(),
                "above": {"value": value, "standard_error": error},
            }
    return found


CONTROLS = ("question_only", "shuffled_picture")


def descriptions(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Score how often a description names the right class first, and is a caption word by word."""
    found: Scores = {}
    for task, own in _by(rows, "task"):
        hits = _numbers(own, "hit")
        if task == EXACT:
            found[task] = Score.of(hits, facts[task]["chance"]).as_dict()
            continue
        found[task] = {
            **classified(hits, _texts(own, "truth"), facts[task]["classes"]),
            "named": 1 - own["predicted"].null_count / own.num_rows,
        }
    return found


def hidden_patches(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Compare the loss on hidden patches with that of the mean patch: below 1 is learning."""
    return _ratio(rows, "loss", "mean_patch_loss")


def caption_loss(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Average a captioner's cross entropy over tokens, in nats."""
    return {**_ratio(rows, "loss", "tokens"), "tokens": int(pc.sum(rows["tokens"]).as_py())}


def grounding(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Score heat maps by method and thing, beside the middle and random weights."""
    return {**facts, "maps": heat(_columns(rows))}


def robustness(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Compare answers before and after each change, by way to answer and task."""
    found: Scores = {}
    for task, own in _by(rows, "task"):
        changes = changed(_columns(own), facts[task]["classes"])
        found.setdefault(facts[task]["by"], {})[task] = {**facts[task], "changes": changes}
    return found


def held_out_combinations(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Compare answers about seen combinations with those about their unseen twins."""
    return {**facts, **combined(_columns(rows), facts["classes"])}


def frequency(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Score probes by task, band and way."""
    return {"cutoff": facts["cutoff"], "probe": banded(_columns(rows), facts["probes"])}


def token_spectrum(rows: pa.Table, facts: Mapping[str, Any]) -> Scores:
    """Return the relative log amplitude of the patch tokens by layer and frequency."""
    return spectrum(_columns(rows))


MAKERS: dict[str, Callable[[pa.Table, Mapping[str, Any]], Scores]] = {
    "zero_shot": classification,
    "retrieval": retrieval,
    "probe": classification,
    "knn": classification,
    "vqa": answers,
    "captioning": descriptions,
    "caption_loss": caption_loss,
    "reconstruction": hidden_patches,
    "grounding": grounding,
    "robustness": robustness,
    "held_out_combinations": held_out_combinations,
    "frequency": frequency,
    "token_spectrum": token_spectrum,
}
"""What makes each score, in the order in which they are shown."""


def _ratio(rows: pa.Table, above: str, below: str) -> Scores:
    value, error = ratio(_numbers(rows, above), _numbers(rows, below))
    return {"value": value, "n": rows.num_rows, "standard_error": error}


def _by(rows: pa.Table, column: str) -> list[tuple[str, pa.Table]]:
    """Cut a table by a column's values, in the order in which they first come."""
    names = pc.unique(rows[column]).to_pylist()
    return [(name, rows.filter(pc.equal(rows[column], name))) for name in names]


def _columns(rows: pa.Table) -> Columns:
    texts = {field.name for field in rows.schema if field.type == pa.string()}
    return {n: (_texts if n in texts else _numbers)(rows, n) for n in rows.column_names}


def _numbers(rows: pa.Table, column: str) -> np.ndarray:
    return rows[column].to_numpy()


def _texts(rows: pa.Table, column: str) -> np.ndarray:
    return rows[column].to_numpy(zero_copy_only=False).astype(str)
