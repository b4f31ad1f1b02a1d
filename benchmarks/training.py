"""Train the same model with open_clip and with Breadth, and MAE-CLIP beside CLIP.

``python -m benchmarks.training [--quick] [--json FILE] [--peer DIR]`` compares, and ``make bench``
makes open_clip's environment first. Each trainer runs in a process of its own, on CPUs with one
thread, in turn, round by round; its clock starts after its imports and, for steps, its warm-up.
Small runs have the same shards, tokenizer, model, batch and steps, and are evaluated: zero-shot by
both, and by Breadth in all its other ways too.
"""

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch

from breadth.loaders.folder import open_folder
from breadth.loaders.tokenize import save_tokenizer, train_tokenizer
from breadth.loaders.world import World
from breadth.scripts.demo.heldout import write_heldout
from breadth.train.flops import full_lengths, pair_flops
from breadth.train.ranks import best_device

from .comparison import Row, machine, table, write_json
from .process_tree import run
from .trainers.job import Job, Shape, Timed
from .trainers.ours import recipe_of

NANO = Shape(32, 8, 64, 3, 2, 64, 1, 2, 64, 32, 512)
MICRO = Shape(64, 8, 128, 6, 4, 128, 2, 4, 128, 32, 1024)
SMALL = Shape(224, 16, 384, 12, 6, 384, 6, 6, 384, 64, 32_000)
BASE = Shape(224, 16, 768, 12, 12, 512, 12, 8, 512, 77, 49_408)
PEER = "open_clip 3.3.0"
PEER_HOME = Path(sys.prefix) / "peers/open_clip"


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    steps: int
    pairs: int
    run_steps: int
    runs: int
    rounds: int


FULL, QUICK = Size(10, 4_000, 100, 2, 2), Size(3, 1_000, 10, 1, 1)


def step_jobs(size: Size) -> dict[str, Job]:
    """Return the jobs whose steps are timed, by name."""
    jobs = {
        "nano, 32 px, batch 256": Job(NANO, 256, size.steps),
        "micro, 64 px, batch 128": Job(MICRO, 128, size.steps),
        "small (ViT-S/16), 224 px, batch 4": Job(SMALL, 4, max(2, size.steps // 3), 1),
    }
    if torch.cuda.is_available():
        name = "base (ViT-B/16), 224 px, batch 512, bf16"
        jobs[name] = Job(BASE, 512, size.steps, 5, "clip", "cuda", "bfloat16", True)
    return jobs


def perform(trainer: str, job: Job, python: Path, folder: Path) -> tuple[Timed, float]:
    """Have a trainer do a job in a process of its own; return the CPU seconds of the tree, too."""
    request, result = folder / "job.json", folder / "timed.json"
    job.write(request)
    result.unlink(missing_ok=True)
    command = [str(python), "-m", f"benchmarks.trainers.{trainer}", str(request), str(result)]
    here = str(Path(__file__).parent.parent)
    environment = {"PYTHONPATH": here, "TMPDIR": str(folder)}
    if job.device == "cpu":  # threads that wait for each other burn time where others work, too
        environment["OMP_NUM_THREADS"] = "1"
    usage = run(command, environment, folder / f"{trainer}.log")
    found = Timed(**json.loads(result.read_text()))
    click.echo(f"{trainer} {job.terms}: {found.wall_s:.3f} s, {found.cpu_s:.3f} s of CPU", err=True)
    return found, usage.cpu_s


def compare_steps(size: Size, python: Path, folder: Path) -> list[Row]:
    """Time a step of CLIP by both, and of MAE-CLIP by ours."""
    rows = []
    for name, job in step_jobs(size).items():
        found: dict[str, list[float]] = defaultdict(list)
        joint = replace(job, terms="maeclip")
        for _ in range(size.rounds):
            for what, trainer, asked, interpreter in (
                ("ours", "ours", job, Path(sys.executable)),
                ("peer", "open_clip_peer", job, python),
                ("joint", "ours", joint, Path(sys.executable)),
            ):
                timed, _ = perform(trainer, asked, interpreter, folder)
                found[what].append(_time(timed, job))
        unit = "ms of CPU a step" if job.device == "cpu" else "ms a step"
        rows.append(Row(f"CLIP step, {name}", PEER, unit, found["ours"], found["peer"]))
        flops = _flops(joint) / _flops(job)
        expected = [flops * value for value in found["ours"]]
        what = f"MAE-CLIP step, {name}, against {flops:.2f} times CLIP's by FLOPs"
        rows.append(Row(what, "CLIP by FLOPs", unit, found["joint"], expected))
    return rows


def _flops(job: Job) -> float:
    recipe = recipe_of(job)
    return pair_flops(recipe, job.shape.vocabulary, full_lengths(recipe))


def _time(found: Timed, job: Job) -> float:
    return 1e3 * (found.cpu_s if job.device == "cpu" else found.wall_s)


def compare_runs(size: Size, python: Path, folder: Path) -> list[Row]:
    """Time many small runs on the same shards, from data to scores."""
    world = World(seed=1)
    write_heldout(world, size.pairs, 1, folder / "pairs")
    write_heldout(world, 500, 2, folder / "held-out")
    pairs = open_folder(folder / "pairs")
    captions = (pairs.caption(row) for row in range(len(pairs)))
    save_tokenizer(train_tokenizer(captions, NANO.vocabulary), folder / "tokenizer.json")
    device = best_device()
    wall: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    for number in range(size.rounds):
        for trainer, interpreter in (("ours", Path(sys.executable)), ("open_clip_peer", python)):
            out = folder / f"{trainer}-{number}"
            out.mkdir()
            job = Job(
                NANO,
                256,
                size.run_steps,
                runs=size.runs,
                device=device,
                data=str(folder / "pairs"),
                held_out=str(folder / "held-out"),
                tokenizer=str(folder / "tokenizer.json"),
                out=str(out),
            )
            found, cpu_s = perform(trainer, job, interpreter, folder)
            click.echo(f"zero-shot: {', '.join(f'{s:.3f}' for s in found.scores)}", err=True)
            wall[trainer].append(3600 / found.wall_s)
            cpu[trainer].append(cpu_s / size.runs)
    name = f"small runs of {size.run_steps} steps, with evaluation"
    return [
        Row(name, PEER, "runs an hour", wall["ours"], wall["open_clip_peer"]),
        Row(name, PEER, "s of CPU a run, imports included", cpu["ours"], cpu["open_clip_peer"]),
    ]


@click.command()
@click.option("--quick", is_flag=True, help="One round of few steps: two minutes.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the rows here, too.")
@click.option(
    "--peer",
    type=click.Path(path_type=Path),
    default=PEER_HOME,
    help="open_clip's environment.  [default: peers/open_clip in this environment]",
)
def main(quick: bool, file: Path | None, peer: Path) -> None:
    """Compare Breadth's trainer with open_clip's on the same model and data."""
    size, described, python = QUICK if quick else FULL, machine(), peer / "bin/python"
    if not python.is_file():
        make = f"python -m benchmarks.peer_environment {peer}"
        raise click.ClickException(f"{python} is not there: make it with {make}")
    rows: Sequence[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        rows = compare_steps(size, python, Path(folder))
        rows += compare_runs(size, python, Path(folder))
    click.echo(f"{described}; torch {torch.__version__}; medians of {size.rounds} rounds\n")
    click.echo(table(rows))
    if file is not None:
        write_json(rows, file)


if __name__ == "__main__":
    main()
