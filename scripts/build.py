"""``breadth build``: a pool goes through a recipe and becomes shards."""

from pathlib import Path

import click


@click.command(
    epilog="Example: breadth build basic --pool links.parquet --out built   "
    "(then: breadth report built)"
)
@click.argument("recipe")
@click.option(
    "--pool",
    required=True,
    help="Links (parquet, csv, tsv, txt, json, jsonl; .gz) or a folder of shards.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to build in; the same command continues there.",
)
@click.option(
    "--embedder",
    type=click.Path(path_type=Path),
    help='Run that the recipe\'s "run" embedder means.',
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Worker processes on this machine; 0 works in this one.",
)
@click.option("--scheduler", help='Address of a Dask cluster, or "sync" for one process.')
def build(
    recipe: str, pool: str, out: Path, embedder: Path | None, workers: int, scheduler: str | None
) -> None:
    """Build shards from a pool by RECIPE, a shipped recipe's name or a TOML file.

    Writes shards, a ledger with one row for every candidate, and last a manifest.
    """
    from breadth.curate.build import build as build_folder
    from breadth.curate.recipe import Recipe

    from .funnel import counted, show_funnel
    from .progress import bars

    with bars() as progress:
        manifest = build_folder(
            Recipe.read(recipe),
            pool,
            out,
            embedder=embedder,
            workers=workers,
            scheduler=scheduler,
            progress=progress,
            on_dashboard=lambda address: click.echo(f"dashboard: {address}", err=True),
        )
    show_funnel(manifest)
    shards = counted(len(manifest.shards), "shard")
    click.echo(f"{counted(manifest.pairs, 'pair')} in {shards}: {out}")
