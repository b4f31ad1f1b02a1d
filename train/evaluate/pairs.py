"""What a run makes of every picture of a data folder: looked at once, scored in many ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from breadth.loaders.decode import DecodeError, decode
from breadth.loaders.errors import PoolError, Refused
from breadth.loaders.folder import Folder, raised

from ..checkpoint import Run
from ..generate import describe, reconstruct
from .captioning import caption_loss
from .labels import Task

_AT_ONCE = 256


@dataclass(frozen=True)
class Pairs:
    """The pairs a run is scored on: those of a folder whose picture can be decoded."""

    uids: list[str]
    captions: list[str]
    labels: dict[str, np.ndarray]  # by task: index of the class, int64 [n]; -1 without a label
    embedded: np.ndarray | None  # float32 [n, D] of norm 1; None where a run has no joint space
    features: np.ndarray  # float32 [n, W], pooled, before any projection
    descriptions: list[str] | None  # of a run that writes captions
    caption_loss: np.ndarray | None  # [n, 2]: its caption's summed cross entropy and tokens
    masked_loss: np.ndarray | None  # [n, 2]: on hidden patches, and the mean patch's
    undecodable: int


def read_pairs(run: Run, folder: Folder, tasks: Sequence[Task], limit: int | None) -> Pairs:
    """Decode, embed and label the pairs of a folder, a few hundred pictures at a time."""
    labels = {task.name: _labels(folder, task) for task in tasks}
    kept: list[int] = []
    captions: list[str] = []
    looks: list[dict[str, np.ndarray]] = []
    uids = list(folder.uids)
    rows = _draw(uids, limit)
    for start in range(0, len(rows), _AT_ONCE):
        images, shown = _decoded(folder, rows[start : start + _AT_ONCE], run.recipe.image_px)
        if shown:
            looks.append(look(run, images, list(shown.values()), start))
            kept += shown.keys()
            captions += shown.values()
    if not kept:
        raise PoolError("the data folder holds no picture that can be decoded")
    seen = {name: np.concatenate([each[name] for each in looks]) for name in looks[0]}
    described = seen.get("descriptions")
    return Pairs(
        [uids[row] for row in kept],
        captions,
        {name: values[kept] for name, values in labels.items()},
        seen.get("embedded"),
        seen["features"],
        None if described is None else described.tolist(),
        seen.get("caption_loss"),
        seen.get("masked_loss"),
        len(rows) - len(kept),
    )


def _decoded(folder: Folder, rows: list[int], px: int) -> tuple[np.ndarray, dict[int, str]]:
    """Return what can be decoded of some rows, asked for at once: pictures, captions by row."""
    asked = np.array(rows)
    pictures, captions = [], {}
    views = zip(rows, folder.pictures(asked), folder.captions(asked), strict=True)
    for row, encoded, caption in views:
        try:
            pictures.append(decode(raised(encoded), px))
        except DecodeError:
            continue
        captions[row] = raised(caption)
    images_nHWC = np.stack(pictures) if pictures else np.empty((0, px, px, 3), np.uint8)
    return np.ascontiguousarray(images_nHWC.transpose(0, 3, 1, 2)), captions


def look(run: Run, images: np.ndarray, captions: list[str], seed: int) -> dict[str, np.ndarray]:
    """Return by name what a run makes of some pictures, uint8 [n, 3, H, W], by its abilities.

    ``seed`` draws which patches are hidden.
    """
    seen = {"features": run.features(images)}
    if run.has_joint_space:
        seen["embedded"] = run.embed_pictures(images)
    if run.has_captioner:
        seen["descriptions"] = np.array(describe(run, images), dtype=object)
        seen["caption_loss"] = np.stack(caption_loss(run, images, captions), axis=1)
    if run.has_pixels:
        filled = reconstruct(run, images, seed)
        seen["masked_loss"] = np.stack([filled.loss_n, filled.flat_loss_n], axis=1)
    return seen


def _draw(uids: Sequence[str], limit: int | None) -> list[int]:
    if limit is None or limit >= len(uids):
        return list(range(len(uids)))
    if limit < 1:
        raise Refused(f"cannot score {limit} pairs: the limit must be at least 1")
    ranked = sorted((blake2b(uid.encode()).digest(), row) for row, uid in enumerate(uids))
    return sorted(row for _, row in ranked[:limit])


def _labels(folder: Folder, task: Task) -> np.ndarray:
    values = [None if v is None else str(v) for v in folder.column(task.column).to_pylist()]
    place = {name: index for index, name in enumerate(task.classes)}
    unknown = sorted({v for v in values if v is not None and v not in place})
    if unknown:
        raise PoolError(
            f"labels.json: column {task.column} holds {unknown[0]!r}, which is not among the "
            f"classes of task {task.name}"
        )
    return np.array([-1 if v is None else place[v] for v in values], dtype=np.int64)
