"""Read the candidates of an existing WebDataset, img2dataset or Breadth folder."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from breadth.loaders.errors import PoolError
from breadth.loaders.folder import open_folder
from breadth.loaders.index import whole_index
from breadth.loaders.manifest import Manifest

from .schema import VERDICT


def shard_folder(path: str) -> Path | None:
    """Return the folder if it holds shards, or is a build of ours, else None."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    ours = (folder / "build.json").is_file()  # also unfinished, or without a pair: it says so
    shards = any(folder.glob("*.tar")) or any(folder.glob("shards/*.tar"))
    return folder if ours or shards or (folder / "manifest.json").is_file() else None


def read_shards(folder: Path) -> pa.Table:
    """Read every pair's columns, with ``_shard`` and ``_row`` to find its picture again.

    ``_no_picture`` marks the pairs without one. Raises PoolError, and ShardError
    where any shard is damaged: no pair may disappear unaccounted.
    """
    if (folder / "build.json").is_file() and not (folder / "manifest.json").is_file():
        raise PoolError(f"the build in {folder} is not finished: run the same build command again")
    pairs = open_folder(folder)
    for shard in pairs.shards:
        whole_index(shard, folder)
    table = pairs.candidates(tuple(VERDICT))
    table = table.append_column("_no_picture", pc.equal(pairs.index["image_length"], 0))
    if (folder / "manifest.json").is_file() and Manifest.read(folder).keep_list:
        return _with_ledger(table, folder)
    return table


def _with_ledger(table: pa.Table, folder: Path) -> pa.Table:
    """Join what a build with a keep list has measured: its staged shards are older than that."""
    parts = [pq.read_table(file) for file in sorted((folder / "ledger").glob("*.parquet"))]
    if not parts:
        return table
    ledger = pa.concat_tables(parts, promote_options="permissive")
    ledger = ledger.filter(ledger["kept"]).drop_columns(list(VERDICT))
    facts = ledger.take(pc.index_in(table["uid"], ledger["uid"].combine_chunks()))
    for name in facts.column_names:
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, facts[name])
    return table
