"""Lay the scores of several runs out as one table: a row for each score, a column for each run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORDS = {
    "knn": "nearest neighbours",
    "vqa": "answers to",
    "reconstruction": "loss of hidden patches / the mean patch's",
    "caption loss": "caption loss, nats a token",
}
"""What a score is called whose name in ``evaluate`` leaves open what it is."""


@dataclass(frozen=True)
class Row:
    """One score of every run; a run without it has None."""

    name: str
    cells: list[str | None]
    pairs: str
    chance: str
    majority: str


def score_rows(results: Sequence[Mapping[str, Any] | None]) -> list[Row]:
    """Return a row for whatever has a value and a standard error in what ``evaluate`` returned.

    Scores with a chance are shares, written in percent; so are their controls and the differences
    between them. None stands for a run that was not scored.
    """
    found = [dict(_scores("", result, False)) if result else {} for result in results]
    names = list(dict.fromkeys(name for scores in found for name in scores))
    return [_row(name, [scores.get(name) for scores in found]) for name in names]


Found = tuple[Mapping[str, Any], bool]


def _scores(name: str, value: Any, is_share: bool) -> Iterator[tuple[str, Found]]:
    if not isinstance(value, Mapping):
        return
    is_share = is_share or any("chance" in one for one in (value, *_mappings(value)))
    if value.get("value") is not None and "standard_error" in value:
        yield name, (value, is_share)
    for key, inner in value.items():
        yield from _scores(f"{name} {key.replace('_', ' ')}".strip(), inner, is_share)


def _mappings(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (inner for inner in value.values() if isinstance(inner, Mapping))


def _row(name: str, found: Sequence[Found | None]) -> Row:
    first, is_share = next(one for one in found if one)
    scale, form = (100, ".1f") if is_share else (1, ".3f")
    cells = [
        None
        if one is None
        else f"{scale * one[0]['value']:{form}} ± {scale * one[0]['standard_error']:{form}}"
        for one in found
    ]
    counts = [int(one[0]["n"]) for one in found if one and "n" in one[0]]
    return Row(
        _in_words(name) + ("\u00a0%" if is_share else ""),
        cells,
        " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)})) if counts else "",
        _percent(first.get("chance")),
        _percent(first.get("majority")),
    )


def _in_words(name: str) -> str:
    short = next((short for short in WORDS if f"{name} ".startswith(f"{short} ")), "")
    return WORDS.get(short, "") + name.removeprefix(short)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
