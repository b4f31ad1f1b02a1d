"""Write the report: one HTML page that needs nothing else, and its numbers as JSON."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from breadth.loaders.errors import PoolError, Refused
from breadth.loaders.manifest import MANIFEST_NAME, Manifest, find_shards
from breadth.loaders.short_names import short_names
from breadth.loaders.whole_file import replaced

from .column_figures import column_categories, column_histograms, ledger_accounts
from .contact_sheet import KEPT, Cell, Group, contact_sheets, is_withheld
from .diversity import compare_diversity
from .embedder import open_embedder
from .figures import breakable, histogram_svg, is_log, number, percent
from .time_spent import time_spent

FORMAT = 1
TEMPLATES = Path(__file__).parent / "templates"
DIGITS = 6  # significant digits of figures: the last bits of a sum depend on the machine


@dataclass(frozen=True)
class _Set:
    """One folder of the report: its figures for report.json, and what only the page shows."""

    folder: Path
    manifest: Manifest
    figures: dict[str, Any]
    sheets: dict[Group, list[Cell]]


def report(
    folders: Sequence[Path], *, out: Path | None = None, embedder: Path | None = None
) -> dict[str, Any]:
    """Write the page and its numbers, and return the numbers; equal input gives equal bytes.

    ``out`` is the page (default: report.html in the first folder); the numbers go beside it with
    the suffix .json. ``embedder`` is the folder of a run, measured beside random_features. Raises
    Refused where a folder is missing or its build is not finished.

    Cost: reads the ledger five times, part by part, and up to 2,000 pictures of each folder.
    """
    if not folders:
        raise Refused("report: name at least one folder that breadth build has made")
    page = Path(folders[0]) / "report.html" if out is None else out
    if page.suffix == ".json":
        raise Refused(f"report: {page} is the page, so it cannot end in .json; say FILE.html")
    if page.is_dir():
        raise Refused(f"report: {page} is a folder; give the page's file name: {page}/report.html")
    embedders = ["random_features"] + ([str(embedder)] if embedder else [])
    folders = [Path(folder) for folder in folders]
    sets = [_gather(*named) for named in zip(folders, short_names(folders, "report"), strict=True)]
    content: dict[str, Any] = {"format": FORMAT, "sets": [one.figures for one in sets]}
    content["diversity"] = [_diversity(sets, name) for name in embedders]
    content = _rounded(content)
    page.parent.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    for path, text in ((page, _render(sets, content)), (page.with_suffix(".json"), numbers)):
        with replaced(path) as file:
            file.write(text.encode("utf-8", "backslashreplace"))  # a caption may hold half a pair
    return content


def _gather(folder: Path, name: str) -> _Set:
    manifest = _read_manifest(folder)
    ledger = sorted((folder / "ledger").glob("*.parquet"))
    columns = ledger or [
        path for shard in find_shards(folder) if (path := shard.with_suffix(".parquet")).is_file()
    ]
    figures = {
        "name": name,
        "recipe": manifest.name,
        "manifest": manifest.digest,
        "seed": manifest.seed,
        "candidates": manifest.pool.get("candidates"),
        "pairs": manifest.pairs,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "funnel": [dict(stage) for stage in manifest.funnel],
        "accounts": _accounts(manifest, ledger),
        "columns": column_histograms(columns),
        "categories": column_categories(columns),
        "time": time_spent(folder),
        "download": dict(manifest.download),
    }
    return _Set(folder, manifest, figures, contact_sheets(folder, ledger, manifest.seed))


def _read_manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise PoolError(f"there is no folder {folder}: give one that breadth build has made")
    if (folder / "parts").is_dir() and not (folder / MANIFEST_NAME).is_file():
        raise PoolError(f"the build in {folder} is not finished: run the same build command again")
    return Manifest.read(folder)


def _accounts(manifest: Manifest, ledger: Sequence[Path]) -> dict[str, Any]:
    """Compare the ledger's rows with the funnel; ``agree`` is None where there is no ledger."""
    dropped = {
        stage: dict(sorted(reasons.items()))
        for stage, reasons in sorted(_dropped_by_stage(manifest.funnel).items())
    }
    stated = {"kept": manifest.pairs, "dropped": dropped}
    if not ledger:
        return {"funnel": stated, "ledger": None, "agree": None}
    counted = ledger_accounts(ledger)
    agree = counted["kept"] == stated["kept"] and counted["dropped"] == stated["dropped"]
    flows = all(stage["in"] - stage["kept"] == _lost(stage) for stage in manifest.funnel)
    return {"funnel": stated, "ledger": counted, "agree": agree and flows}


def _dropped_by_stage(funnel: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    dropped: dict[str, dict[str, int]] = {}
    for stage in funnel:
        for reason, count in stage["dropped"].items():
            if count:
                reasons = dropped.setdefault(stage["stage"], {})
                reasons[reason] = reasons.get(reason, 0) + count
    return dropped


def _lost(stage: Mapping[str, Any]) -> int:
    return sum(stage["dropped"].values())


def _diversity(sets: Sequence[_Set], name: str) -> dict[str, Any]:
    """Measure the sets that hold pairs, at equal n; the others have None."""
    embedder = open_embedder(name)
    full = [one.folder for one in sets if one.manifest.pairs]
    measured = iter(compare_diversity(full, embedder) if full else [])
    return {
        "embedder": embedder.name,
        "width": embedder.width,
        "sets": [next(measured) if one.manifest.pairs else None for one in sets],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return value


def _render(sets: Sequence[_Set], content: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {
        "number": number,
        "jpeg": _data_url,
        "is_log": is_log,
        "breakable": breakable,
    }
    environment.globals |= {"percent": percent, "histogram": histogram_svg}
    environment.tests |= {"withheld": is_withheld}
    pages = [
        {"figures": figures, "sheets": one.sheets, "recipe": one.manifest.recipe, "kept": KEPT}
        for one, figures in zip(sets, content["sets"], strict=True)
    ]
    return environment.get_template("report.html").render(
        sets=pages, rows=_funnel_rows(content["sets"]), diversity=content["diversity"]
    )


def _funnel_rows(sets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Line stages up over the sets: name, and per set its funnel entry or None.

    A stage that comes twice in a recipe has two rows.
    """
    rows: dict[tuple[str, int], list[Any]] = {}
    for column, one in enumerate(sets):
        seen: dict[str, int] = {}
        for stage in one["funnel"]:
            seen[stage["stage"]] = seen.get(stage["stage"], 0) + 1
            key = (stage["stage"], seen[stage["stage"]])
            rows.setdefault(key, [None] * len(sets))[column] = stage
    return [{"stage": stage, "entries": entries} for (stage, _), entries in rows.items()]


def _data_url(picture: bytes) -> str:
    return "data:image/jpeg;base64," + b64encode(picture).decode()
