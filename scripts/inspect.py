"""breadth inspect: what is in a folder of shards, and whether all of it is right."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from breadth.loaders.folder import Folder

SAMPLE_PAIRS = 5


@click.command(epilog="Example: breadth inspect shards/basic --verify")
@click.argument("folder", metavar="DIR")
@click.option("--verify", is_flag=True, help="Check every hash, every account and every tar.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def inspect(folder: str, verify: bool, as_json: bool) -> None:
    """Show counts, columns, recipe and some pairs of DIR: a build, or any WebDataset folder.

    DIR may be far away (s3://...), but for --verify, which reads everything twice.
    """
    found = inspect_folder(folder)
    if verify:
        found["verified"] = verify_folder(folder)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False, default=str))
    else:
        _show(found)


def inspect_folder(path: str | Path) -> dict[str, Any]:
    """Describe a folder of shards, or a URL of one, as JSON; raises as ``open_folder`` does."""
    from breadth.loaders.folder import open_folder
    from breadth.loaders.manifest import MANIFEST_NAME, Manifest
    from breadth.loaders.remote import read_beside

    folder = open_folder(path)
    text = None if str(path).endswith(".tar") else read_beside(path, MANIFEST_NAME)
    manifest = Manifest.parse(text, f"{path}/{MANIFEST_NAME}") if text is not None else None
    return {
        "name": manifest.name if manifest else str(path).rstrip("/").rpartition("/")[2],
        "pairs": len(folder),
        "shards": len(folder.shards),
        "bytes": folder.storage.bytes,
        "columns": dict(manifest.columns) if manifest else dict.fromkeys(folder.column_names, "?"),
        "recipe": manifest.recipe if manifest else "",
        "funnel": [dict(entry) for entry in manifest.funnel] if manifest else [],
        "manifest": manifest.digest if manifest else None,
        "samples": [_sample(folder, row) for row in _spread(len(folder))],
    }


def verify_folder(path: str | Path) -> list[str]:
    """Check all there is to check and say what was; raises ShardError at the first that is wrong.

    Raises Refused for a URL. Cost: reads every shard twice.
    """
    from breadth.loaders.accounts import check_accounts
    from breadth.loaders.errors import Refused
    from breadth.loaders.index import index_tar, read_index
    from breadth.loaders.manifest import MANIFEST_NAME, Manifest, find_shards
    from breadth.loaders.remote import is_url

    from .funnel import counted

    if is_url(path):
        raise Refused(f"{path} is far away and would be read twice: copy it here to verify it")
    path = Path(path)
    shards = find_shards(path)
    checked = []
    if (path / MANIFEST_NAME).is_file():
        manifest = Manifest.read(path)
        manifest.verify(path)
        check_accounts(path, manifest)
        checked.append(f"{counted(len(shards), 'shard')} checked by sha256")
        checked.append("all accounts agree" if manifest.funnel else "counts agree (no funnel)")
    else:
        checked.append("there is no manifest: hashes and accounts were not checked")
    for shard in _tracked(shards):
        _compare(shard, index_tar(shard), read_index(shard, path))
    return [*checked, f"{counted(len(shards), 'tar')} walked: whole, and as the index says"]


def _compare(shard: Path, walked: Any, stored: Any) -> None:
    from breadth.loaders.errors import ShardError
    from breadth.loaders.index import refuse_damage

    refuse_damage(shard, walked)
    if stored["image_crc"].null_count == len(stored):  # walked, too: there is no index file
        walked, stored = (table.drop_columns("image_crc") for table in (walked, stored))
    if not walked.equals(stored):
        raise ShardError(f"the index of shard {shard} is of another tar: delete it and run again")


def _tracked(shards: list[Path]) -> Iterable[Path]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(shards, "Walking tars", console=console, transient=True, disable=hidden)


def _spread(pairs: int) -> list[int]:
    return sorted({i * pairs // SAMPLE_PAIRS for i in range(SAMPLE_PAIRS)})


def _sample(folder: "Folder", row: int) -> dict[str, Any]:
    columns = folder.columns(row)
    return {
        "uid": folder.uids[row],
        "shard": folder.shards[int(folder.shard_of[row])].name,
        "bytes": folder.index["image_length"][row].as_py(),
        "size": [columns.get("width"), columns.get("height")],
        "caption": folder.caption(row),
    }


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    from breadth.loaders.manifest import Manifest

    from .funnel import counted, show_funnel

    console = Console()
    size = f"{found['bytes'] / 1e6:,.1f} MB"
    count = f"{counted(found['pairs'], 'pair')} in {counted(found['shards'], 'shard')}"
    console.print(f"[bold]{escape(found['name'])}[/]: {count}, {size}")
    if found["funnel"]:
        show_funnel(Manifest(found["name"], funnel=tuple(found["funnel"])))
    columns = ", ".join(f"{name} {kind}" for name, kind in found["columns"].items())
    console.print(f"[bold]columns[/] {escape(columns)}")
    console.print(_sample_table(found["samples"]))
    if found["recipe"]:
        console.print(f"[bold]recipe[/]\n{escape(found['recipe'])}")
    for line in found.get("verified", ()):
        console.print(f"[green]✓[/] {line}")


def _sample_table(samples: list[dict[str, Any]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("uid", "shard", "bytes", "caption", box=None)
    for pair in samples:
        caption = escape(pair["caption"])
        table.add_row(pair["uid"], pair["shard"], f"{pair['bytes']:,}", caption)
    return table
