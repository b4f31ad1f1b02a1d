"""breadth evaluate: what a run has learnt, beside what guessing would give."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

_WIDTH = 100


@click.command(epilog="Example: breadth evaluate runs/clip --data shards/held_out")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DIR",
    required=True,
    help="Pairs the run was not trained on; they may be far away (s3://...). Its labels.json names "
    "classes and templates, its questions.jsonl asks about the pictures.",
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="Score N pairs, drawn by hash of uid."
)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(run: Path, data: str, limit: int | None, as_json: bool) -> None:
    """Print a run's scores beside chance, and keep what it predicted for every item.

    Zero-shot, retrieval, linear probe, nearest neighbours and answers to questions; captions and
    hidden patches where the run's terms have learnt them. The output says what has no score and
    why.
    """
    from breadth.train.evaluate.scores import evaluate as score

    result = score(run, data, limit=limit)
    click.echo(json.dumps(result, indent=1, sort_keys=True) if as_json else scores_text(result))


def scores_text(result: Mapping[str, Any]) -> str:
    """Write scores as tables of percentages, with what they mean and what is missing."""
    from breadth.train.study.tables import markdown

    shares = list(_share_rows(result))
    parts = [f"{result['run']}, step {result['step']}, on {result['pairs']:,} pairs"]
    if shares:
        header = ["score", "%", "standard error", "n", "chance", "largest class"]
        parts.append(markdown(header, shares))
    if result["vqa"]:
        header = ["answers", "%", "s. e.", "n", "chance", "question only", "another picture"]
        rows = [_answer_row(kind, score) for kind, score in result["vqa"].items()]
        parts.append(markdown(header, rows))
    parts += [textwrap.fill(text, _WIDTH) for text in _explained(result)]
    parts += [textwrap.fill(f"Note: {note}.", _WIDTH) for note in result["notes"]]
    return "\n\n".join(parts)


def _share_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for task, score in result["zero_shot"].items():
        yield _row(f"zero-shot {task}", score)
    for way, scores in result["retrieval"].items():
        for k in (k for k in scores if k.startswith("R@")):
            yield _row(f"{k} {way.replace('_', ' ')} ({scores['items']:,})", scores[k])
    for task, score in result["probe"].items():
        yield _row(f"probe {task}", score)
    for task, score in result["knn"].items():
        yield _row(f"nearest {score['k']} {task}", score)
    for task, score in result["captioning"].items():
        yield _row("caption word by word" if task == "exact" else f"caption says {task}", score)


def _row(name: str, score: Mapping[str, Any]) -> list[str]:
    figures = [_percent(score[k]) for k in ("value", "standard_error")]
    majority = _percent(score["majority"]) if "majority" in score else ""
    return [name, *figures, f"{score['n']:,}", f"{100 * score['chance']:.2f}", majority]


def _answer_row(kind: str, score: Mapping[str, Any]) -> list[str]:
    controls = [
        f"{_percent(control['value'])} ({100 * control['above']['value']:+.1f}, "
        f"s. e. {_percent(control['above']['standard_error'])})"
        for control in (score["question_only"], score["shuffled_picture"])
    ]
    return [*_row(kind, score)[:5], *controls]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _explained(result: Mapping[str, Any]) -> Iterator[str]:
    """Say in words what the tables leave open, and the scores that are no shares."""
    if result["retrieval"]:
        yield (
            "Retrieval, in brackets among how many: each picture asks for one of the distinct "
            "captions, each distinct caption for any of its pictures; equal captions are equally "
            "right, ties count by expectation."
        )
    if result["vqa"]:
        yield (
            "Answers are those to questions about pictures that the head was not fitted on. Its "
            "controls: a head that is given the question only, and the same head shown another "
            "picture; in brackets how far above them it is. Errors are by picture."
        )
    if score := result["reconstruction"]:
        yield (
            f"Hidden patches: {score['value']:.3f} (standard error {score['standard_error']:.3f}) "
            f"of the mean patch's loss, on {score['n']:,} pictures; below 1 is learning."
        )
    if score := result["caption_loss"]:
        yield (
            f"Captions: {score['value']:.3f} nats a token (standard error "
            f"{score['standard_error']:.3f}), on {score['tokens']:,} tokens."
        )
    yield f"What was predicted for every item: {result['predictions']} in the run's folder."
