"""mosaicml-streaming: its own shards (MDS), its own data loader."""

from typing import Any

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

from . import crop
from .tars import pictures
from .task import BATCH_PAIRS, WORKERS, Batches, Task


def convert(task: Task) -> None:
    """Write the folder's pictures as shards."""
    with MDSWriter(out=task.to, columns={"jpg": "bytes"}) as writer:
        for picture in pictures(task):
            writer.write({"jpg": picture})


def decoded(task: Task) -> Batches:
    """Random pieces of pictures, made by two processes."""
    return iter(_loader(task))


def resumed(task: Task) -> Batches:
    """The same from the middle of an epoch."""
    loader = _loader(task)
    loader.load_state_dict(loader.dataset.state_dict(task.position, from_beginning=True))
    return iter(loader)


class _Pieces(StreamingDataset):
    def __init__(self, folder: str, px: int) -> None:
        super().__init__(local=folder, batch_size=BATCH_PAIRS, shuffle=False)
        self._crop = crop.with_simplejpeg(px)

    def __getitem__(self, index: Any) -> Any:
        return self._crop(super().__getitem__(index)["jpg"])


def _loader(task: Task) -> Any:
    pieces = _Pieces(task.folder, task.px)
    return StreamingDataLoader(
        pieces, batch_size=BATCH_PAIRS, num_workers=WORKERS, collate_fn=crop.stack
    )
