"""breadth train: train a run on a folder of pairs, or go on with an interrupted one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


@click.command(
    epilog="Example: breadth train demo_maeclip --data out/basic --out runs/maeclip --device cpu"
)
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of pairs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--subset", help="File of uids to use: .txt (one a line), .parquet or .npy.")
@click.option("--device", help="cpu, cuda or cuda:N; by default cuda where there is one.")
def train(recipe: str, data: Path, out: Path, subset: str | None, device: str | None) -> None:
    """Train RECIPE, a shipped name or a TOML file, on the pairs of a folder.

    The same command goes on with an interrupted run, as if it had never stopped.
    """
    import torch

    from breadth.train import loop
    from breadth.train.recipe import load_recipe

    chosen = load_recipe(recipe)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    uids = None if subset is None else read_subset(subset)
    if uids is not None:
        click.echo(found_text(data, uids), err=True)
    with progress_bar(chosen.steps) as progress:
        metrics = loop.train(chosen, data, out, subset=uids, device=device, progress=progress)
    losses = ", ".join(f"{name} {metrics[name]:.3f}" for name in ("loss", *chosen.weights))
    click.echo(f"{out}: {metrics['step']} steps of {chosen.name}, {losses}")


def read_subset(subset: str) -> list[str]:
    """Read a file of uids; raises Refused for anything else."""
    from breadth.loaders.errors import Refused
    from breadth.loaders.subset import read_uids

    path = Path(subset)
    if not path.is_file() and path.suffix not in (".txt", ".parquet", ".npy"):
        raise Refused(
            f"--subset {subset!r} is no file of uids, and expressions are not known yet;"
            " give a .txt, .parquet or .npy file"
        )
    return read_uids(path).to_pylist()


def found_text(data: Path, uids: list[str]) -> str:
    """Say how many of a list's uids the data has: a list may name more, but never silently."""
    from breadth.loaders.folder import open_folder

    found = len(open_folder(data).rows_of(uids))
    return f"{found:,} pairs of {data} are among the {len(set(uids)):,} uids of the subset"


@contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show steps, loss and speed on standard error; show nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    described = TextColumn("{task.fields[now]}")
    columns = (BarColumn(), MofNCompleteColumn(), described, Remaining())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=steps, now="begins")
        yield lambda metrics: bar.update(
            task,
            completed=metrics["step"],
            now=f"loss {metrics['loss']:.3f}  {metrics['samples_per_s']:,.0f} pairs/s",
        )
