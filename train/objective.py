"""What a recipe's table of terms means: each term with its options, its weight and its unit."""

import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

from breadth.loaders.errors import RecipeError

from .terms import TERMS, VIEWS, Term

UNITS = ("loss", "gradient")


@dataclass(frozen=True)
class Weighted:
    """A term, its weight over the course of a run, and what a weight of 1 means.

    ``weight`` are points (share of the steps, weight), straight lines between them. In the unit
    "loss" the term's mean is multiplied by it; in "gradient" it is first scaled so that its
    gradient on the encoder is as long as the first term's.
    """

    term: Term
    weight: tuple[tuple[float, float], ...]
    unit: str = "loss"

    def at(self, share: float) -> float:
        """Return the weight after a share of the steps."""
        before = self.weight[0]
        for point in self.weight:
            if share < point[0]:
                along = (share - before[0]) / (point[0] - before[0])
                return before[1] + along * (point[1] - before[1])
            before = point
        return before[1]

    @property
    def is_constant(self) -> bool:
        """Tell whether it is one number from the first step to the last."""
        return self.unit == "loss" and len({weight for _, weight in self.weight}) == 1

    @property
    def most(self) -> float:
        """The largest weight that it ever has."""
        return max(weight for _, weight in self.weight)


def read_terms(terms: Mapping[str, Any]) -> dict[str, Weighted]:
    """Return the terms that count, by name, in the recipe's order; weight 0 throughout is none.

    Raises RecipeError where there is no such term or option, a weight is no weight, or none counts.
    """
    read = {name: _read(name, entry) for name, entry in terms.items()}
    counting = {name: weighted for name, weighted in read.items() if weighted.most > 0}
    if not counting:
        raise RecipeError("no term has a weight above 0; set one under [terms]")
    first = next(iter(counting))
    if counting[first].unit == "gradient":
        raise RecipeError(
            f'term {first}, the first that counts, is the measure of the others: its unit is "loss"'
        )
    _check_together(planned_views(counting))
    return counting


def planned_views(objective: Mapping[str, Weighted]) -> frozenset[str]:
    """Return the views that the terms need, each once."""
    return frozenset().union(*(weighted.term.views for weighted in objective.values()))


def _check_together(views: frozenset[str]) -> None:
    """Refuse views of which one is not encoded without, or with, another."""
    both = {"image", "text"}
    if views & {*both, "caption"} and not views >= both:
        lacking = " and ".join(sorted(both - views))
        raise RecipeError(
            f"pictures and captions are encoded together, and no term needs the view {lacking}:"
            " add it to the views of your term"
        )
    if views >= {"masked text", "corrupted text"}:
        raise RecipeError("words are either dropped or corrupted: leave one of these terms out")


def is_number(value: object) -> bool:
    """Tell a number from a truth value or anything else."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def suggest(name: str, known: list[str]) -> str:
    """Name the known name that is most like ``name``, or all."""
    lowered = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), lowered, n=1)
    return f"did you mean {lowered[close[0]]}?" if close else f"there are {', '.join(known)}"


def _read(name: str, entry: Any) -> Weighted:
    options = dict(entry) if isinstance(entry, Mapping) else {"weight": entry}
    weight = _weight(name, options.pop("weight", 1))
    unit = options.pop("unit", "loss")
    if unit not in UNITS:
        raise RecipeError(f"term {name}: unit must be loss or gradient, not {unit!r}")
    return Weighted(_term(name, options), weight, unit)


def _weight(name: str, value: Any) -> tuple[tuple[float, float], ...]:
    points = [(0.0, value)] if is_number(value) else value
    shown = f"term {name} = {value!r}: a weight is a number of at least 0"
    try:
        read = tuple((share, weight) for share, weight in points)
        fine = all(is_number(n) and isfinite(n) and n >= 0 for point in read for n in point)
    except (TypeError, ValueError):
        fine, read = False, ()
    shares = [share for share, _ in read]
    if not (fine and read and shares == sorted(set(shares)) and shares[-1] <= 1):
        raise RecipeError(f"{shown}, or points [share of the steps, weight] in order")
    return read if shares[0] == 0 else ((0.0, read[0][1]), *read)


def _term(name: str, options: dict[str, Any]) -> Term:
    kind = _imported(name) if ":" in name else TERMS.get(name)
    if kind is None:
        raise RecipeError(f"a training recipe has no term {name!r}; {suggest(name, list(TERMS))}")
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            raise RecipeError(
                f"term {name} has no option {option!r}; {suggest(option, [*known, 'weight'])}"
            )
    try:
        term = kind(**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"term {name}: {error}") from error
    if not (isinstance(term.views, Set) and term.views <= VIEWS):
        views = ", ".join(sorted(VIEWS))
        raise RecipeError(f"term {name}: views must be a set of {views}, not {term.views!r}")
    return term


def _imported(name: str) -> type[Term]:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # a console command's path lacks the working folder
        sys.path.append(here)
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError, SyntaxError) as error:
        raise RecipeError(f"term {name} cannot be imported ({error}): check its path") from error
    if not (isinstance(kind, type) and issubclass(kind, Term)):
        raise RecipeError(f"{name} is no term: make it a subclass of breadth.train.terms.Term")
    return kind
