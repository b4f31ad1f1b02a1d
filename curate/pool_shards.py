"""Read the candidates of an existing WebDataset, img2dataset or Breadth folder."""

from pathlib import Path

import pyarrow as pa

from breadth.loaders.folder import open_folder
from breadth.loaders.manifest import find_shards

from .schema import VERDICT


def shard_folder(path: str) -> Path | None:
    """Return the folder if it holds shards, else None."""
    folder = Path(path)
    if not folder.is_dir() or not (
        any(folder.glob("*.tar")) or any(folder.glob("shards/*.tar")) or _names_shards(folder)
    ):
        return None
    return folder


def _names_shards(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and bool(find_shards(folder))


def read_shards(folder: Path) -> pa.Table:
    """Read every pair's columns, with ``_shard`` and ``_row`` to find its picture again."""
    return open_folder(folder).candidates(tuple(VERDICT))
