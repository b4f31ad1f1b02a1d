"""Build: a pool goes through a recipe and becomes shards, a ledger and a manifest."""

import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from breadth.loaders.arrow_file import write_arrow
from breadth.loaders.errors import Failed, PoolError, RecipeError, ShardError
from breadth.loaders.manifest import Manifest

from .barrier import decide
from .engine import Progress, Runner, open_engine, prepare_engine
from .layout import Layout
from .lease import lease
from .ledger import LedgerTask, funnel
from .leg_task import LegTask
from .legs import Leg, bind_embedders, cut, digest
from .live import OnLive, progress_file
from .materialise import write_keep_list, write_shards
from .part_store import sweep
from .pool import Candidates, read_pool
from .recipe import Recipe
from .retry import (
    NothingNew,
    PictureGone,
    begin_round,
    check_news,
    current_round,
    failed_pairs,
    finish_round,
    is_unfinished,
    take_back_round,
)
from .stage import Stage
from .stages.download import Download
from .stages.embed import Embed
from .thumbs import ThumbsTask, choose
from .workspace import Workspace

LIBRARIES = (
    "breadth",
    "fasttext",
    "img2dataset",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pyarrow",
    "pycurl",
    "resvg-py",
    "simplejpeg",
)
"""Those that change what a build holds."""


def build(
    recipe: Recipe,
    pool: str | Path,
    out: str | Path,
    *,
    embedder: str | Path | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    progress: Progress | None = None,
    on_live: OnLive | None = None,
    on_dashboard: Any = None,
    retry_failed: bool = False,
) -> Manifest:
    """Build shards from a pool; the same call continues an interrupted build.

    ``workers`` processes of this machine do the work; ``scheduler`` is the address of a Dask
    cluster that sees the same folders, or "sync". An edited recipe of the same name may be run
    on the same folder: only what it changes is measured. ``retry_failed`` tries the pairs of a
    finished build again whose failure can pass; where none passes it changes nothing. Raises
    RecipeError, PoolError or OutputError before any work, Failed when some parts failed.
    """
    workspace = Workspace(Path(out).absolute())  # workers may stand in other folders
    if not (workspace.out / "manifest.json").is_file():  # else it is most likely done
        prepare_engine(workers, scheduler)
    stages = bind_embedders(recipe, None if embedder is None else str(Path(embedder).resolve()))
    candidates = read_pool(str(pool), recipe.pool, recipe.output.part_pairs)
    _check(recipe, candidates)
    with lease(workspace.out, recipe, candidates):
        finished = _finished(workspace, recipe, _cut(workspace, recipe, stages, candidates))
        if retry_failed and finished is not None and failed_pairs(_ledger(workspace, finished)):
            begin_round(workspace.out)
            # no longer: another round, another build
            finished = _finished(workspace, recipe, _cut(workspace, recipe, stages, candidates))
        if finished is not None:
            return finished
        _prepare(workspace, candidates)
        with (
            progress_file(workspace.out, workspace.live, progress, on_live) as report,
            open_engine(workers, scheduler) as engine,
        ):
            if on_dashboard is not None and engine.dashboard:
                on_dashboard(engine.dashboard)
            runner = Runner(engine, workspace.out / "failed", report)
            return _run_or_take_back(workspace, recipe, stages, candidates, runner)


def _check(recipe: Recipe, candidates: Candidates) -> None:
    recipe.check(candidates.columns, candidates.has_pictures)
    if candidates.has_pictures and candidates.repeated and not recipe.output.materialise:
        raise RecipeError(
            "the pool's shards hold some uids twice, which a keep-list cannot tell apart: set "
            "[output] materialise = true"
        )


def _cut(
    workspace: Workspace, recipe: Recipe, stages: Sequence[Stage], candidates: Candidates
) -> tuple[Leg, ...]:
    """Cut the stages into the legs of the round in which the folder is."""
    return cut(stages, candidates.fingerprint, recipe.seed, current_round(workspace.out))


def _run_or_take_back(
    workspace: Workspace,
    recipe: Recipe,
    stages: Sequence[Stage],
    candidates: Candidates,
    runner: Runner,
) -> Manifest:
    """Run the build's round, or where a retry comes to nothing the one before it."""

    def run() -> Manifest:
        legs = _cut(workspace, recipe, stages, candidates)
        return _run(workspace, recipe, legs, candidates, runner)

    try:
        return run()
    except (NothingNew, PictureGone) as error:
        if not is_unfinished(workspace.out):
            raise
        gone = isinstance(error, PictureGone)
    take_back_round(workspace.out)
    manifest = run()
    if gone:
        raise Failed(_TAKEN_BACK)
    return manifest


_TAKEN_BACK = (
    "with what the retry brought, other pairs are chosen, and some of their pictures are gone: the "
    "folder is as it was before; build in a new folder, or with [output] keep_staged = true"
)


def _run(
    workspace: Workspace,
    recipe: Recipe,
    legs: tuple[Leg, ...],
    candidates: Candidates,
    runner: Runner,
) -> Manifest:
    parts = range(len(candidates.parts))
    for leg in legs:
        upto = legs[: leg.number + 1]
        label = ", ".join(stage.name for stage in leg.stages)
        runner(label, [LegTask(workspace, upto, part) for part in parts])
        if is_unfinished(workspace.out):
            check_news(workspace, leg, len(parts))
        if leg.barrier is not None:
            decide(workspace, upto, len(parts), runner)
    counts = runner("ledger", [LedgerTask(workspace, legs, part) for part in parts])
    steps = funnel(legs, counts)
    ledger = [workspace.ledger_file(part) for part in parts]
    shown = choose(ledger, recipe.seed, recipe.output.thumbs_per_reason)
    tasks = [ThumbsTask(workspace, legs, p, tuple(rows)) for p, rows in enumerate(shown)]
    runner("thumbnails", tasks)
    layout = Layout(
        workspace, legs, tuple(c["kept"] for c in counts), recipe.output.pairs_per_shard
    )
    if recipe.output.materialise:
        shards, keep_list = write_shards(layout, runner, recipe.output.keep_staged), ""
    else:
        shards, keep_list = write_keep_list(layout, runner, ledger)
    manifest = Manifest(
        name=recipe.name,
        recipe=recipe.text,
        seed=recipe.seed,
        fingerprint=_fingerprint(recipe, legs),
        pool={"fingerprint": candidates.fingerprint, "candidates": candidates.count},
        parts=len(parts),
        pairs=steps[-1]["kept"],
        funnel=tuple(steps),
        columns={f.name: str(f.type) for f in pq.read_schema(ledger[0])},
        shards=shards,
        keep_list=keep_list,
        download=_download(legs),
        embedders=_embedders(legs),
        libraries={name: _version(name) for name in LIBRARIES},
    )
    for folder in (workspace.fetching, workspace.live, workspace.out / "failed"):
        shutil.rmtree(folder, ignore_errors=True)
    finish_round(workspace.out)
    manifest.write(workspace.out)
    return manifest


def _fingerprint(recipe: Recipe, legs: Sequence[Leg]) -> str:
    output = recipe.output
    return digest([legs[-1].verdict, output.materialise, output.pairs_per_shard, recipe.text])


def _finished(workspace: Workspace, recipe: Recipe, legs: Sequence[Leg]) -> Manifest | None:
    """Return the manifest where this very build is done and all it names is there.

    Else the manifest goes, so that what is no longer this recipe's, or whole, is built again.
    """
    if not (workspace.out / "manifest.json").is_file():
        return None
    try:
        manifest = Manifest.read(workspace.out)
        files = _ledger(workspace, manifest)
        files += [workspace.out / manifest.keep_list] if manifest.keep_list else []
        if manifest.fingerprint == _fingerprint(recipe, legs) and all(f.is_file() for f in files):
            for shard in manifest.shards:
                manifest.locate(workspace.out, shard)
            return manifest
    except (PoolError, ShardError):
        pass  # damaged, or a shard is gone
    (workspace.out / "manifest.json").unlink()
    return None


def _ledger(workspace: Workspace, manifest: Manifest) -> list[Path]:
    return [workspace.ledger_file(part) for part in range(manifest.parts)]


def _prepare(workspace: Workspace, candidates: Candidates) -> None:
    """Write the candidates and sweep what killed attempts left."""
    for leftover in workspace.out.rglob(".*.tmp"):  # files that were never whole
        leftover.unlink(missing_ok=True)
    folder = workspace.parts / "pool"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(workspace.parts)
    for part, table in enumerate(candidates.parts):
        write_arrow(workspace.candidates_file(part), table.combine_chunks())


def _embedders(legs: Sequence[Leg]) -> dict[str, Any]:
    embeds = [s for leg in legs for s in leg.stages if isinstance(s, Embed)]
    return {e.embedder: {"digest": e.digest, "width": e.width} for e in embeds}


def _download(legs: Sequence[Leg]) -> dict[str, Any]:
    """Return the policy of the stage that fetches, where one does."""
    return next((s.policy() for leg in legs for s in leg.stages if isinstance(s, Download)), {})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
