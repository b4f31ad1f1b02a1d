"""breadth report: the page that shows what is in one build, or several beside each other."""

from pathlib import Path

import click


@click.command(
    epilog="Example: breadth report shards/basic shards/clip_top30 --out compared.html",
)
@click.argument(
    "folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--embedder",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Measure diversity with this run too, beside random_features.",
)
@click.option(
    "--out",
    metavar="FILE.html",
    type=click.Path(path_type=Path),
    help="Where the page goes; its numbers go beside it as .json. [default: DIR/report.html]",
)
def report(folders: tuple[Path, ...], embedder: Path | None, out: Path | None) -> None:
    """Show what is in DIR: funnel, drop reasons, columns, pictures, duplicates, diversity.

    The page is one file that needs no network. With several DIRs their funnels and figures stand
    beside each other, diversity at equal numbers of pairs.
    """
    from breadth.curate.report import report as write_report

    write_report(folders, out=out, embedder=embedder)
    click.echo(str(out or folders[0] / "report.html"))
