"""Choose pairs by an expression over their columns, such as ``clip_score > 0.3 and width >= 200``.

Python's own grammar is parsed and a white-list of it is evaluated by Arrow: comparisons (chained
too), ``and or not``, ``in``, ``is None``, numbers, strings and ``+ - * /``. Nothing is executed.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .errors import PoolError

if TYPE_CHECKING:
    from .folder import Folder

MAX_LENGTH = 10_000
MAX_DEPTH = 50
ALLOWED = "comparisons, and, or, not, in, is None, numbers, strings and + - * /"

_COMPARED: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_CALCULATED: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
}


@dataclass(frozen=True)
class Predicate:
    """An expression that is true or false for each pair; ``names`` are the columns it reads."""

    text: str
    names: tuple[str, ...]
    tree: ast.expr

    def mask(self, table: pa.Table) -> np.ndarray:
        """Say for which rows of a table it is true: bool [rows].

        What is null or no number stays unknown through ``and``, ``or`` and ``not``, and in the end
        is false. Raises PoolError for a missing column and for values that cannot be compared so.
        """
        _check_names(self, table.column_names)
        try:
            found = _condition(table, self.tree)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise _wrong(
                self.text, f"cannot be evaluated ({_reason(error)}): correct it"
            ) from error
        if isinstance(found, pa.Scalar):
            return np.full(table.num_rows, found.as_py() is True)
        return pc.fill_null(found, False).to_numpy(zero_copy_only=False)


def parse(text: str) -> Predicate:
    """Read an expression; raises PoolError in one line where it is none or holds something else."""
    if len(text) > MAX_LENGTH:
        raise _wrong(text, f"is longer than {MAX_LENGTH:,} characters: shorten it")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        names = tuple(sorted(_names(text, tree)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _wrong(text, f"is no expression ({_reason(error)}): correct it") from error
    return Predicate(text, names, tree)


def column_table(folder: "Folder", predicates: Sequence[Predicate]) -> pa.Table:
    """Return the columns that some predicates read, for every row of a folder.

    Raises PoolError for a column that no shard has, with the nearest that there is. Cost: reads
    those columns of the parquets, or every json member where there is no parquet.
    """
    names = set().union(*(predicate.names for predicate in predicates))
    table = folder.table(sorted(names - {"key"}))
    if "key" in names:
        table = table.append_column("key", folder.index["key"])
    for predicate in predicates:
        _check_names(predicate, table.column_names, folder.column_names)
    return table


def rows_where(folder: "Folder", predicate: Predicate) -> np.ndarray:
    """Return the rows of a folder for which a predicate is true: int64, ascending.

    Raises and costs as ``column_table`` and ``Predicate.mask``.
    """
    return np.flatnonzero(predicate.mask(column_table(folder, [predicate])))


def _names(text: str, node: ast.expr, depth: int = 0) -> set[str]:
    """Return the columns that a tree names; raises PoolError for what is not on the white-list."""
    if depth > MAX_DEPTH:
        raise _wrong(text, f"is nested more than {MAX_DEPTH} deep: simplify it")
    if isinstance(node, ast.Name):
        return {node.id}
    return set().union(*(_names(text, part, depth + 1) for part in _parts(text, node)))


def _parts(text: str, node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return []
        case ast.BoolOp(values=values):
            return values
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            return [operand]
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            return [left, right]
        case ast.Compare(left=left, ops=ops, comparators=rights):
            return [left, *_compared(text, ops, rights)]
    raise _wrong(text, f"holds {_shown(node)}: use only {ALLOWED}")


def _compared(text: str, ops: list[ast.cmpop], rights: list[ast.expr]) -> Iterator[ast.expr]:
    """Yield the operands to the right of comparisons, and the members of lists."""
    for op, right in zip(ops, rights, strict=True):
        is_none = isinstance(right, ast.Constant) and right.value is None
        if isinstance(op, ast.Is | ast.IsNot) or is_none:
            if not (isinstance(op, ast.Is | ast.IsNot) and is_none):
                raise _wrong(text, "uses None or is otherwise than 'is None': write it so")
        elif isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple):
            if not right.elts:
                raise _wrong(text, "holds an empty list: name what it may be in")
            yield from right.elts
        else:
            yield right


def _value(table: pa.Table, node: ast.expr) -> Any:
    """Evaluate a node of a checked tree: an array as long as the table, or a scalar."""
    match node:
        case ast.Name(id=name):
            return _column(table, name)
        case ast.Constant(value=value):
            return pa.scalar(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _known(pc.negate(_number(_value(table, operand))))
        case ast.BinOp(left=left, op=op, right=right):
            numbers = (_number(_value(table, side)) for side in (left, right))
            return _known(_CALCULATED[type(op)](*numbers))
        case ast.BoolOp(op=op, values=values):
            join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
            return reduce(join, (_condition(table, value) for value in values))
        case ast.UnaryOp(operand=operand):
            return pc.invert(_condition(table, operand))
        case ast.Compare(left=left, ops=ops, comparators=rights):
            lefts = [left, *rights]
            steps = zip(lefts, ops, rights, strict=False)
            return reduce(pc.and_kleene, (_comparison(table, *step) for step in steps))
    raise TypeError(f"{_shown(node)} has no value")


def _comparison(table: pa.Table, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
    value = _value(table, left)
    if isinstance(op, ast.Is | ast.IsNot):
        return pc.is_null(value) if isinstance(op, ast.Is) else pc.is_valid(value)
    if isinstance(op, ast.In | ast.NotIn):
        found = _membership(table, value, right)
        return found if isinstance(op, ast.In) else pc.invert(found)
    return _COMPARED[type(op)](value, _value(table, right))


def _membership(table: pa.Table, value: Any, right: ast.expr) -> Any:
    """Say whether a value is one of a list, or a text is part of a text."""
    if isinstance(right, ast.List | ast.Tuple):
        members = (_value(table, member) for member in right.elts)
        return reduce(pc.or_kleene, (pc.equal(value, member) for member in members))
    if not (isinstance(value, pa.Scalar) and isinstance(value.as_py(), str)):
        raise TypeError("'in' needs a list, or a text to look for in a column of texts")
    return pc.match_substring(_value(table, right), value.as_py())


def _condition(table: pa.Table, node: ast.expr) -> Any:
    found = _value(table, node)
    if pa.types.is_null(found.type):
        return found.cast(pa.bool_())
    if not pa.types.is_boolean(found.type):
        raise TypeError(f"{ast.unparse(node)} is {found.type}, not true or false")
    return found


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return _known(column) if pa.types.is_floating(column.type) else column


def _number(value: Any) -> Any:
    kind = value.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise TypeError(f"{kind} is no number")
    return value.cast(pa.float64())


def _known(numbers: Any) -> Any:
    """Make null of what is not finite: a missing score, a division by zero."""
    return pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, numbers.type))


def _check_names(predicate: Predicate, present: Sequence[str], known: Sequence[str] = ()) -> None:
    missing = next((name for name in predicate.names if name not in present), None)
    if missing is None:
        return
    others = sorted({*known, *present})
    near = get_close_matches(missing, others, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(others)}"
    raise _wrong(predicate.text, f"names the column {missing!r}, which there is not; {hint}")


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return str(error.msg)
    return next(iter(str(error).splitlines()), "it is nested too deeply")


def _shown(node: ast.AST) -> str:
    return _short(ast.unparse(node))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _wrong(text: str, reason: str) -> PoolError:
    return PoolError(f"expression {_short(text)!r} {reason}")
