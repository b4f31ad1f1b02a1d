"""breadth export: a run's weights for other programs."""

from pathlib import Path

import click


@click.command(epilog="Example: breadth export runs/clip --out clip_hf --layout transformers")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option(
    "--layout",
    type=click.Choice(["safetensors", "transformers"]),
    default="safetensors",
    show_default=True,
    help="Breadth's names; or transformers' CLIP (architectures clip, clip_gelu) or MAE (mae).",
)
def export(run: Path, out: Path, layout: str) -> None:
    """Write RUN's weights as safetensors, with what it takes to use them.

    from_pretrained loads the layout transformers, and computes what the run computes.
    """
    from breadth.train.exchange.export import export_run

    click.echo(f"{out}: {export_run(run, out, layout)}")
