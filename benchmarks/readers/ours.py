"""Breadth's own loader, in its shuffled order."""

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from breadth.loaders.errors import ShardError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.plan import Order
from breadth.loaders.stream import Stream

from .task import BATCH_PAIRS, WORKERS, Batches, Task


def convert(task: Task) -> None:
    """Write the state of a stream in the middle of an epoch, where others convert the pictures."""
    state = _stream(task).state() | {"position": task.position}
    Path(task.to).write_text(json.dumps(state))


def raw(task: Task) -> Batches:
    """Picture and caption, copied out of the tar, for ever, in this process."""
    return _raw(task, bytes)


def raw_views(task: Task) -> Batches:
    """The same without a copy: views of the page cache, as the decoder takes them."""
    return _raw(task, lambda view: view)


def subset(task: Task) -> Batches:
    """Only the pairs whose uid is listed, looked up for each pass; no other is read."""
    folder = open_folder(task.folder)
    while True:
        order = _order(folder, folder.rows_of(task.kept))
        for start in range(0, len(order), BATCH_PAIRS):
            yield _pairs(folder, order.rows(start, min(start + BATCH_PAIRS, len(order))), bytes)


def decoded(task: Task) -> Batches:
    """Random pieces of pictures, made by two threads in a process of their own."""
    return _images(_stream(task))


def resumed(task: Task) -> Batches:
    """The same from the middle of an epoch."""
    return _images(_stream(task, process=True, state=json.loads(Path(task.state).read_text())))


def resumed_here(task: Task) -> Batches:
    """The same with the threads in this process: no other has to start and import."""
    return _images(_stream(task, process=False, state=json.loads(Path(task.state).read_text())))


def _images(stream: Stream) -> Batches:
    for batch in stream:
        yield batch.images


def _stream(task: Task, process: bool = True, state: dict[str, Any] | None = None) -> Stream:
    return Stream(
        open_folder(task.folder),
        batch_pairs=BATCH_PAIRS,
        seed=0,
        image_px=task.px,
        augment="random_resized_crop",
        workers=WORKERS,
        process=process,
        state=state,
    )


def _order(folder: Folder, rows: np.ndarray) -> Order:
    return Order(folder.shard_of, rows, seed=0, digest=folder.digest)


def _raw(task: Task, copied: Callable[[Any], Any]) -> Batches:
    folder = open_folder(task.folder)
    order = _order(folder, np.arange(len(folder)))
    for start in cycle(range(0, len(folder), BATCH_PAIRS)):
        yield _pairs(folder, order.rows(start, start + BATCH_PAIRS), copied)


def _pairs(folder: Folder, rows: np.ndarray, copied: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
    """Read pairs; one that cannot be read has no place in a benchmark."""
    pictures, captions = folder.pictures(rows), folder.captions(rows)
    for found in (*pictures, *captions):
        if isinstance(found, ShardError):
            raise found
    return list(zip(map(copied, pictures), captions, strict=True))
