"""Build: a pool goes through a recipe and becomes shards, a ledger and a manifest."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from breadth.loaders.arrow_file import write_arrow
from breadth.loaders.errors import OutputError, PoolError, RecipeError, ShardError
from breadth.loaders.manifest import Manifest
from breadth.loaders.whole_file import replaced

from .barrier import decide
from .engine import Progress, Runner, open_engine
from .layout import Layout
from .ledger import LedgerTask, funnel
from .leg_task import LegTask
from .legs import Leg, bind_embedders, cut, digest
from .materialise import write_keep_list, write_shards
from .part_store import sweep
from .pool import Candidates, read_pool
from .recipe import Recipe
from .stages.embed import Embed
from .thumbs import ThumbsTask, choose
from .workspace import Workspace

LIBRARIES = ("breadth", "fasttext", "img2dataset", "numpy", "opencv-python-headless", "pyarrow")


def build(
    recipe: Recipe,
    pool: str | Path,
    out: str | Path,
    *,
    embedder: str | Path | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    progress: Progress | None = None,
    on_dashboard: Any = None,
) -> Manifest:
    """Build shards from a pool; the same call continues an interrupted build.

    ``workers`` processes of this machine do the work; ``scheduler`` is the address of a Dask
    cluster that sees the same folders, or "sync". An edited recipe of the same name may be run
    on the same folder: only what it changes is measured. Raises RecipeError, PoolError or
    OutputError before any work, Failed when some parts failed.
    """
    workspace = Workspace(Path(out).absolute())  # workers may stand in other folders
    run = None if embedder is None else str(Path(embedder).resolve())
    stages = bind_embedders(recipe, run)
    candidates = read_pool(str(pool), recipe.pool, recipe.output.part_pairs)
    recipe.check(candidates.columns, candidates.has_pictures)
    if candidates.has_pictures and candidates.repeated and not recipe.output.materialise:
        raise RecipeError(
            "the pool's shards hold some uids twice, which a keep-list cannot tell apart: set "
            "[output] materialise = true"
        )
    legs = cut(stages, candidates.fingerprint, recipe.seed)
    with _lease(workspace.out, recipe, candidates):
        finished = _finished(workspace, recipe, legs)
        if finished is not None:
            return finished
        _prepare(workspace, candidates)
        with (
            _progress_file(workspace.out, progress) as report,
            open_engine(workers, scheduler) as engine,
        ):
            if on_dashboard is not None and engine.dashboard:
                on_dashboard(engine.dashboard)
            runner = Runner(engine, workspace.out / "failed", report)
            return _run(workspace, recipe, legs, candidates, runner)


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
        embedders=_embedders(legs),
        libraries={name: _version(name) for name in LIBRARIES},
    )
    manifest.write(workspace.out)
    shutil.rmtree(workspace.out / "failed", ignore_errors=True)
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
        files = [workspace.ledger_file(part) for part in range(manifest.parts)]
        files += [workspace.out / manifest.keep_list] if manifest.keep_list else []
        if manifest.fingerprint == _fingerprint(recipe, legs) and all(f.is_file() for f in files):
            for shard in manifest.shards:
                manifest.locate(workspace.out, shard)
            return manifest
    except (PoolError, ShardError):
        pass  # damaged, or a shard is gone
    (workspace.out / "manifest.json").unlink()
    return None


def _prepare(workspace: Workspace, candidates: Candidates) -> None:
    """Write the candidates and sweep what killed attempts left."""
    for leftover in workspace.out.rglob(".*.tmp"):  # files that were never whole
        leftover.unlink(missing_ok=True)
    folder = workspace.parts / "pool"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(workspace.parts)
    for part, table in enumerate(candidates.parts):
        write_arrow(workspace.candidates_file(part), table.combine_chunks())


@contextmanager
def _lease(out: Path, recipe: Recipe, candidates: Candidates) -> Iterator[None]:
    """Hold the folder for this process, and see that it belongs to this build.

    The lock is the kernel's, so it ends with the process however that ends.
    """
    owner = {
        "recipe": recipe.name,
        "pool": candidates.fingerprint,
        "parts": len(candidates.parts),
    }
    _belongs(out, owner)
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lease").open("a+") as lease:
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lease.seek(0)
            holder = lease.read().strip() or "another process"
            raise OutputError(
                f"{out} is being built by {holder}: wait for it, or stop it first"
            ) from None
        _belongs(out, owner)  # another driver may have come first, and be done by now
        lease.truncate(0)
        lease.write(f"process {os.getpid()}\n")
        lease.flush()
        with replaced(out / "build.json") as file:
            file.write(json.dumps(owner, sort_keys=True).encode())
        yield


def _belongs(out: Path, owner: Mapping[str, Any]) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file: give a folder")
    record = out / "build.json"
    if not record.is_file():
        if any(not f.name.startswith(".") for f in out.iterdir()):  # ours, before its first file
            raise OutputError(f"{out} holds other files: give an empty or new folder")
        return
    known = json.loads(record.read_text())
    for what in ("recipe", "pool", "parts"):
        if known.get(what) != owner[what]:
            raise OutputError(
                f"{out} holds a build of another {_WHAT[what]} ({known.get(what)}, not "
                f"{owner[what]}): give another --out, or delete the folder first"
            )


_WHAT = {"recipe": "recipe", "pool": "pool", "parts": "number of parts"}


@contextmanager
def _progress_file(out: Path, progress: Progress | None) -> Iterator[Progress]:
    """Pass progress on, and append it as JSON lines to ``progress.jsonl``."""
    with (out / "progress.jsonl").open("a", encoding="utf-8") as lines:

        def report(label: str, done: int, tasks: int) -> None:
            event = {"time": round(time.time(), 3), "label": label, "done": done, "tasks": tasks}
            lines.write(json.dumps(event) + "\n")
            lines.flush()
            if progress is not None:
                progress(label, done, tasks)

        yield report


def _embedders(legs: Sequence[Leg]) -> dict[str, Any]:
    embeds = [s for leg in legs for s in leg.stages if isinstance(s, Embed)]
    return {e.embedder: {"digest": e.digest, "width": e.width} for e in embeds}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
