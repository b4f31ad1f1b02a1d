"""litdata: its own chunks, its own data loader."""

from typing import Any

from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.writer import BinaryWriter

from . import crop
from .tars import pictures
from .task import BATCH_PAIRS, WORKERS, Batches, Task

CHUNK_BYTES = 64 << 20  # what its documentation uses


def convert(task: Task) -> None:
    """Write the folder's pictures as chunks."""
    writer = BinaryWriter(task.to, chunk_bytes=CHUNK_BYTES)
    for number, picture in enumerate(pictures(task)):
        writer.add_item(number, {"jpg": picture})
    writer.done()
    writer.merge()


def decoded(task: Task) -> Batches:
    """Random pieces of pictures, made by two processes."""
    return iter(_loader(task))


def resumed(task: Task) -> Batches:
    """The same from the middle of an epoch, by a state as ``StreamingDataLoader`` makes it."""
    loader = _loader(task)
    done = {"num_samples_yielded": task.position}
    dataset = loader.dataset.state_dict(task.position, WORKERS, BATCH_PAIRS)
    loader.load_state_dict({"dataset": dataset, "current_epoch": 1, "latest_worker_idx": 1} | done)
    return iter(loader)


class _Pieces(StreamingDataset):
    def __init__(self, folder: str, px: int) -> None:
        super().__init__(folder, shuffle=False)
        self._crop = crop.with_simplejpeg(px)

    def __getitem__(self, index: Any) -> Any:
        return self._crop(super().__getitem__(index)["jpg"])


def _loader(task: Task) -> Any:
    pieces = _Pieces(task.folder, task.px)
    return StreamingDataLoader(
        pieces, batch_size=BATCH_PAIRS, num_workers=WORKERS, collate_fn=crop.stack
    )
