"""Score a run on a data folder: zero-shot, retrieval and linear probes, each beside chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from breadth.loaders.decode import DecodeError, decode
from breadth.loaders.errors import PoolError, Refused
from breadth.loaders.folder import Folder, open_folder

from ..checkpoint import Run, load_run
from ..run_folder import read_config
from .labels import Task, read_tasks
from .probe import probe, split_by_uid
from .retrieval import distinct, retrieve
from .zero_shot import fill, zero_shot

_AT_ONCE = 256
_FEWEST_TEST_PAIRS = 10


@dataclass(frozen=True)
class Pairs:
    """The pairs a run is scored on: those of a folder whose picture can be decoded."""

    uids: list[str]
    captions: list[str]
    labels: dict[str, np.ndarray]  # by task: index of the class, int64 [n]; -1 without a label
    embedded: np.ndarray | None  # float32 [n, D] of norm 1; None where a run has no joint space
    features: np.ndarray  # float32 [n, W], pooled, before any projection
    undecodable: int


def evaluate(run_path: str | Path, data: str | Path, *, limit: int | None = None) -> dict[str, Any]:
    """Score a run on the pairs of a folder, or on ``limit`` of them drawn by hash of their uid.

    The result has ``zero_shot`` and ``probe`` by task of the folder's labels.json, ``retrieval``
    by direction, and ``notes`` on whatever has no score and why. Cost: one pass over the pictures
    without gradients, O(pairs x captions) similarities, five small regressions per task.
    """
    data = Path(data)
    run, folder, tasks = load_run(run_path), open_folder(data), read_tasks(data)
    pairs = read_pairs(run, folder, tasks, limit)
    notes = list(_notes(run, folder, pairs, data, tasks))
    result: dict[str, Any] = {
        "run": run.recipe.name,
        "run_digest": run.digest,
        "step": run.step,
        "terms": dict(run.recipe.term_weights),
        "data_digest": folder.digest,
        "pairs": len(pairs.uids),
        "zero_shot": {},
        "retrieval": {},
        "probe": {},
        "notes": notes,
    }
    if pairs.embedded is not None:
        captions, _ = distinct(pairs.captions)
        result["retrieval"] = retrieve(pairs.embedded, pairs.captions, run.embed_captions(captions))
    for task in tasks:
        if pairs.embedded is not None:
            result["zero_shot"][task.name] = _zero_shot(run, pairs.embedded, pairs, task)
        score = _probe(pairs, task)
        if score is None:
            notes.append(f"probe of {task.name}: too few labelled pairs to split three ways")
        else:
            result["probe"][task.name] = score
    return result


def read_pairs(run: Run, folder: Folder, tasks: Sequence[Task], limit: int | None) -> Pairs:
    """Decode, embed and label the pairs of a folder, a few hundred pictures at a time."""
    labels = {task.name: _labels(folder, task) for task in tasks}
    kept: list[int] = []
    captions: list[str] = []
    embedded, features = [], []
    uids = list(folder.uids)
    rows = _draw(uids, limit)
    for start in range(0, len(rows), _AT_ONCE):
        pictures = []
        for row in rows[start : start + _AT_ONCE]:
            try:
                pictures.append(decode(folder.image(row), run.recipe.image_px))
            except DecodeError:
                continue
            kept.append(row)
            captions.append(folder.caption(row))
        if pictures:
            images = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
            features.append(run.features(images))
            if run.has_joint_space:
                embedded.append(run.embed_pictures(images))
    if not kept:
        raise PoolError("the data folder holds no picture that can be decoded")
    return Pairs(
        [uids[row] for row in kept],
        captions,
        {name: values[kept] for name, values in labels.items()},
        np.concatenate(embedded) if embedded else None,
        np.concatenate(features),
        len(rows) - len(kept),
    )


def _draw(uids: Sequence[str], limit: int | None) -> list[int]:
    if limit is None or limit >= len(uids):
        return list(range(len(uids)))
    if limit < 1:
        raise Refused(f"cannot score {limit} pairs: the limit must be at least 1")
    ranked = sorted((blake2b(uid.encode()).digest(), row) for row, uid in enumerate(uids))
    return sorted(row for _, row in ranked[:limit])


def _labels(folder: Folder, task: Task) -> np.ndarray:
    values = folder.column(task.column).to_pylist()
    place = {name: index for index, name in enumerate(task.classes)}
    unknown = sorted({str(v) for v in values if v is not None and v not in place})
    if unknown:
        raise PoolError(
            f"labels.json: column {task.column} holds {unknown[0]!r}, which is not among the "
            f"classes of task {task.name}"
        )
    return np.array([-1 if v is None else place[v] for v in values], dtype=np.int64)


def _zero_shot(run: Run, embedded: np.ndarray, pairs: Pairs, task: Task) -> dict[str, Any]:
    known = pairs.labels[task.name] >= 0
    prompts = run.embed_captions(fill(task.templates, task.classes))
    prompts_CTD = prompts.reshape(len(task.classes), len(task.templates), -1)
    return zero_shot(embedded[known], prompts_CTD, pairs.labels[task.name][known]).as_dict()


def _probe(pairs: Pairs, task: Task) -> dict[str, Any] | None:
    labels = pairs.labels[task.name]
    known = np.flatnonzero(labels >= 0)
    split = split_by_uid([pairs.uids[row] for row in known])
    if len(split.test) < _FEWEST_TEST_PAIRS or not len(split.validation):
        return None
    return probe(pairs.features[known], labels[known], len(task.classes), split)


def _notes(
    run: Run, folder: Folder, pairs: Pairs, data: Path, tasks: Sequence[Task]
) -> Sequence[str]:
    notes = []
    if pairs.embedded is None:
        notes.append(
            f"{run.recipe.name} has no joint space of pictures and captions (no InfoNCE term), so "
            "it has no zero-shot and no retrieval score; its features are probed"
        )
    if not tasks:
        notes.append(f"{data} has no labels.json, so there is no zero-shot and no probe score")
    if read_config(run.path).get("data", {}).get("digest") == folder.digest:
        notes.append("the run was trained on pairs of this folder: no score on new ones")
    if pairs.undecodable:
        notes.append(f"{pairs.undecodable} pictures cannot be decoded and are left out")
    return notes
