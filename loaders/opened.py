"""Open the shards and indexes of a local folder, and compare what was opened with its manifest."""

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from .errors import PoolError, ShardError
from .index import read_index
from .manifest import MANIFEST_NAME, Manifest, find_shards
from .storage import LocalShards, Storage


class Opened(NamedTuple):
    """What ``Folder`` is made of; where shards are far away, their names are no paths."""

    manifest: Manifest | None
    shards: list[Path]
    indexes: list[pa.Table]
    keep: pa.Array | None
    storage: Storage


def open_local(path: Path, index_dir: Path | None) -> Opened:
    """Open a local folder; raises PoolError where it is missing, unfinished or empty."""
    shards = find_shards(path)
    if not shards:
        raise PoolError(f"{path} holds no pair, its manifest says: choose another folder")
    indexes = [read_index(shard, index_dir or path) for shard in shards]
    manifest = Manifest.read(path) if (path / MANIFEST_NAME).is_file() else None
    return Opened(manifest, shards, indexes, _keep(path, manifest), LocalShards(shards))


def _keep(path: Path, manifest: Manifest | None) -> pa.Array | None:
    """Return the uids of a manifest's keep list."""
    if manifest is None or not manifest.keep_list:
        return None
    from .subset import read_uids  # slow to import

    return read_uids(path / manifest.keep_list)


def check_counts(path: str, manifest: Manifest, indexes: list[pa.Table], pairs: int) -> None:
    """Compare the pairs of every shard, and those that are kept, with a manifest's."""
    for shard, index in zip(manifest.shards, indexes, strict=True):
        if shard.pairs != index.num_rows:
            raise ShardError(
                f"shard {shard.name} holds {index.num_rows} pairs and its manifest says "
                f"{shard.pairs}: put the right file back or build again"
            )
    if pairs != manifest.pairs:
        raise ShardError(
            f"{path} holds {pairs} pairs and its manifest says {manifest.pairs}: build again"
        )
