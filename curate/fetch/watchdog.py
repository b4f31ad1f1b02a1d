"""End a process whose decoder hangs in a picture: nothing else can stop native code."""

import os
import sys
import threading
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
        self._block = 0  # 0 between blocks, else the number of the block
        self._blocks = 0
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
        self._blocks += 1
        self._what, self._block = what, self._blocks
        try:
            yield
        finally:
            self._block = 0

    def _watch(self) -> None:
        """Count own waits, not the clock's seconds: a process that was stopped did not hang."""
        block, waits = 0, 0
        step_s = min(1.0, self._limit_s / 4)
        while not self._over.wait(step_s):
            waits = waits + 1 if self._block == block else 0
            block = self._block
            if block and waits * step_s > self._limit_s:
                sys.stderr.write(
                    f"error: the picture at {self._what} holds its decoder for more than "
                    f"{self._limit_s:g} s; the process ends, run the same command again\n"
                )
                sys.stderr.flush()
                os._exit(EXIT_STATUS)
