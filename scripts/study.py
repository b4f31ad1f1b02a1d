"""breadth study: train every objective on every draw of every world, and compare them in pairs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from breadth.train.recipe import TrainRecipe
    from breadth.train.study.design import Cell, Study
    from breadth.train.study.results import Results

RESULTS = "study.jsonl"
_DIVERSITY_PAIRS = 1000

Say = Callable[[str], None]


@click.command(epilog="Example: breadth study pilot --out runs/pilot")
@click.argument("name", metavar="NAME|FILE")
@click.option(
    "--out",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where data, runs, rows and the tables go; the same command continues from there.",
)
@click.option("--plan", is_flag=True, help="Say what would be run, check it, and write nothing.")
def study(name: str, out: Path, plan: bool) -> None:
    """Run and analyse a study: a shipped NAME (pilot, pilot_two) or a TOML FILE.

    Each draw of a world is used by all objectives in the same order from the same initialisation,
    so that what differs is the objective. A finished run is a row in DIR/study.jsonl and is never
    done again; the tables are in DIR/study.md.
    """
    from breadth.train.study.design import read_study

    chosen = read_study(name)
    recipes = training_recipes(chosen)
    if plan:
        click.echo(plan_text(chosen, recipes, out))
        return
    click.echo(run_study(chosen, out, click.echo))
    click.echo(f"\n{out / 'study.md'}")


def training_recipes(study: "Study") -> "dict[str, TrainRecipe]":
    """Return each objective's recipe at the first seed, checked to differ in its terms alone."""
    from breadth.loaders.errors import Refused
    from breadth.train.study.pairing import check_paired

    recipes = {o: training_recipe(study, o, study.seeds[0]) for o in study.objectives}
    check_paired(list(recipes.values()))
    batch = recipes[study.objectives[0]].batch_pairs
    if study.pairs < batch:
        raise Refused(f"a study of {study.pairs} pairs cannot fill a batch of {batch}; give more")
    return recipes


def training_recipe(study: "Study", objective: str, seed: int) -> "TrainRecipe":
    """Return the shipped recipe (or file) of an objective with the study's options set."""
    from breadth.train.recipe import TrainRecipe, load_recipe

    options = {**load_recipe(objective).to_json(), **study.training, "seed": seed}
    return TrainRecipe.from_options(options)


def run_study(study: "Study", out: Path, say: Say) -> str:
    """Do the runs that ``out`` has no row for and return the tables, which go to study.md too."""
    from breadth.loaders.whole_file import replaced
    from breadth.train.study.results import Results, code_version

    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / RESULTS, code_version())
    rows: dict[tuple[str, int, str], Mapping[str, Any]] = {}
    cells = study.cells()
    for number, cell in enumerate(cells, 1):
        say(f"run {number} of {len(cells)}: {cell.name}")
        rows[cell.world, cell.seed, cell.objective] = run_cell(study, cell, out, results)
    from breadth.train.study.pairing import check_orders

    check_orders(study, rows)
    text = tables(study, rows, measure_worlds(study, out))
    with replaced(out / "study.md") as file:
        file.write(f"# Study {study.name}\n\n{text}\n".encode())
    return text


def run_cell(study: "Study", cell: "Cell", out: Path, results: "Results") -> Mapping[str, Any]:
    """Return the row of one run: the one there is, or that of training and scoring it now."""
    from breadth.loaders.manifest import Manifest
    from breadth.train.evaluate.scores import evaluate
    from breadth.train.loop import train
    from breadth.train.study.pairing import trained_order
    from breadth.train.study.results import row_key

    from .study_draws import draw_folders

    train_folder, held_out = draw_folders(study, cell.world, cell.seed, out / "draws")
    recipe = training_recipe(study, cell.objective, cell.seed)
    digests = f"{Manifest.read(train_folder).digest}/{Manifest.read(held_out).digest}"
    key = row_key(recipe.to_json(), digests, results.code)
    if key in results.rows:
        return results.rows[key]
    started = monotonic()
    run = out / "runs" / f"{cell.name}-{key[:8]}"
    train(recipe, train_folder, run)
    trained = monotonic()
    row = {
        "key": key,
        "study": study.name,
        "world": cell.world,
        "seed": cell.seed,
        "objective": cell.objective,
        "recipe": recipe.to_json(),
        "data": digests,
        "order": trained_order(run),
        "scores": evaluate(run, held_out),
        "train_s": round(trained - started, 2),
        "evaluate_s": round(monotonic() - trained, 2),
    }
    results.append(row)
    return results.rows[key]


def measure_worlds(study: "Study", out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Measure what each draw's training pairs hold, at equal numbers of pairs.

    The embedder is the built-in one: none of the runs that are compared.
    """
    from breadth.curate.diversity import compare_diversity
    from breadth.curate.random_features import RandomFeatures
    from breadth.loaders.folder import open_folder
    from breadth.train.study.statistics import equal_caption_share

    from .study_draws import draw_folders

    draws = [(world, seed) for world in study.worlds for seed in study.seeds]
    folders = [draw_folders(study, *draw, out / "draws")[0] for draw in draws]
    pairs = min(study.pairs, _DIVERSITY_PAIRS)
    found = compare_diversity(folders, RandomFeatures(), pairs=pairs)
    batch = training_recipe(study, study.objectives[0], 0).batch_pairs
    for figures, folder in zip(found, folders, strict=True):
        captions = open_folder(folder).column("caption").to_pylist()
        figures["equal_captions"] = equal_caption_share(captions, batch)
    return dict(zip(draws, found, strict=True))


def tables(
    study: "Study",
    rows: Mapping[tuple[str, int, str], Mapping[str, Any]],
    measured: Mapping[tuple[str, int], Mapping[str, Any]],
) -> str:
    """Say what was run, what the worlds hold and what the paired differences are."""
    from breadth.train.study.analysis import compare, comparison_table
    from breadth.train.study.statistics import ERRORS_ABOVE_FLOOR

    recipes = {o: training_recipe(study, o, study.seeds[0]) for o in study.objectives}
    return "\n\n".join(
        [
            *filter(None, [study.note]),
            setting(study, recipes),
            "## Worlds",
            world_table(study, measured),
            "## Paired differences in points, by seed",
            comparison_table(study, compare(study, rows)),
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


def setting(study: "Study", recipes: "Mapping[str, TrainRecipe]") -> str:
    """Say which objectives with which weights were trained how long on how much."""
    first = recipes[study.objectives[0]]
    seen = first.steps * first.batch_pairs
    weights = "\n".join(
        f"- {name}: " + ", ".join(f"{term} {weight:g}" for term, weight in recipe.weights.items())
        for name, recipe in recipes.items()
    )
    return (
        f"{len(study.cells())} runs: {len(recipes)} objectives x {len(study.worlds)} worlds x "
        f"{len(study.seeds)} seeds. A seed draws world, scenes, order and initialisation; the "
        f"objectives share all four. {first.steps} steps of {first.batch_pairs} pairs over "
        f"{study.pairs:,} pairs: {seen / study.pairs:.1f} repeats of each.\n\n"
        f"Objectives and the weights w of their terms:\n\n{weights}"
    )


def world_table(study: "Study", measured: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Write the figures of every world, one number for each seed."""
    from breadth.train.study.analysis import markdown

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
            ", ".join(f"{dial} = {value}" for dial, value in dials.items()),
            *(
                ", ".join(form.format(scale * measured[world, s][name]) for s in study.seeds)
                for name, scale, form in columns.values()
            ),
        ]
        for world, dials in study.worlds.items()
    ]
    return markdown(["world", "dials", *columns], body)


def plan_text(study: "Study", recipes: "Mapping[str, TrainRecipe]", out: Path) -> str:
    """List the runs of a study; writes nothing."""
    lines = [f"  {cell.name}" for cell in study.cells()]
    scored = f"scored by {', '.join(study.metrics)} on {study.held_out_pairs:,} pairs each"
    where = f"rows go to {out / RESULTS}"
    return "\n".join([setting(study, recipes), "", *lines, "", scored, where])
