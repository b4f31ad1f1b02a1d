"""breadth study: train every objective on every draw of every world, and compare them in pairs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from .claim import claim

if TYPE_CHECKING:
    from breadth.train.recipe import TrainRecipe
    from breadth.train.study.design import Cell, Study

RESULTS = "study.jsonl"
_DIVERSITY_PAIRS = 1000

Rows = dict[tuple[str, int, str], Mapping[str, Any]]


@click.command(epilog="Example: breadth study pilot --out runs/pilot")
@click.argument("name", metavar="NAME|FILE")
@click.option(
    "--out",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where data, runs, rows and the tables go; the same command continues from there.",
)
@click.option("--plan", is_flag=True, help="Say what would be run, check it, and write nothing.")
@click.option(
    "--runs",
    metavar="N",
    type=click.IntRange(1),
    help="Stop after N new runs; the same command goes on from there.",
)
def study(name: str, out: Path, plan: bool, runs: int | None) -> None:
    """Run and analyse a study: a shipped NAME (pilot) or a TOML FILE.

    Each draw of a world is used by all objectives in the same order from the same initialisation,
    so that what differs is the objective. A finished run is a row in DIR/study.jsonl and is never
    done again; the tables are in DIR/study.md.
    """
    from breadth.train.study.design import read_study
    from breadth.train.study.tables import plan_text

    chosen = read_study(name)
    if plan:
        click.echo(plan_text(chosen, str(out / RESULTS)))
        return
    click.echo("\n" + run_with_bar(chosen, out, runs))
    click.echo(f"\n{out / 'study.md'}")


def run_with_bar(study: "Study", out: Path, runs: int | None) -> str:
    """Run a study, with a progress bar where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(study.name, total=len(study.cells()))

        def progress(done: int, of_run: float) -> None:
            bar.update(task, completed=done + of_run)

        return run_study(study, out, runs=runs, say=click.echo, progress=progress)


def run_study(
    study: "Study",
    out: Path,
    *,
    runs: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, float], None] = lambda done, of_run: None,
) -> str:
    """Do the runs that ``out`` has no row for, ``runs`` at most, and return the tables.

    They go to ``out/study.md`` too. ``say`` is given a line for each new run, ``progress`` the
    number of runs that are done and the share of the present one.
    """
    from breadth.loaders.whole_file import replaced
    from breadth.train.study.pairing import check_orders, training_recipes
    from breadth.train.study.results import Results, code_version
    from breadth.train.study.tables import tables

    training_recipes(study)
    claim(out, (RESULTS, "draws", "runs"))
    results = Results(out / RESULTS, code_version())
    rows: Rows = {}
    new = 0
    for number, cell in enumerate(study.cells()):
        job = prepare(study, cell, out, results.code)
        if job.key not in results.rows:
            if new == runs:
                break
            say(f"run {number + 1} of {len(study.cells())}: {cell.name}")
            results.append(job.do(partial(progress, number)))
            new += 1
        rows[cell.world, cell.seed, cell.objective] = results.rows[job.key]
        progress(number + 1, 0)
    check_orders(study, rows)
    text = tables(study, rows, measure_worlds(study, out, rows))
    with replaced(out / "study.md") as file:
        file.write(f"# Study {study.name}\n\n{text}\n".encode())
    return text


@dataclass(frozen=True)
class Job:
    """One run, ready to be done: its row's key is known before."""

    key: str
    study: "Study"
    cell: "Cell"
    recipe: "TrainRecipe"
    data: Path
    held_out: Path
    data_digest: str
    folder: Path

    def do(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """Train (from the last checkpoint, if there is one), score, and return the row."""
        from breadth.train.evaluate.scores import evaluate
        from breadth.train.loop import train
        from breadth.train.study.pairing import trained_order

        started = monotonic()
        steps = self.recipe.steps
        train(self.recipe, self.data, self.folder, progress=lambda m: progress(m["step"] / steps))
        trained = monotonic()
        scores = evaluate(self.folder, self.held_out)
        return {
            "key": self.key,
            "study": self.study.name,
            "world": self.cell.world,
            "seed": self.cell.seed,
            "objective": self.cell.objective,
            "recipe": self.recipe.to_json(),
            "data": self.data_digest,
            "order": trained_order(self.folder),
            "scores": scores,
            "train_s": round(trained - started, 2),
            "evaluate_s": round(monotonic() - trained, 2),
        }


def prepare(study: "Study", cell: "Cell", out: Path, code: str) -> Job:
    """Draw what a run needs, unless it is there, and name its row."""
    from breadth.loaders.manifest import Manifest
    from breadth.train.evaluate.labels import LABELS
    from breadth.train.study.pairing import training_recipe
    from breadth.train.study.results import row_key

    from .study_draws import draw_folders

    data, held_out = draw_folders(study, cell.world, cell.seed, out / "draws")
    recipe = training_recipe(study, cell.objective, cell.seed)
    words = sha256((held_out / LABELS).read_bytes()).hexdigest()  # the prompts' classes, templates
    digest = f"{Manifest.read(data).digest}/{Manifest.read(held_out).digest}/{words}"
    key = row_key(recipe.to_json(), digest, code)
    folder = out / "runs" / f"{cell.name}-{key[:8]}"
    return Job(key, study, cell, recipe, data, held_out, digest, folder)


def measure_worlds(study: "Study", out: Path, rows: Rows) -> dict[tuple[str, int], dict[str, Any]]:
    """Measure what each draw's training pairs hold, at equal numbers of pairs.

    The embedder is the built-in one: none of the runs that are compared.
    """
    from breadth.curate.diversity import compare_diversity
    from breadth.curate.random_features import RandomFeatures
    from breadth.loaders.folder import open_folder
    from breadth.train.study.pairing import training_recipe
    from breadth.train.study.statistics import equal_caption_share

    from .study_draws import draw_folders

    draws = list(dict.fromkeys((world, seed) for world, seed, _ in rows))
    folders = [draw_folders(study, *draw, out / "draws")[0] for draw in draws]
    pairs = min(study.pairs, _DIVERSITY_PAIRS)
    found = compare_diversity(folders, RandomFeatures(), pairs=pairs)
    batch = training_recipe(study, study.objectives[0], 0).batch_pairs
    for figures, folder in zip(found, folders, strict=True):
        captions = open_folder(folder).column("caption").to_pylist()
        figures["equal_captions"] = equal_caption_share(captions, batch)
    return dict(zip(draws, found, strict=True))
