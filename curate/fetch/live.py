"""Say once a second how a part's fetch is getting on, in a file that the driver reads."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EVERY_S = 1.0


class Live:
    """The figures of one part: pairs done, fetched, failed by kind, bytes, slowest hosts."""

    def __init__(self, file: Path, pairs: int, fetching: Callable[[], Mapping[str, Any]]) -> None:
        self._file, self._fetching = file, fetching
        self._pairs, self._done, self._bytes = pairs, 0, 0
        self._failures: Counter[str] = Counter()
        self._written = 0.0

    def count(self, failure: str | None, n_bytes: int, pairs: int = 1) -> None:
        """Count what became of ``pairs`` pairs of one URL."""
        self._done += pairs
        self._bytes += n_bytes
        if failure is not None:
            self._failures[failure] += pairs
        self.write()

    def write(self, *, at_once: bool = False) -> None:
        """Write the figures where the last are a second old."""
        now = time.monotonic()
        if not at_once and now - self._written < EVERY_S:
            return
        self._written = now
        failed = sum(self._failures.values())
        figures = {
            "pairs": self._pairs,
            "done": self._done,
            "ok": self._done - failed,
            "bytes": self._bytes,
            "failures": dict(self._failures),
            **self._fetching(),
        }
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(figures))  # no fsync: it is old in a second
        temporary.replace(self._file)
