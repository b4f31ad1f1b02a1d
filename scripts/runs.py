"""breadth runs: the page that shows training runs beside each other."""

from pathlib import Path

import click


@click.command(epilog="Example: breadth runs runs/clip runs/maeclip --data shards/held_out")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DIR",
    help="Pairs to score the runs on, as breadth evaluate does; a few of them are shown. They may "
    "be far away (s3://...).",
)
@click.option(
    "--out",
    metavar="FILE.html",
    type=click.Path(path_type=Path),
    default="runs.html",
    show_default=True,
    help="Where the page goes; its numbers go beside it as .json.",
)
def runs(runs: tuple[Path, ...], data: str | None, out: Path) -> None:
    """Show RUNs beside each other: recipes, curves, scores, reconstructions, captions, heat maps.

    The page is one file that needs no network. A run in training may be shown: its curves as far
    as they go, and scores as of its last checkpoint.
    """
    from breadth.train.page.runs import write_runs_page

    write_runs_page(runs, out, data)
    click.echo(str(out))
