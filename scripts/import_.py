"""breadth import: another's CLIP as a run."""

from pathlib import Path

import click


@click.command(name="import", epilog="Example: breadth import clip-vit-base-patch32 --out runs/b32")
@click.argument("source", metavar="FOLDER|FILE", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new run's folder.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="The weights' tokenizer.json, where none lies beside them.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="An open_clip checkpoint's configuration (JSON), where none lies beside it.",
)
def import_(source: Path, out: Path, tokenizer: Path | None, config: Path | None) -> None:
    """Make a run of transformers' CLIP folder, or of open_clip's folder or checkpoint.

    The run can be evaluated, embeds for curation, and is a --start of training.
    """
    from breadth.train.exchange.adopt import import_run

    recipe = import_run(source, out, tokenizer=tokenizer, config=config)
    side, patch = recipe.image_px, recipe.patch_px
    click.echo(f"{out}: {recipe.architecture} of {side} px in patches of {patch}, at step 0")
