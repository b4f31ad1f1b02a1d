"""One build at a time in a folder, and only builds of one recipe and pool."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from breadth.loaders.errors import OutputError
from breadth.loaders.whole_file import replaced

from .pool import Candidates
from .recipe import Recipe


@contextmanager
def lease(out: Path, recipe: Recipe, candidates: Candidates) -> Iterator[None]:
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
    with (out / ".lease").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise OutputError(
                f"{out} is being built by {holder}: wait for it, or stop it first"
            ) from None
        known = _belongs(out, owner)  # another driver may have come first, and be done by now
        lock.truncate(0)
        lock.write(f"process {os.getpid()}\n")
        lock.flush()
        with replaced(out / "build.json") as file:
            file.write(json.dumps({**known, **owner}, sort_keys=True).encode())
        yield


def _belongs(out: Path, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the folder's record says; empty where the folder is new."""
    if not out.exists():
        return {}
    if not out.is_dir():
        raise OutputError(f"{out} is a file: give a folder")
    record = out / "build.json"
    if not record.is_file():
        if any(not f.name.startswith(".") for f in out.iterdir()):  # ours, before its first file
            raise OutputError(f"{out} holds other files: give an empty or new folder")
        return {}
    known: dict[str, Any] = json.loads(record.read_text())
    for what in ("recipe", "pool", "parts"):
        if known.get(what) != owner[what]:
            raise OutputError(
                f"{out} holds a build of another {_WHAT[what]} ({known.get(what)}, not "
                f"{owner[what]}): give another --out, or delete the folder first"
            )
    return known


_WHAT = {"recipe": "recipe", "pool": "pool", "parts": "number of parts"}
