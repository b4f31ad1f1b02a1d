"""questions.jsonl is read as it was written, and refused where it is something else."""

import re

import pytest

from breadth.loaders.errors import PoolError
from breadth.loaders.world import World
from breadth.scripts.demo.heldout import write_heldout
from breadth.train.evaluate.questions import QUESTIONS, Question, read_questions, write_questions

ASKS = {
    "colour": r"what colour is the (large|small) \w+\?",
    "shape": r"what shape is the (large|small) \w+ object\?",
    "texture": r"what is the texture of the \w+ \w+\?",
    "background": r"what colour is the background\?",
    "count": r"how many small objects are there\?",
    "relation": r"is the \w+ \w+ (above|below|left of|right of) the small \w+ \w+\?",
}


def test_questions_are_read_as_they_were_written(tmp_path):
    """Any text survives, line separators of Unicode included; a folder without has none."""
    assert read_questions(tmp_path) == ()
    asked = (
        Question("0" * 32, "what\u2028is “it”?\n", "a\tcat", "animal"),
        Question("1" * 32, "ja?", "né\x85", ""),
    )
    write_questions(tmp_path, asked)
    assert read_questions(tmp_path) == asked


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b'{"uid": "a", "question": "b", "answer": "c"}',
        b'{"uid": 1, "question": "b", "answer": "c", "kind": "d"}',
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path, line):
    """The line's number and what a question needs are said in one line."""
    write_questions(tmp_path, [Question("a", "b", "c", "d")])
    with (tmp_path / QUESTIONS).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(PoolError, match=r"line 2: no question .*each needs uid, question") as error:
        read_questions(tmp_path)
    assert "\n" not in str(error.value)


def test_heldout_scenes_are_asked_about_by_kind(tmp_path):
    """Every held-out picture has its questions, each of the kind that its words say."""
    manifest = write_heldout(World(seed=4), 40, 0, tmp_path, px=16)
    asked = read_questions(tmp_path)
    assert len({question.uid for question in asked}) == manifest.pairs == 40
    assert {question.kind for question in asked} == set(ASKS)
    for question in asked:
        assert re.fullmatch(ASKS[question.kind], question.question)
        assert question.kind != "relation" or question.answer in ("yes", "no")
