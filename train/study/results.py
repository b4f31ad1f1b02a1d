"""Keep a study's rows in one append-only file, so that a finished run is never done again."""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import breadth.loaders
from breadth.loaders.errors import OutputError

from ..run_folder import LIBRARIES


def code_version() -> str:
    """Return a digest of what makes scores: our loaders and trainer, and the libraries they use.

    ``train/study`` is left out: how rows are analysed does not change them.
    """
    libraries = [f"{name} {version(name)}" for name in (*LIBRARIES, "scipy")]
    digest = sha256("\n".join(libraries).encode())
    for root in (Path(breadth.loaders.__path__[0]), Path(__file__).parents[1]):
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".toml") and "study" not in path.relative_to(root).parts:
                digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def row_key(config: Mapping[str, Any], data_digest: str, code: str) -> str:
    """Return what identifies a run: its configuration, its data and the code that made it."""
    text = json.dumps([config, data_digest, code], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:32]


class Results:
    """The rows of ``path``, by key; a row is on disk before ``append`` returns.

    Raises OutputError where rows were made by another version of the code, or cannot be read.
    """

    def __init__(self, path: Path, code: str) -> None:
        self.path = path
        self.code = code
        self.rows = {row["key"]: row for row in _read(path)}
        others = {row["code"] for row in self.rows.values()} - {code}
        if others:
            raise OutputError(
                f"{path} holds rows made by other code ({', '.join(sorted(others))}; this is "
                f"{code}): differences between the two would be no result; give another --out"
            )

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one finished run; ``row`` has its ``key``."""
        line = json.dumps({**row, "code": self.code}, sort_keys=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[row["key"]] = json.loads(line)  # as the next process will have it


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):  # the writer died in the middle of a line: that run is done again
        with path.open("r+b") as file:
            file.truncate(whole)
    try:
        rows = [json.loads(line) for line in written[:whole].splitlines()]
        return [row for row in rows if row["key"] and row["code"]]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path} is not a study's results ({error}); give another --out"
        ) from error
