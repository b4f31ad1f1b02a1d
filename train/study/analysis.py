"""Compare each objective with the baseline, draw by draw.

Only raw paired differences and their spread: no mean gain, no star, no ranking. With as few draws
as a pilot has, those would be read as results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluate.score import errors_above
from .design import Study
from .statistics import ERRORS_ABOVE_FLOOR, Spread, draws_needed, spread

Rows = Mapping[tuple[str, int, str], Mapping[str, Any]]
"""One row for each finished (world, seed, objective)."""


@dataclass(frozen=True)
class Comparison:
    """One objective against the baseline in one world by one metric; in points (0 to 100)."""

    metric: str
    world: str
    objective: str
    floors: tuple[float, ...]  # what guessing or always one answer gives, by seed
    baseline: tuple[float, ...]
    differences: tuple[float, ...]
    standard_errors: tuple[float, ...]  # of the baseline, from the number of test pairs
    errors_above: float  # of the weakest baseline run
    spread: Spread | None
    draws: tuple[int, int, int] | None  # at the interval's low end, the estimate, the high end
    refusal: str  # why there is no estimate of draws


def compare(study: Study, rows: Rows) -> list[Comparison]:
    """Make every comparison of which at least one pair of runs is finished."""
    baseline = study.objectives[0]
    found = []
    for metric in study.metrics:
        for world in study.worlds:
            for objective in study.objectives[1:]:
                runs = [
                    (rows[world, seed, baseline], rows[world, seed, objective])
                    for seed in study.seeds
                    if (world, seed, baseline) in rows and (world, seed, objective) in rows
                ]
                pairs = [
                    (lookup(a["scores"], metric), lookup(b["scores"], metric)) for a, b in runs
                ]
                whole = [(a, b) for a, b in pairs if a is not None and b is not None]
                if whole:
                    found.append(_comparison((metric, world, objective), study, whole))
    return found


def unscored(study: Study, rows: Rows) -> list[str]:
    """Name each metric that an objective's runs do not have, so that no difference is missed."""
    lacking = {
        f"{metric} of {objective}"
        for (_, _, objective), row in rows.items()
        for metric in study.metrics
        if lookup(row["scores"], metric) is None
    }
    return sorted(lacking)


def lookup(scores: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    """Return the score at a dotted path such as ``probe.shape``.

    None where a run has none, or one of no items, as of companions where no scene has any.
    """
    found: Any = scores
    for part in metric.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) and found.get("n") else None


def _comparison(
    where: tuple[str, str, str],
    study: Study,
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> Comparison:
    floors = [max(a["chance"], a.get("majority", 0)) for a, _ in pairs]
    above = min(errors_above(a, floor) for (a, _), floor in zip(pairs, floors, strict=True))
    differences = tuple(100 * (b["value"] - a["value"]) for a, b in pairs)
    known = spread(differences)
    refusal = ""
    if above < ERRORS_ABOVE_FLOOR:
        refusal = (
            f"refused: a {study.objectives[0]} run is only {above:.1f} standard errors above "
            f"guessing ({ERRORS_ABOVE_FLOOR} needed)"
        )
    elif known is None:
        refusal = "one draw has no spread"
    draws = None
    if known is not None and not refusal:
        low, middle, high = (
            draws_needed(sd, study.effect_points) for sd in (known.low, known.sd, known.high)
        )
        draws = (low, middle, high)
    return Comparison(
        *where,
        floors=tuple(100 * f for f in floors),
        baseline=tuple(100 * a["value"] for a, _ in pairs),
        differences=differences,
        standard_errors=tuple(100 * a["standard_error"] for a, _ in pairs),
        errors_above=above,
        spread=known,
        draws=draws,
        refusal=refusal,
    )
