"""Write held-out scenes as a folder with labels and questions: the demo's runs are scored on it."""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import cv2

from breadth.curate.shard_writer import PairToWrite, write_folder
from breadth.loaders.manifest import MANIFEST_NAME, Manifest
from breadth.loaders.world import World, caption, picture, questions, scene
from breadth.train.evaluate.labels import Task, write_tasks
from breadth.train.evaluate.questions import Question, write_questions

_BEYOND = 1_000_000  # scenes from here on are in no pool
_TEMPLATES = ("this is a {}", "there is a {}", "you can see a {}", "this picture shows a {}")
TASKS = ("colour_shape", "shape", "colour")
_KINDS = ("colour", "shape", "texture", "background", "count")
_REST = "relation"  # what a scene with companions is asked besides


def write_heldout(world: World, n: int, seed: int, folder: Path, px: int = 64) -> Manifest:
    """Write ``n`` scenes that no pool shows, their labels as columns and questions about them.

    A finished folder is taken as is. Raises OutputError where ``n`` is 0.
    """
    if (folder / MANIFEST_NAME).is_file():
        return Manifest.read(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [Task(task, task, tuple(world.classes(task)), _TEMPLATES) for task in TASKS]
    write_tasks(folder, tasks)
    write_questions(folder, _questions(world, n, seed))
    return write_folder(folder, _pairs(world, n, seed, px), name="heldout", seed=seed)


def _pairs(world: World, n: int, seed: int, px: int) -> Iterator[PairToWrite]:
    for index in _scenes(n, seed):
        shown = scene(world, index)
        # Drawn large and shrunk, as the pool's pictures are: thin edges look the same in both.
        drawn = cv2.resize(picture(shown, 256), (px, px), interpolation=cv2.INTER_AREA)
        encoded = cv2.imencode(".jpg", drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        columns = {"uid": _uid(world, index), "caption": caption(shown), **shown.labels}
        yield columns, encoded.tobytes(), "jpg"


def _questions(world: World, n: int, seed: int) -> Iterator[Question]:
    for index in _scenes(n, seed):
        for place, (question, answer) in enumerate(questions(scene(world, index))):
            kind = _KINDS[place] if place < len(_KINDS) else _REST
            yield Question(_uid(world, index), question, answer, kind)


def _scenes(n: int, seed: int) -> range:
    return range(_BEYOND + seed * n, _BEYOND + seed * n + n)


def _uid(world: World, index: int) -> str:
    return blake2b(f"{world}/{index}".encode(), digest_size=16).hexdigest()
