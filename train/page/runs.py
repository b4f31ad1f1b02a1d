"""Write runs.html: runs beside each other in one page that needs nothing else, and its numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from breadth.loaders.errors import PoolError, Refused
from breadth.loaders.folder import open_folder
from breadth.loaders.remote import is_url
from breadth.loaders.short_names import short_names
from breadth.loaders.whole_file import replaced

from ..checkpoint import load_run
from ..evaluate.score import without_nan
from ..evaluate.scores import evaluate
from ..recipe import TrainRecipe
from ..run_folder import CHECKPOINT, read_config, read_metrics
from .curves import Line, chart_svg, finite, mark_svg
from .pictures import ShownPair, draw_shown
from .recipe_words import PICTURES, differences, in_words, term_meaning
from .score_table import score_rows
from .seen_by_run import METHOD_NAMES, Seen, look

FORMAT = 1
TEMPLATES = Path(__file__).parent / "templates"
DIGITS = 6  # significant digits of figures: the last bits of a sum depend on the machine
FROM_ZERO = ("lr", "samples_per_s", "tflop_per_s", "mfu")
MEANINGS = {
    "loss": ("loss", "the terms' weighted sum: compare it between equal terms and weights only"),
    "lr": ("learning rate", ""),
    "logit_scale": ("logit scale", "what similarities are multiplied by, at most 100"),
    "samples_per_s": ("pairs a second", "on the machine that trained the run"),
    "tflop_per_s": ("TFLOP/s", "of the model's own arithmetic"),
    "mfu": ("MFU", "share of the peak of the devices that trained the run"),
}
"""Title and meaning of what a log line holds beside the terms."""


@dataclass(frozen=True)
class _Shown:
    """One run of the page: its numbers, for the file beside it too, and what only the page has."""

    recipe: TrainRecipe
    figures: dict[str, Any]
    seen: Seen | None


def write_runs_page(
    runs: Sequence[str | Path], out: str | Path, data: str | Path | None = None
) -> dict[str, Any]:
    """Write the page and return its numbers, which go beside it as .json.

    With ``data``, a folder or a URL, the runs are scored on its pairs, and a few of them, drawn by
    hash of uid, are filled in, described and searched by those runs that can. Equal inputs give
    equal bytes.
    Raises Refused where a folder holds no run; a run without a checkpoint yet has its curves.

    Cost: that of ``evaluate`` for each run; without ``data`` a second.
    """
    page = _check_page(Path(out))
    folders = [Path(run) for run in runs]
    if not folders:
        raise Refused("runs: name at least one folder that breadth train has made")
    names = short_names(folders, "runs")
    for folder in folders:
        read_config(folder)  # all are looked at before any is scored
    pairs = [] if data is None else draw_shown(open_folder(data))
    shown = [
        _gather(folder, name, data, pairs) for folder, name in zip(folders, names, strict=True)
    ]
    content: dict[str, Any] = _rounded(
        {
            "format": FORMAT,
            "data": None if data is None else _name(data),
            "runs": [one.figures for one in shown],
        }
    )
    numbers = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    for path, text in (
        (page, _render(shown, content, pairs)),
        (page.with_suffix(".json"), numbers),
    ):
        with replaced(path) as file:
            file.write(text.encode("utf-8", "backslashreplace"))  # a caption may hold half a pair
    return content


def _check_page(page: Path) -> Path:
    if page.suffix == ".json":
        raise Refused(f"runs: {page} is the page, so it cannot end in .json; say FILE.html")
    if page.is_dir():
        raise Refused(f"runs: {page} is a folder; give the page's file name: {page}/runs.html")
    if not page.absolute().parent.is_dir():
        raise Refused(f"runs: there is no folder {page.parent} for the page; make it")
    return page


def _name(data: str | Path) -> str:
    """Return the last part of where the pairs lie."""
    return str(data).rstrip("/").rpartition("/")[2] if is_url(data) else Path(data).resolve().name


def _gather(path: Path, name: str, data: str | Path | None, pairs: list[ShownPair]) -> _Shown:
    config = read_config(path)
    recipe = TrainRecipe.from_options(config["recipe"])
    rows = _metrics(path)
    run = load_run(path) if (path / CHECKPOINT).is_file() else None
    step = int(rows[-1]["step"]) if rows else 0
    parameters = None if run is None else sum(p.numel() for p in run.model.parameters())
    sees = run is not None and bool(recipe.views & PICTURES)
    seen = look(run, pairs) if run and sees and pairs else None
    figures = {
        "name": name,
        "step": step,
        "steps": recipe.steps,
        "checkpoint": None if run is None else run.step,
        "words": in_words(recipe, config.get("data") or {}, step, parameters),
        "recipe": recipe.to_json(),
        "curves": _curves(rows),
        "scores": evaluate(path, data) if data and sees else None,
        "shown": None if seen is None else seen.figures(),
    }
    return _Shown(recipe, figures, seen)


def _metrics(path: Path) -> list[dict[str, Any]]:
    rows = read_metrics(path)
    for row in rows:
        if not (isinstance(row, dict) and isinstance(row.get("step"), int)):
            raise PoolError(f"{path}/metrics.jsonl is damaged: a line has no step; put it back")
    return rows


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return the points (step, value) of every number that the log lines hold."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "step" and isinstance(value, int | float):
                curves.setdefault(key, []).append((row["step"], value))
    return curves


def _charts(shown: Sequence[_Shown]) -> list[dict[str, Any]]:
    """Return a chart for each metric that any run logged: title, meaning, drawing and lines."""
    terms = {name: w for one in shown for name, w in one.recipe.objective.items()}
    first = ("loss", *terms, "logit_scale", "lr", "samples_per_s")
    logged = {key for one in shown for key in one.figures["curves"]}
    charts = []
    for key in sorted(logged, key=lambda k: (first.index(k) if k in first else len(first), k)):
        lines = [
            Line(one.figures["name"], style, finite(one.figures["curves"].get(key, [])))
            for style, one in enumerate(shown)
        ]
        lines = [line for line in lines if line.points]
        if not lines:
            continue
        meaning = term_meaning(terms[key]) if key in terms else ""
        title, meaning = MEANINGS.get(key, (_title(key), meaning or _meaning_by_kind(key)))
        ends = "; ".join(f"{line.name} ends at {line.points[-1][1]:.4g}" for line in lines)
        drawing = chart_svg(lines, f"{title} by step: {ends}", from_zero=key in FROM_ZERO)
        charts.append({"title": title, "meaning": meaning, "drawing": drawing, "lines": lines})
    return charts


def _title(key: str) -> str:
    kind, *terms = key.split("/")
    if terms and kind in ("gradient", "cosine", "weight"):
        return f"{kind} of {' and '.join(terms)}"
    return key.replace("_", " ")


def _meaning_by_kind(key: str) -> str:
    return {
        "gradient": "the length of the term's own gradient on the encoder, unweighted",
        "cosine": "between the terms' gradients on the encoder: below 0 they pull apart",
        "weight": "what the term's mean is multiplied by",
    }.get(key.split("/")[0], "")


def _breakable(name: str) -> Markup:
    """Let a long name break after underscores and between folders."""
    return escape(name).replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>"))


def _notes(figures: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the names of the runs that each note of ``evaluate`` is said of."""
    notes: dict[str, list[str]] = {}
    for one in figures:
        for note in one["scores"]["notes"] if one["scores"] else ():
            notes.setdefault(note, []).append(one["name"])
    return notes


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return without_nan(float(f"{value:.{DIGITS}g}"))
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


def _render(shown: Sequence[_Shown], content: dict[str, Any], pairs: list[ShownPair]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"mark": mark_svg}
    environment.filters |= {"breakable": _breakable}
    figures = content["runs"]
    results = [one["scores"] for one in figures]
    return environment.get_template("runs.html").render(
        data=content["data"],
        runs=figures,
        seen=[one.seen for one in shown],
        pairs=pairs,
        methods=METHOD_NAMES,
        charts=_charts(shown),
        rows=score_rows(results),
        notes=_notes(figures),
        differences=differences([one.recipe for one in shown]),
    )
