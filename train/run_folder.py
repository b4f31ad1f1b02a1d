"""What lies in a run's folder besides its checkpoint: config.json and metrics.jsonl."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from breadth.loaders.errors import OutputError, PoolError
from breadth.loaders.whole_file import replaced

from .recipe import TrainRecipe

CHECKPOINT = "checkpoint.safetensors"
LIBRARIES = ("numpy", "pillow", "opencv-python-headless", "safetensors", "tokenizers", "torch")


def code_version() -> dict[str, str]:
    """Return the package's version and a digest of the code that decides what a run becomes."""
    digest = sha256()
    for folder in ("breadth.loaders", "breadth.train"):
        sources = [f for f in files(folder).iterdir() if f.name.endswith(".py")]
        for source in sorted(sources, key=lambda f: f.name):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return {"version": version("breadth"), "digest": digest.hexdigest()[:16]}


def subset_digest(uids: Iterable[str] | None) -> str | None:
    """Return a digest of a set of uids, whatever their order; None stands for all pairs."""
    if uids is None:
        return None
    return sha256("\n".join(sorted(set(uids))).encode()).hexdigest()


def describe_run(
    recipe: TrainRecipe,
    data: Mapping[str, Any],
    subset: Iterable[str] | None,
    begun: str | None = None,
) -> dict[str, Any]:
    """Return what config.json holds; ``data`` is the digest and number of pairs.

    ``begun`` is the digest of the checkpoint that the run begins with.
    """
    return {
        "format": 1,
        "recipe": recipe.to_json(),
        "data": {**data, "subset": subset_digest(subset)},
        "start": {"checkpoint": begun},
        "code": code_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def check_folder(out: Path, config: Mapping[str, Any]) -> None:
    """Make sure that ``out`` can hold the run that ``config`` describes.

    Raises OutputError where it holds a run of another recipe or other data, or something else.
    """
    if not (out / "config.json").is_file():
        left_by_a_kill = ".config.json.*.tmp"
        if out.is_file() or (
            out.is_dir() and any(not path.match(left_by_a_kill) for path in out.iterdir())
        ):
            raise OutputError(f"{out} is not empty and holds no run; name another folder")
        return
    found = read_config(out)
    for part in ("recipe", "data", "start"):
        if found.get(part) != config[part]:
            raise OutputError(
                f"{out} holds a run of other {part} ({difference(found.get(part), config[part])});"
                " name another folder"
            )


def begun_with(out: Path, start: Path | None) -> str | None:
    """Return the digest of the checkpoint that a run in ``out`` begins with, None for none.

    A run with a checkpoint of its own remembers it: ``start`` may be gone or trained on by then.
    """
    if start is None:
        return None
    held = read_config(out).get("start") if (out / CHECKPOINT).is_file() else None
    begun = held.get("checkpoint") if isinstance(held, dict) else None
    return begun or checkpoint_digest(start)


def checkpoint_digest(run: Path) -> str:
    """Return a digest of a run's checkpoint; raises PoolError where it has none."""
    path = run / CHECKPOINT
    if not path.is_file():
        raise PoolError(f"{run} has no checkpoint to start from; train it first")
    return sha256(path.read_bytes()).hexdigest()


@contextmanager
def hold_folder(out: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Make the run's folder or go on in it, in one process at a time.

    The lock is on the folder, so that it is there before any file, and the system takes it back
    when the process ends. Raises OutputError where another process holds it, or began another run.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{out} is being trained by another process; wait for it") from None
        check_folder(out, config)
        if not (out / "config.json").is_file():
            write_json(out / "config.json", config)
        yield
    finally:
        os.close(folder)


def difference(found: Any, wanted: Mapping[str, Any]) -> str:
    """Name the first thing in which two descriptions differ."""
    found = found if isinstance(found, dict) else {}
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            return f"{key}: {short(found.get(key))} there, {short(wanted.get(key))} here"
    return "unreadable"


def short(value: Any) -> str:
    """Return a value in at most 40 characters."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def read_config(path: Path) -> dict[str, Any]:
    """Read a run's config.json; raises PoolError where the folder holds no run."""
    try:
        config = json.loads((path / "config.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise PoolError(f"{path} is not a run: it has no config.json") from None
    except ValueError as error:
        raise PoolError(f"{path}/config.json is damaged: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("recipe"), dict):
        raise PoolError(f"{path} is not a run: its config.json holds no recipe")
    return config


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all, in its own order: the first term is special."""
    with replaced(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def read_metrics(out: Path, up_to: int | None = None) -> list[dict[str, Any]]:
    """Read the metrics up to a step; a line that a kill cut in half ends them."""
    path, rows = out / "metrics.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if up_to is None or row["step"] <= up_to:
            rows.append(row)
    return rows


def last_metrics(out: Path) -> dict[str, Any]:
    """Return the metrics of a finished run's last step; raises PoolError where they are gone."""
    rows = read_metrics(out)
    if not rows:
        raise PoolError(f"{out} is trained, but its metrics.jsonl is empty or gone: put it back")
    return rows[-1]


def cut_metrics(out: Path, step: int) -> None:
    """Forget the metrics after ``step``, from where the run goes on."""
    rows = read_metrics(out, step)
    with replaced(out / "metrics.jsonl") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
