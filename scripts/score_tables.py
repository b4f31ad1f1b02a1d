"""The scores of a run as tables of percentages that fit a terminal."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from .drawn_tables import drawn_parts, percent

_WIDTH = 100


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
    parts += drawn_parts(result, _WIDTH)
    parts.append(f"What was predicted for every item: {result['predictions']} in the run's folder.")
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
    figures = [percent(score[k]) for k in ("value", "standard_error")]
    majority = percent(score["majority"]) if "majority" in score else ""
    return [name, *figures, f"{score['n']:,}", f"{100 * score['chance']:.2f}", majority]


def _answer_row(kind: str, score: Mapping[str, Any]) -> list[str]:
    controls = [
        f"{percent(control['value'])} ({100 * control['above']['value']:+.1f}, "
        f"s. e. {percent(control['above']['standard_error'])})"
        for control in (score["question_only"], score["shuffled_picture"])
    ]
    return [*_row(kind, score)[:5], *controls]


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
