"""What questions.jsonl says: one question about a picture and its answer a line."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from breadth.loaders.errors import PoolError
from breadth.loaders.remote import read_beside
from breadth.loaders.whole_file import replaced

QUESTIONS = "questions.jsonl"


@dataclass(frozen=True)
class Question:
    """A question about the picture of a pair; ``kind`` groups the scores, no model sees it."""

    uid: str
    question: str
    answer: str
    kind: str


def read_questions(folder: str | Path) -> tuple[Question, ...]:
    """Read the questions of a data folder, here or at a URL; none where it has no questions.jsonl.

    Raises PoolError where a line is not what it should be.
    """
    text = read_beside(folder, QUESTIONS)
    if text is None:
        return ()
    path = f"{folder}/{QUESTIONS}"
    return tuple(_question(path, *numbered) for numbered in enumerate(text.splitlines(), 1))


def write_questions(folder: Path, questions: Iterable[Question]) -> None:
    """Write questions.jsonl."""
    with replaced(folder / QUESTIONS) as file:
        file.writelines(
            (json.dumps(asdict(question), ensure_ascii=False) + "\n").encode()
            for question in questions
        )


def _question(path: str, number: int, line: bytes) -> Question:
    wanted = [field.name for field in fields(Question)]
    try:
        row = json.loads(line)
        values = [row[name] for name in wanted]
        if not all(isinstance(value, str) for value in values):
            raise TypeError("a value is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise PoolError(
            f"{path}, line {number}: no question ({error}); each needs {', '.join(wanted)} as texts"
        ) from error
    return Question(*values)
