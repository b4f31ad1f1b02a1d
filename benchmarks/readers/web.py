"""webdataset, as its documentation has it, in the order of the tars: the cheapest it offers."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import webdataset as wds
from torch.utils.data import DataLoader

from . import crop
from .task import BATCH_PAIRS, WORKERS, Batches, Task


def raw(task: Task) -> Batches:
    """Picture and caption as they lie in the tar, for ever, in this process."""
    return _lists(_pairs(task).to_tuple("jpg", "txt").repeat())


def subset(task: Task) -> Batches:
    """Only the pairs whose key is in a set, for ever; every other is read, too."""
    keep = frozenset(task.kept)
    chosen = _pairs(task).select(lambda pair: pair["__key__"] in keep)
    return _lists(chosen.to_tuple("jpg", "txt").repeat())


def decoded(task: Task) -> Batches:
    """Random pieces of pictures, made by two processes."""
    return _loaded(_pairs(task), task)


def resumed(task: Task) -> Batches:
    """The same from the middle of an epoch: there is no other way than to read the first half."""
    return _loaded(_pairs(task).slice(task.position // WORKERS, None), task)


def _pairs(task: Task) -> Any:
    return wds.WebDataset(task.tars, shardshuffle=False, workersplitter=wds.split_by_worker)


def _loaded(pairs: Any, task: Task) -> Batches:
    if task.decoder == "pillow":
        pairs = pairs.decode("pil").to_tuple("jpg")
        pairs = pairs.map_tuple(lambda picture: crop.of_picture(picture, task.px))
    else:
        pairs = pairs.to_tuple("jpg").map_tuple(crop.with_simplejpeg(task.px))
    batches = pairs.batched(BATCH_PAIRS, collation_fn=_collate)
    return iter(DataLoader(batches, batch_size=None, num_workers=WORKERS))


def _collate(pairs: Any) -> Any:
    return crop.stack([piece for (piece,) in pairs])


def _lists(pairs: Any) -> Iterator[list[Any]]:
    iterator = iter(pairs)
    while batch := list(islice(iterator, BATCH_PAIRS)):
        yield batch
