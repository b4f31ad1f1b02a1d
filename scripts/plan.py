"""``breadth plan``: what a build would do; nothing is written."""

from pathlib import Path

import click


@click.command(epilog="Example: breadth plan basic --pool links.parquet")
@click.argument("recipe")
@click.option("--pool", required=True, help="Links or a folder of shards, as for breadth build.")
@click.option("--embedder", type=click.Path(path_type=Path), help="Run for the recipe's embedder.")
def plan(recipe: str, pool: str, embedder: Path | None) -> None:
    """Check RECIPE against a pool and print its legs, disk and the funnel as far as it is known."""
    from breadth.curate.preview import preview
    from breadth.curate.recipe import Recipe

    found = preview(Recipe.read(recipe), pool, None if embedder is None else str(embedder))
    click.echo(f"{found.candidates:,} candidates in {found.parts} parts")
    for leg in found.legs:
        barrier = "  (then every part is looked at)" if leg.barrier else ""
        click.echo(f"leg {leg.number + 1} on {leg.resource}{barrier}")
        for stage in leg.stages:
            reads, writes = ", ".join(stage.reads) or "-", ", ".join(stage.writes) or "-"
            click.echo(f"  {stage.name}: reads {reads}; writes {writes}")
    click.echo("what the pool's own columns tell:")
    for name, entering, kept in found.known:
        click.echo(f"  {name}: {entering:,} -> {kept:,}")
    if found.peak_bytes:
        click.echo(f"disk at the peak: about {found.peak_bytes / 1e9:.2g} GB if all can be fetched")
