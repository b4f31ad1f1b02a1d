"""breadth evaluate: what a run has learnt, beside what guessing would give."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


@click.command(epilog="Example: breadth evaluate runs/clip --data shards/held_out")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="Pairs the run was not trained on; labels.json in it names classes and templates.",
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="Score N pairs, drawn by hash of uid."
)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(run: Path, data: Path, limit: int | None, as_json: bool) -> None:
    """Print a run's zero-shot, retrieval and linear-probe scores beside chance.

    A picture's right captions are all captions equal to its own. A run without InfoNCE has no
    joint space of pictures and captions, hence only a probe, and the output says so.
    """
    from breadth.train.evaluate.scores import evaluate as score

    result = score(run, data, limit=limit)
    click.echo(json.dumps(result, indent=1, sort_keys=True) if as_json else scores_text(result))


def scores_text(result: Mapping[str, Any]) -> str:
    """Write scores as a table of percentages, with what they mean and what is missing."""
    from breadth.train.study.tables import markdown

    rows = [_row(f"zero-shot {task}", score) for task, score in result["zero_shot"].items()]
    for way, scores in result["retrieval"].items():
        name = f"{way.replace('_', ' ')} ({scores['items']:,} to choose from)"
        rows += [_row(f"{k} {name}", score) for k, score in scores.items() if k.startswith("R@")]
    rows += [_row(f"probe {task}", score) for task, score in result["probe"].items()]
    header = ["score", "%", "standard error", "n", "chance", "largest class"]
    lines = [f"{result['run']}, step {result['step']}, on {result['pairs']:,} pairs"]
    if rows:
        lines += ["", markdown(header, rows)]
    if result["retrieval"]:
        lines += [
            "",
            "Retrieval: each picture asks for one of the distinct captions, each distinct caption "
            "for any of its pictures; equal captions are equally right, ties count by expectation.",
        ]
    return "\n".join([*lines, *(f"\nNote: {note}." for note in result["notes"])])


def _row(name: str, score: Mapping[str, Any]) -> list[str]:
    figures = [f"{100 * score[k]:.1f}" for k in ("value", "standard_error")]
    majority = f"{100 * score['majority']:.1f}" if "majority" in score else ""
    return [name, *figures, f"{score['n']:,}", f"{100 * score['chance']:.2f}", majority]
