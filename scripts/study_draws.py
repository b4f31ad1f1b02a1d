"""Draw a study's worlds as folders of shards: training pairs, and held-out scenes of the same."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from breadth.curate.shard_writer import write_folder
from breadth.loaders.manifest import MANIFEST_NAME
from breadth.loaders.world import World, caption, picture, scene
from breadth.train.evaluate.drawn import write_drawn
from breadth.train.evaluate.labels import Task, write_tasks
from breadth.train.evaluate.questions import write_questions
from breadth.train.study.design import Study

from .scene_questions import scene_questions

_CHUNK = 250  # scenes for one process at a time
_WORKERS = 2

Drawn = tuple[dict[str, Any], bytes, str]


def draw_folders(study: Study, world: str, seed: int, out: Path) -> tuple[Path, Path]:
    """Return the folders of a draw's training and held-out pairs, drawn unless they are there.

    Scenes 0 to pairs - 1 train, the next ones are held out. The name tells what is drawn, so that
    a changed dial draws another folder. Cost: about 1.5 ms a scene and core at 64 pixels.
    """
    dials = study.world(world, seed)
    wanted = f"{asdict(dials)} {study.pairs} {study.held_out_pairs} {study.picture_px}"
    folder = out / f"{world}-{seed}-{_hash(wanted + repr(study.tasks + study.templates))[:8]}"
    train, held_out = folder / "train", folder / "held_out"
    last = study.pairs + study.held_out_pairs
    for place, scenes in ((train, range(study.pairs)), (held_out, range(study.pairs, last))):
        if not (place / MANIFEST_NAME).exists():
            _write(place, study, dials, scenes, asked=place == held_out)
    return train, held_out


def draw_pairs(world: World, tasks: Sequence[str], px: int, indices: Sequence[int]) -> list[Drawn]:
    """Draw some scenes as pairs ready to be written, with their labels as columns."""
    pairs = []
    for index in indices:
        drawn = scene(world, index)
        encoded = io.BytesIO()
        Image.fromarray(picture(drawn, px)).save(encoded, "PNG")
        labels = {task: drawn.labels[task] for task in tasks}
        uid = _uid(world, index)
        pairs.append(({"uid": uid, "caption": caption(drawn), **labels}, encoded.getvalue(), "png"))
    return pairs


def _write(folder: Path, study: Study, world: World, scenes: range, asked: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [Task(task, task, tuple(world.classes(task)), study.templates) for task in study.tasks]
    write_tasks(folder, tasks)
    if asked:
        write_questions(folder, scene_questions(world, scenes, partial(_uid, world)))
    write_drawn(folder, world, scenes)
    pairs = _drawn(world, study.tasks, study.picture_px, scenes)
    write_folder(folder, pairs, name=folder.name, pairs_per_shard=2000)


def _drawn(world: World, tasks: Sequence[str], px: int, scenes: range) -> Iterator[Drawn]:
    chunks = [scenes[i : i + _CHUNK] for i in range(0, len(scenes), _CHUNK)]
    draw = partial(draw_pairs, world, tasks, px)
    if len(chunks) == 1:
        yield from draw(chunks[0])
        return
    # A fork would copy the threads' locks of torch, which the parent has loaded.
    with ProcessPoolExecutor(_WORKERS, mp_context=get_context("spawn")) as pool:
        for pairs in pool.map(draw, chunks):
            yield from pairs


def _uid(world: World, index: int) -> str:
    return _hash(f"{asdict(world)} {index}")


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
