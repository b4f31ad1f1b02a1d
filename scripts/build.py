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
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Of a finished build, fetch again what failed for a reason that can pass.",
)
def build(
    recipe: str,
    pool: str,
    out: Path,
    embedder: Path | None,
    workers: int,
    scheduler: str | None,
    retry_failed: bool,
) -> None:
    """Build shards from a pool by RECIPE, a shipped recipe's name or a TOML file.

    Writes shards, a ledger with one row for every candidate, and last a manifest.
    """
    from breadth.curate.build import build as build_folder
    from breadth.curate.recipe import Recipe
    from breadth.curate.retry import failed_pairs
    from breadth.curate.without_pandas import keep_pandas_out

    from .funnel import counted, show_funnel
    from .progress import bars

    keep_pandas_out()
    with bars() as shown:
        manifest = build_folder(
            Recipe.read(recipe),
            pool,
            out,
            embedder=embedder,
            workers=workers,
            scheduler=scheduler,
            progress=shown.report,
            on_live=shown.live,
            on_dashboard=lambda address: click.echo(f"dashboard: {address}", err=True),
            retry_failed=retry_failed,
        )
    show_funnel(manifest)
    shards = counted(len(manifest.shards), "shard")
    click.echo(f"{counted(manifest.pairs, 'pair')} in {shards}: {out}")
    failed = failed_pairs(out / "ledger" / f"{part:05d}.parquet" for part in range(manifest.parts))
    if failed:
        can_pass = f"{counted(failed, 'pair')} failed for a reason that can pass"
        click.echo(f"{can_pass}: the same command with --retry-failed fetches them again", err=True)
    elif retry_failed:
        click.echo("no failure is left that can pass: there is nothing to fetch again", err=True)
