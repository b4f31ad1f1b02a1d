"""From shards to batches: any folder of WebDataset tars, in an order that is a pure function.

In a notebook: ``Stream(open_folder("built"), batch_pairs=256, seed=0, image_px=32)``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import Batch as Batch
    from .errors import BreadthError as BreadthError
    from .folder import Folder as Folder
    from .folder import open_folder as open_folder
    from .manifest import Manifest as Manifest
    from .stream import Stream as Stream
    from .subset import read_uids as read_uids
    from .tokenize import train_tokenizer as train_tokenizer

_HOMES = {
    "Batch": "batch",
    "BreadthError": "errors",
    "Folder": "folder",
    "Manifest": "manifest",
    "Stream": "stream",
    "open_folder": "folder",
    "read_uids": "subset",
    "train_tokenizer": "tokenize",
}


def __getattr__(name: str) -> Any:
    # On first use: torch takes a second, which the error classes alone need not wait for.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
