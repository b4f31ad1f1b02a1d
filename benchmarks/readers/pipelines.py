"""spdl: its tar reader, and a pipeline of its threads in this process."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import spdl.io
from spdl.pipeline import PipelineBuilder

from . import crop
from .task import BATCH_PAIRS, WORKERS, Batches, Task


def raw(task: Task) -> Batches:
    """Picture and caption as they lie in the tar, for ever, in this process."""
    while True:
        yield from _batches(task)


def decoded(task: Task) -> Batches:
    """Random pieces of pictures, made by two threads a batch at a time."""
    cropped = crop.with_simplejpeg(task.px)

    def pieces(batch: list[list[Any]]) -> Any:
        return crop.stack([cropped(picture) for picture, _ in batch])

    builder = PipelineBuilder().add_source(_batches(task)).pipe(pieces, concurrency=WORKERS)
    pipeline = builder.add_sink(WORKERS).build(num_threads=WORKERS)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()


def _batches(task: Task) -> Iterator[list[list[Any]]]:
    pairs = _pairs(task)
    while batch := list(islice(pairs, BATCH_PAIRS)):
        yield batch


def _pairs(task: Task) -> Iterator[list[Any]]:
    """Yield [picture, caption] of every pair; the members of one follow each other."""
    for name in task.tars:
        key = ""
        found: dict[str, Any] = {}
        with open(name, "rb") as tar:  # noqa: PTH123
            for path, body in spdl.io.iter_tarfile(tar):
                stem, _, extension = path.partition(".")
                if stem != key:
                    if found:
                        yield [found["jpg"], str(found["txt"], "utf-8")]
                    key, found = stem, {}
                found[extension] = body
        yield [found["jpg"], str(found["txt"], "utf-8")]
