"""Write held-out scenes as a folder with labels and questions: the demo's runs are scored on it."""

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path

import cv2

from breadth.curate.shard_writer import PairToWrite, write_folder
from breadth.loaders.manifest import MANIFEST_NAME, Manifest
from breadth.loaders.world import World, caption, picture, scene
from breadth.train.evaluate.drawn import write_drawn
from breadth.train.evaluate.labels import Task, write_tasks
from breadth.train.evaluate.questions import write_questions

from ..scene_questions import scene_questions

_BEYOND = 1_000_000  # scenes from here on are in no pool
_TEMPLATES = ("this is a {}", "there is a {}", "you can see a {}", "this picture shows a {}")
TASKS = ("colour_shape", "shape", "colour")


def write_heldout(world: World, n: int, seed: int, folder: Path, px: int = 64) -> Manifest:
    """Write ``n`` scenes that no pool shows, their labels as columns, questions about them and
    which scenes of which world they are.

    A finished folder is taken as is. Raises OutputError where ``n`` is 0.
    """
    if (folder / MANIFEST_NAME).is_file():
        return Manifest.read(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [Task(task, task, tuple(world.classes(task)), _TEMPLATES) for task in TASKS]
    write_tasks(folder, tasks)
    write_questions(folder, scene_questions(world, _scenes(n, seed), partial(_uid, world)))
    write_drawn(folder, world, _scenes(n, seed))
    return write_folder(folder, _pairs(world, n, seed, px), name="heldout", seed=seed)


def _pairs(world: World, n: int, seed: int, px: int) -> Iterator[PairToWrite]:
    for index in _scenes(n, seed):
        shown = scene(world, index)
        # Drawn large and shrunk, as the pool's pictures are: thin edges look the same in both.
        drawn = cv2.resize(picture(shown, 256), (px, px), interpolation=cv2.INTER_AREA)
        encoded = cv2.imencode(".jpg", drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        columns = {"uid": _uid(world, index), "caption": caption(shown), **shown.labels}
        yield columns, encoded.tobytes(), "jpg"


def _scenes(n: int, seed: int) -> range:
    return range(_BEYOND + seed * n, _BEYOND + seed * n + n)


def _uid(world: World, index: int) -> str:
    return blake2b(f"{world}/{index}".encode(), digest_size=16).hexdigest()
