"""breadth index: index and manifest for tars that somebody else wrote."""

from pathlib import Path
from typing import Any

import click


@click.command(epilog="Example: breadth index /data/cc3m --out cc3m_index")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="INDEXDIR",
    type=click.Path(path_type=Path),
    help="Where to write, if DIR is read-only; give INDEXDIR to other commands then. "
    "[default: beside the tars]",
)
def index(folder: Path, out: Path | None) -> None:
    """Write the index of every tar in DIR and a manifest, so that DIR opens at once.

    A folder opens without them too, but then every tar is walked each time, and there is no hash
    to check it by.
    """
    manifest = index_folder(folder, out or folder)
    click.echo(f"{manifest.pairs:,} pairs in {len(manifest.shards):,} shards: {out or folder}")


def index_folder(folder: Path, out: Path) -> Any:
    """Write indexes and manifest of the tars in ``folder`` to ``out`` and return the manifest.

    A manifest of these tars that is there already is kept. Raises PoolError where there is no tar,
    ShardError for a damaged one, OutputError where ``out`` cannot be written or is of other tars.
    Cost: reads every tar once.
    """
    from breadth.loaders.errors import OutputError, PoolError
    from breadth.loaders.folder import open_folder
    from breadth.loaders.manifest import MANIFEST_NAME, Manifest, find_shards

    if folder.is_file():
        raise PoolError(f"{folder} is a file: give the folder that it is in")
    shards = find_shards(folder)
    known = Manifest.read(out) if (out / MANIFEST_NAME).is_file() else None
    if known and [shard.bytes for shard in known.shards] != [s.stat().st_size for s in shards]:
        raise OutputError(f"{out} holds the manifest of other tars: give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        entries = [_index_shard(shard, folder, out) for shard in _tracked(shards)]
        if known:
            _compare(known, entries)
            return known
        columns = open_folder(folder, out).table()
        manifest = Manifest(
            name=folder.resolve().name,
            pairs=sum(entry.pairs for entry in entries),
            columns={column.name: str(column.type) for column in columns.schema},
            shards=tuple(entries),
        )
        manifest.write(out)
    except PermissionError as error:
        raise OutputError(f"{out} cannot be written: give another folder with --out") from error
    return manifest


def _index_shard(shard: Path, folder: Path, out: Path) -> Any:
    from hashlib import file_digest

    from breadth.loaders.index import index_tar, write_index
    from breadth.loaders.manifest import Shard

    beside = shard.parent if out == folder else out
    table = index_tar(shard)
    write_index(table, beside / f"{shard.stem}.index")
    with shard.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    name = shard.name if out == folder else str(shard.resolve())
    return Shard(name, table.num_rows, shard.stat().st_size, digest)


def _compare(manifest: Any, found: list[Any]) -> None:
    from breadth.loaders.errors import ShardError

    for shard, now in zip(manifest.shards, found, strict=True):
        if (shard.pairs, shard.sha256) != (now.pairs, now.sha256):
            raise ShardError(
                f"shard {now.name} is not what its manifest says: put the right file back, or "
                "delete manifest.json and run again"
            )


def _tracked(shards: list[Path]) -> Any:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        shards, "Indexing", console=console, transient=True, disable=not console.is_terminal
    )
