"""See that an output folder is new, or belongs to an earlier run of the same verb."""

from collections.abc import Sequence
from pathlib import Path


def claim(out: Path, marks: Sequence[str]) -> None:
    """Make ``out`` unless it is there; raises OutputError where it holds none of ``marks``."""
    from breadth.loaders.errors import OutputError

    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: give a folder")
    if out.is_dir() and any(out.iterdir()) and not any((out / mark).exists() for mark in marks):
        raise OutputError(f"{out} holds other files: give an empty or new folder")
    out.mkdir(parents=True, exist_ok=True)
