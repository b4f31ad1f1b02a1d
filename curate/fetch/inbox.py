"""Hand what a fetching thread brings to the thread that decodes, within a bound on memory."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from breadth.loaders.errors import Failed

from .fetcher import Fetched, Fetcher

ROOM_BYTES = 8 * 2**20
"""Bodies that may wait for the decoder: while there are more no new request is made."""

IDLE_S = 0.5
STOP_S = 10.0


class Inbox:
    """The results of a fetch that runs in a thread of its own, as an iterator."""

    def __init__(self, fetcher: Fetcher, urls: Sequence[str]) -> None:
        self._fetcher, self._urls = fetcher, urls
        self._arrived: queue.SimpleQueue[Fetched | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._taken_bytes = 0  # each counter has one writer, so neither needs a lock
        self._stop = threading.Event()
        self._error: BaseException | None = None

    def results(self, idle: Callable[[], object]) -> Iterator[Fetched]:
        """Yield one result for each URL in the order they come; calls ``idle`` while none does.

        Raises what the fetching thread raised, and Failed where it ended too early.
        """
        thread = threading.Thread(target=self._run, name="fetch", daemon=True)
        thread.start()
        try:
            for _ in self._urls:
                yield self._next(idle)
        finally:
            self._stop.set()
            thread.join(STOP_S)

    def _next(self, idle: Callable[[], object]) -> Fetched:
        while True:
            with suppress(queue.Empty):
                fetched = self._arrived.get(timeout=IDLE_S)
                if fetched is None:
                    raise self._error or Failed("the fetching thread ended before its URLs did")
                self._taken_bytes += len(fetched.body or b"")
                return fetched
            idle()

    def _run(self) -> None:
        try:
            self._fetcher.run(self._urls, self._put, room=self._room, stop=self._stop)
        except BaseException as error:
            self._error = error
        self._arrived.put(None)

    def _put(self, fetched: Fetched) -> None:
        self._waiting_bytes += len(fetched.body or b"")
        self._arrived.put(fetched)

    def _room(self) -> bool:
        return self._waiting_bytes - self._taken_bytes < ROOM_BYTES
