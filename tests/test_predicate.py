"""Expressions over columns: what Python would say row by row, with unknown values never chosen."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.loaders.errors import PoolError
from breadth.loaders.predicate import parse

TABLE = pa.table(
    {
        "score": [0.1, 0.5, None, float("nan"), 0.9],
        "width": pa.array([100, 200, 300, None, 0], pa.int32()),
        "source": ["web", "book", None, "web", ""],
        "caption": ["a dog", "a cat", "dogs", None, "a DOG"],
        "safe": [True, False, None, True, True],
        "label": pa.array(["x", "y", "x", None, "y"]).dictionary_encode(),
        "empty": pa.nulls(5),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("score > 0.3", [1, 4]),
        ("not score > 0.3", [0]),
        ("0.1 <= score < 0.9", [0, 1]),
        ("score == 0.5 or width == 300", [1, 2]),
        ("score > 0.3 and width > 0", [1]),
        ("score is None", [2, 3]),
        ("score is not None and not safe", [1]),
        ("safe", [0, 3, 4]),
        ("safe == False", [1]),
        ("source in ('web', 'book')", [0, 1, 3]),
        ("source not in ['web']", [1, 4]),
        ("width in (100, 0.0)", [0, 4]),
        ("'dog' in caption", [0, 2]),
        ("'dog' not in caption", [1, 4]),
        ("source == 'web' and caption is None", [3]),
        ("label == 'x'", [0, 2]),
        ("width * 2 + 1 == 201", [0]),
        ("-width < -150", [1, 2]),
        ("width / 3 > 66.6 and width / 3 < 66.7", [1]),
        ("100 / width > 0.9", [0]),  # a division by zero is unknown
        ("width - 100 / 0 < 0", []),
        ("empty > 1 or empty is None", [0, 1, 2, 3, 4]),
        ("not (width > 400 and score > 0.3)", [0, 1, 2, 4]),  # false, whatever the score is
        ("1 < 2", [0, 1, 2, 3, 4]),
        ("False", []),
        (" score\t> 0.3 ", [1, 4]),
    ],
)
def test_an_expression_chooses_rows(text: str, rows: list[int]) -> None:
    """Each kind of expression is true where it should be, and unknown is not true."""
    mask = parse(text).mask(TABLE)
    assert mask.dtype == bool
    assert np.flatnonzero(mask).tolist() == rows


def test_the_columns_are_named() -> None:
    """Only the columns that are used have to be read."""
    assert parse("score > 0.3 and (width < 3 or score is None)").names == ("score", "width")


Value = float | bool | None

numbers = st.recursive(
    st.sampled_from(["x", "y"]) | st.integers(-3, 3).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda parts: f"({' '.join(parts)})"
    ),
    max_leaves=4,
)
compared = st.tuples(numbers, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), numbers).map(
    " ".join
)
conditions = st.recursive(
    compared | st.sampled_from(["x is None", "y is not None", "x in (1, 2)"]),
    lambda inner: st.one_of(
        inner.map(lambda part: f"not ({part})"),
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(
            lambda parts: f"({parts[0]}){parts[1]}({parts[2]})"
        ),
    ),
    max_leaves=6,
)
cells = st.none() | st.integers(-4, 4)


@given(conditions, st.lists(st.tuples(cells, cells), min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_known_values_are_as_python_has_them(text: str, rows: list[tuple[Any, Any]]) -> None:
    """Where no value is null an expression is Python's own; and rows do not touch each other."""
    x, y = (pa.array([row[side] for row in rows], pa.int64()) for side in (0, 1))
    table = pa.table({"x": x, "y": y})
    found = parse(text).mask(table)
    for place, (left, right) in enumerate(rows):
        if left is not None and right is not None:
            assert found[place] == eval(text, {"x": left, "y": right})
        assert found[place] == parse(text).mask(table.slice(place, 1))[0]


@given(conditions, cells, cells)
@settings(max_examples=200, deadline=None)
def test_unknown_is_true_only_where_it_does_not_matter(text: str, left: Any, right: Any) -> None:
    """A row that is chosen with a null would be chosen whatever stood there instead."""
    if "None" in text:
        return
    table = pa.table({"x": pa.array([left], pa.int64()), "y": pa.array([right], pa.int64())})
    if not parse(text).mask(table)[0]:
        return
    for x in range(-4, 5) if left is None else (left,):
        for y in range(-4, 5) if right is None else (right,):
            assert eval(text, {"x": x, "y": y})


WRONG = {
    "call": ("len(source) > 3", "holds len\\(source\\): use only comparisons"),
    "attribute": ("score.real > 0", "holds score.real"),
    "import": ("__import__('os').system('true')", "use only"),
    "index": ("source[0] == 'w'", "holds source\\[0\\]"),
    "power": ("width ** 9 ** 9 > 1", "use only"),
    "lambda": ("(lambda: 1)", "use only"),
    "walrus": ("(score := 1) > 0", "use only"),
    "bytes": ("source == b'web'", "use only"),
    "comprehension": ("width in [w for w in (1, 2)]", "use only"),
    "format": ("source == f'{score}'", "use only"),
    "statement": ("import os", "is no expression \\(invalid syntax\\)"),
    "two": ("score > 0; width > 0", "is no expression"),
    "unclosed": ("(score > 0", "never closed"),
    "nothing": ("", "is no expression"),
    "zero byte": ("score\0 > 1", "is no expression"),
    "deep": ("not " * 60 + "safe", "more than 50 deep"),
    "deeper": ("-" * 9000 + "width > 1", "(is no expression|50 deep)"),
    "long": ("score > 1 or " * 1000 + "safe", "longer than 10,000"),
    "none": ("score == None", "'is None'"),
    "is": ("width is 1", "'is None'"),
    "empty list": ("width in ()", "empty list"),
    "unknown": ("scoer > 0.3", "column 'scoer', which there is not; did you mean score\\?"),
    "far": ("zzz > 0.3", "there are caption, empty, label"),
    "no condition": ("score", "score is double, not true or false"),
    "no condition inside": ("safe and width", "width is int32, not true or false"),
    "unlike": ("source > 3", "cannot be evaluated"),
    "text sum": ("source + 1 > 3", "string is no number"),
    "huge": ("width > 99999999999999999999999", "cannot be evaluated"),
    "in number": ("3 in width", "'in' needs a list"),
    "in column": ("source in caption", "'in' needs a list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_expression_is_one_clear_line(name: str) -> None:
    """Anything else is refused in one short line that says what is wrong; nothing is executed."""
    text, message = WRONG[name]
    with pytest.raises(PoolError, match=message) as error:
        parse(text).mask(TABLE)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 260


def test_nothing_is_executed(tmp_path: Path) -> None:
    """An expression that would write a file when evaluated does not."""
    target = tmp_path / "written"
    for text in (f"open({str(target)!r}, 'w')", f"[open({str(target)!r}, 'w')] and safe"):
        with pytest.raises(PoolError):
            parse(text).mask(TABLE)
    assert not target.exists()
