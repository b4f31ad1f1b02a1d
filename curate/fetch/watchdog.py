"""End a process whose decoder hangs in a picture: nothing else can stop native code."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LEAST_S = 60.0
"""A decoder gets this long even where the deadline is short: a busy machine does not hang."""

EXIT_STATUS = 70


class Watchdog:
    """Watches one thread's work; used as a context it ends with the block.

    The process is ended, not the thread, which would keep its locks. A cluster starts another
    worker and repeats the part; after two such ends the part decodes in a child process.
    """

    def __init__(self, deadline_s: float) -> None:
        self._limit_s = max(LEAST_S, 3 * deadline_s)
        self._since: float | None = None
        self._what = ""
        self._over = threading.Event()

    def __enter__(self) -> "Watchdog":
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Watch the block, which works at ``what``."""
        self._what, self._since = what, time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            since = self._since
            if since is not None and time.monotonic() - since > self._limit_s:
                sys.stderr.write(
                    f"error: the picture at {self._what} holds its decoder for more than "
                    f"{self._limit_s:g} s; the process ends, run the same command again\n"
                )
                sys.stderr.flush()
                os._exit(EXIT_STATUS)
