"""Put a study in words and tables: what was run, what the worlds hold, the paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..page.recipe_words import objective_words
from ..recipe import TrainRecipe
from .analysis import Comparison, Rows, compare, unscored
from .design import Study
from .pairing import training_recipe, training_recipes
from .statistics import ERRORS_ABOVE_FLOOR, MOST_DRAWS


def tables(study: Study, rows: Rows, measured: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Say what was run, what the worlds hold and what the paired differences are."""
    recipes = {o: training_recipe(study, o, study.seeds[0]) for o in study.objectives}
    return "\n\n".join(
        [
            *filter(None, [study.note]),
            f"{len(rows)} of {len(study.cells())} runs are done.",
            setting(study, recipes),
            "## Worlds",
            world_table(study, measured),
            "## Paired differences in points, by seed",
            comparison_table(study, compare(study, rows)),
            *(f"There is no {name}, hence no difference." for name in unscored(study, rows)),
            f"Each run is scored on {study.held_out_pairs:,} other scenes of its own world (probes "
            "on a fifth of them; the others fit the probe). Guessing is 1 / classes or the largest "
            "class's share, whichever is larger. The interval of the standard deviation (sd) is "
            "chi-square's, so it takes the differences for normal. Draws: the fewest for which a "
            f"two-sided paired t-test at 5 % finds {study.effect_points:g} point with a power of "
            f"80 %, by the noncentral t, at the sd and at both ends of its interval; refused where "
            f"a {study.objectives[0]} run is not {ERRORS_ABOVE_FLOOR} standard errors above "
            "guessing.",
        ]
    )


def setting(study: Study, recipes: Mapping[str, TrainRecipe]) -> str:
    """Say which objectives with which weights were trained how long on how much."""
    first = recipes[study.objectives[0]]
    seen = first.steps * first.batch_pairs
    weights = "\n".join(f"- {name}: {objective_words(r)}" for name, r in recipes.items())
    return (
        f"{len(study.cells())} runs: {len(recipes)} objectives x {len(study.worlds)} worlds x "
        f"{len(study.seeds)} seeds. A seed draws world, scenes, order and initialisation; the "
        f"objectives share all four. {first.steps} steps of {first.batch_pairs} pairs over "
        f"{study.pairs:,} pairs: {seen / study.pairs:.1f} repeats of each. Size {first.size}, "
        f"pictures of {first.image_px} px, patches of {first.patch_px}, pool {first.pool}, "
        f"learning rate {first.lr:g}.\n\n"
        f"Objectives and the weights of their terms:\n\n{weights}"
    )


def world_table(study: Study, measured: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Write the figures of every world, one number for each seed."""
    first = next(iter(measured.values()))
    batch = training_recipe(study, study.objectives[0], 0).batch_pairs
    columns = {
        f"Vendi score ({first['embedder']}, n = {first['pairs']})": ("vendi", 1, "{:.2f}"),
        "distinct word pairs": ("caption_distinct_2", 1, "{:.3f}"),
        f"pairs of a batch of {batch} with an equal caption": ("equal_captions", 100, "{:.1f} %"),
    }
    body = [
        [
            world,
            dial_text(dials),
            *(
                ", ".join(
                    form.format(scale * measured[world, seed][name])
                    for seed in study.seeds
                    if (world, seed) in measured
                )
                for name, scale, form in columns.values()
            ),
        ]
        for world, dials in study.worlds.items()
    ]
    return markdown(["world", "dials", *columns], body)


def plan_text(study: Study, results: str) -> str:
    """List the runs of a study and say where their rows would go; raises Refused for a bad one."""
    recipes = training_recipes(study)
    worlds = [f"- {name}: {dial_text(dials)}" for name, dials in study.worlds.items()]
    return "\n\n".join(
        [
            *filter(None, [study.note]),
            setting(study, recipes),
            "\n".join(["Worlds and their dials:", "", *worlds]),
            f"Compared by {', '.join(study.metrics)}, each on {study.held_out_pairs:,} other "
            "scenes of the run's own world. Diversity and equal captions are measured once the "
            "worlds are drawn.",
            "\n".join(["Runs, in this order:", "", *(f"- {cell.name}" for cell in study.cells())]),
            f"Rows go to {results}",
        ]
    )


def dial_text(dials: Mapping[str, Any]) -> str:
    """Write the dials that a world sets."""
    return ", ".join(f"{dial} = {value}" for dial, value in dials.items()) or "as they come"


def comparison_table(study: Study, comparisons: Sequence[Comparison]) -> str:
    """Write the comparisons as a Markdown table, or say that there is none yet."""
    if not comparisons:
        return "No pair of runs is finished yet."
    first = study.objectives[0]
    header = [
        "metric",
        "world",
        "guessing",
        f"{first} (standard error)",
        "paired differences",
        "their sd [95 %]",
        f"draws for {study.effect_points:g} point [95 %]",
    ]
    return markdown(header, [_cells(c, first) for c in comparisons])


def _cells(c: Comparison, first: str) -> list[str]:
    scores = zip(c.baseline, c.standard_errors, strict=True)
    sd = "-"
    if c.spread is not None:
        sd = f"{c.spread.sd:.2f} [{c.spread.low:.2f}, {c.spread.high:.2f}]"
    draws = c.refusal
    if c.draws is not None:
        low, middle, high = (_count(n) for n in c.draws)
        draws = f"{middle} [{low}, {high}]"
    return [
        c.metric,
        c.world,
        ", ".join(dict.fromkeys(f"{floor:.1f}" for floor in c.floors)),
        ", ".join(f"{value:.1f} ({error:.1f})" for value, error in scores),
        f"{c.objective} - {first}: " + ", ".join(f"{d:+.2f}" for d in c.differences),
        sd,
        draws,
    ]


def _count(draws: int) -> str:
    return f"over {MOST_DRAWS}" if draws >= MOST_DRAWS else str(draws)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose columns also line up in a terminal."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
