"""breadth index: index and manifest for tars that somebody else wrote, here or far away."""

from pathlib import Path
from typing import Any

import click

THREADS = 4  # tars on their way at once
LISTED = 10  # damaged shards that are named


@click.command(epilog="Example: breadth index /data/cc3m --out cc3m_index")
@click.argument("folder", metavar="DIR")
@click.option(
    "--out",
    metavar="INDEXDIR",
    type=click.Path(path_type=Path),
    help="Where to write, if DIR is read-only or far away; give INDEXDIR to other commands then. "
    "[default: beside the tars]",
)
def index(folder: str, out: Path | None) -> None:
    """Write the index of every tar in DIR and a manifest, so that DIR opens at once.

    DIR may be a URL (s3://bucket/set) with --out. A local folder opens without an index too, but
    then every tar is walked each time, and there is no hash to check it by. Damage in a tar costs
    the pairs that it touches: they are listed, and never read.
    """
    from .funnel import counted

    manifest = index_folder(folder, out)
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    where = out or folder
    count = f"{counted(manifest.pairs, 'pair')} in {counted(len(manifest.shards), 'shard')}"
    click.echo(f"{count}, {size:,.1f} MB: {where}")
    for line in damage_in(manifest, Path(where)):
        click.echo(line, err=True)


def index_folder(folder: str | Path, out: Path | None = None) -> Any:
    """Write indexes and manifest of the tars in ``folder`` to ``out`` and return the manifest.

    A manifest of these tars that is there already is kept. Raises PoolError where there is no tar,
    ShardError for what is no tar of plain files, OutputError where ``out`` cannot be written or is
    of other tars. Cost: reads every tar once; far ones pass through ``out``, one a thread.
    """
    from breadth.loaders.errors import OutputError
    from breadth.loaders.manifest import MANIFEST_NAME, Manifest

    from .foreign_tars import find_tars

    tars = find_tars(folder)
    if tars.remote and out is None:
        raise OutputError(f"{folder} is far away: give a folder for its index with --out")
    target = out or Path(folder)
    known = Manifest.read(target) if (target / MANIFEST_NAME).is_file() else None
    if known and [shard.bytes for shard in known.shards] != [size for _, size in tars.tars]:
        raise OutputError(f"{target} holds the manifest of other tars: give another --out")
    try:
        target.mkdir(parents=True, exist_ok=True)
        entries, schema = _index_all(tars, None if target == Path(folder) else target)
        if known:
            _compare(known, entries)
            return known
        manifest = Manifest(
            name=tars.name,
            pairs=sum(entry.pairs for entry in entries),
            columns={column.name: str(column.type) for column in schema},
            shards=tuple(entries),
        )
        manifest.write(target)
    except PermissionError as error:
        raise OutputError(f"{target} cannot be written: give another folder with --out") from error
    return manifest


def damage_in(manifest: Any, folder: Path) -> list[str]:
    """Return lines that say what is damaged in an indexed folder; none where all is whole."""
    from breadth.loaders.index import damage_of, read_index_file

    from .funnel import counted

    places = (folder, folder / "shards")
    found = []
    for shard in manifest.shards:
        name = f"{Path(shard.name).stem}.index"
        file = next((place / name for place in places if (place / name).is_file()), None)
        damage = damage_of(read_index_file(file)) if file else None
        if damage and (damage.pairs or damage.gaps):
            found.append((Path(shard.name).name, damage))
    if not found:
        return []
    pairs, lost = (
        sum(getattr(damage, of) for _, damage in found) for of in ("pairs", "lost_bytes")
    )
    lines = [
        f"warning: {len(found):,} of {counted(len(manifest.shards), 'shard')} damaged: "
        f"{counted(pairs, 'pair')} cannot be read, {lost:,} bytes belong to no pair; fetch those "
        "shards again"
    ]
    for name, damage in found[:LISTED]:
        places_of = "; ".join(f"{why} at byte {begin:,}" for begin, _, why in damage.gaps[:3])
        lines.append(
            f"  {name}: {counted(damage.pairs, 'pair')}; {places_of or 'see column damage'}"
        )
    more = len(found) - LISTED
    return lines + ([f"  and {more:,} more shards"] if more > 0 else [])


def _index_all(tars: Any, elsewhere: Path | None) -> tuple[list[Any], Any]:
    """Index every tar, beside it or ``elsewhere``; returns entries and the columns of all."""
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    import pyarrow as pa

    from breadth.loaders.errors import ShardError

    with ThreadPoolExecutor(THREADS) as pool:
        done = pool.map(partial(_index_one, tars, elsewhere), tars.tars)
        results = list(_tracked(done, len(tars.tars)))
    try:
        schema = pa.unify_schemas([own for _, own in results], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ShardError(f"the shards have a column in unlike types: {error}") from error
    return [entry for entry, _ in results], schema


def _index_one(tars: Any, elsewhere: Path | None, tar: tuple[str, int]) -> tuple[Any, Any]:
    """Index one tar; returns its entry in the manifest and the schema of its pairs' columns."""
    from hashlib import file_digest

    import pyarrow.compute as pc

    from breadth.loaders.folder import Folder
    from breadth.loaders.index import index_tar, write_index
    from breadth.loaders.manifest import Shard

    address, size = tar
    with tars.at_hand(address, size, elsewhere) as path:
        table = index_tar(path)
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        write_index(table, (elsewhere or path.parent) / f"{path.stem}.index")
        schema = Folder([path], [table.filter(pc.is_null(table["damage"]))]).table().schema
        size = path.stat().st_size
    far = address if tars.remote else str(Path(address).resolve())
    return Shard(far if elsewhere else path.name, table.num_rows, size, digest), schema


def _compare(manifest: Any, found: list[Any]) -> None:
    from breadth.loaders.errors import ShardError

    for shard, now in zip(manifest.shards, found, strict=True):
        if (shard.pairs, shard.sha256) != (now.pairs, now.sha256):
            raise ShardError(
                f"shard {now.name} is not what its manifest says: put the right file back, or "
                "delete manifest.json and run again"
            )


def _tracked(done: Any, total: int) -> Any:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(done, "Indexing", total, console=console, transient=True, disable=hidden)
