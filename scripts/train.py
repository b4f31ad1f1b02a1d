"""breadth train: train a run on a folder of pairs, or go on with an interrupted one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


@click.command(
    epilog="Example: breadth train demo_maeclip --data out/basic --out runs/maeclip --device cpu"
)
@click.argument("recipe")
@click.option("--data", required=True, help="Folder of pairs; it may be far away (s3://...).")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option(
    "--subset",
    help="Pairs to use: a file of uids (.txt, one a line, .parquet or .npy), a bitmap (.npy) or an "
    "expression over the columns, such as 'clip_score > 0.3'.",
)
@click.option(
    "--start", help="A run whose weights a new one begins with, where they fit: mae, then clip."
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, such as CLIP's or BERT's; by default one is learnt from the captions.",
)
@click.option("--device", help="cpu, cuda or cuda:N; by default cuda where there is one.")
@click.option(
    "--shard", is_flag=True, help="Ranks share out the model's parameters, for large sizes (FSDP2)."
)
def train(
    recipe: str,
    data: str,
    out: Path,
    subset: str | None,
    start: str | None,
    tokenizer: Path | None,
    device: str | None,
    shard: bool,
) -> None:
    """Train RECIPE, a shipped name or a TOML file, on the pairs of a folder.

    The same command goes on with an interrupted run, as if it had never stopped. Several processes
    share each batch: torchrun --nproc-per-node 8 -m breadth.scripts.cli train RECIPE ...; any other
    number of them may go on with the run.
    """
    from breadth.train import loop
    from breadth.train.ranks import best_device
    from breadth.train.recipe import load_recipe

    chosen = load_recipe(recipe)
    is_first = os.environ.get("RANK", "0") == "0"
    uids = None
    if subset is not None:
        uids, said = choose_pairs(data, subset, chosen.steps * chosen.batch_pairs)
        if is_first:
            click.echo(said, err=True)
    with progress_bar(chosen.steps) as progress:
        metrics = loop.train(
            chosen,
            data,
            out,
            subset=uids,
            start=start,
            tokenizer_file=tokenizer,
            device=device or best_device(),
            shard=shard,
            progress=progress,
        )
    if not is_first:
        return
    losses = ", ".join(f"{name} {metrics[name]:.3f}" for name in ("loss", *chosen.objective))
    click.echo(f"{out}: {metrics['step']} steps of {chosen.name}, {losses}")
    loading = json.loads((out / loop.LOADING_NAME).read_bytes())
    shards = f"distinct shards a batch: {loading['shards_per_batch']:g}"
    click.echo(f"{loading['access']}; {shards}\n{loading['verdict']}", err=True)


def choose_pairs(data: str | Path, subset: str, visits: int) -> tuple[list[str], str]:
    """Return the uids that a subset names and how a run of so many visits will fetch them.

    A list may name pairs that the data has not, but never silently: the text says how many it has.
    Raises PoolError where the subset can be no list, bitmap or expression.
    """
    import pyarrow as pa

    from breadth.loaders.access import choose_access
    from breadth.loaders.folder import open_folder
    from breadth.loaders.subset import LISTS, read_subset, resolve_subset

    folder = open_folder(data)
    chosen = read_subset(subset) if Path(subset).suffix in LISTS else subset
    rows = resolve_subset(folder, chosen)
    epochs = visits / max(1, len(rows))
    access = choose_access(folder, rows, remote=folder.storage.is_remote, epochs=epochs)
    listed = f" of the {len(chosen):,} listed" if isinstance(chosen, pa.Array) else ""
    said = f"{len(rows):,} pairs{listed} are in {data}; {access.why}"
    return folder.uids_of(rows), said


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
            now=f"loss {metrics['loss']:.3f}  {metrics['samples_per_s']:,.0f} pairs/s, "
            f"{metrics['mfu']:.1%} of peak",
        )
