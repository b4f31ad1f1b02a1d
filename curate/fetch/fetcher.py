"""Fetch many URLs at once: safe for this machine, polite to the others, no end left open."""

import heapq
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from breadth.loaders.errors import Failed

from .addresses import Lookup, Resolver
from .course import Course
from .errand import Fetched, FetchOptions
from .limits import Limits
from .origins import Origins
from .queues import Queues
from .robots import Robots
from .transport import Transport

__all__ = ["FetchOptions", "Fetched", "Fetcher"]

TICK_S = 0.25
"""How often, at least, the loop looks at ``stop`` and for lookups without end."""
NO_ROOM_S = 0.005
"""How often it looks whether there is room again, which nobody tells it."""
LOOKUP_S = 10.0
"""The limit of a lookup, where the deadline is not sooner."""
_ADMITTED = 256
"""Rows that are read in one turn of the loop, so that the first do not wait for the last."""


class Fetcher:
    """Fetches a list of URLs in the thread that calls run(); see FetchOptions.

    Every hop of a redirect is checked as the first one was: scheme, credentials, addresses,
    robots.txt, limits.
    """

    def __init__(
        self,
        options: FetchOptions,
        limits: Limits,
        robots: Robots,
        *,
        lookup: Lookup = socket.getaddrinfo,
    ) -> None:
        self._options, self._lookup = options, lookup
        self._queues = Queues(limits)
        self._origins = Origins(robots, options.deadline_s)
        self._course: Course | None = None

    def figures(self) -> dict[str, Any]:
        """Return what goes on now; any thread may ask.

        Requests in flight, URLs that wait for politeness, and the five slowest hosts with their
        mean seconds a request.
        """
        course = self._course
        hosts = list(course.hosts.items()) if course is not None else []
        means = [(host, spent / count) for host, (count, spent) in hosts if count]
        slowest = heapq.nlargest(5, means, key=lambda host: host[1])
        return {
            "in_flight": course.in_flight if course is not None else 0,
            "waiting_polite": self._queues.waiting,
            "slowest": [[host, round(seconds, 3)] for host, seconds in slowest],
        }

    def run(
        self,
        urls: Sequence[str | None],
        put: Callable[[Fetched], None],
        *,
        room: Callable[[], bool],
        stop: threading.Event,
    ) -> None:
        """Fetch ``urls`` and call ``put`` once for each, in the order they end.

        No request starts while ``room()`` is false. Returns early, within a second, when ``stop``
        is set. Cost: about 0.1 ms of CPU a request, and memory for the bodies in flight.
        """
        options = self._options
        transport = Transport(
            options.user_agent, connections=options.connections, use_proxy=options.use_proxy
        )
        resolver = Resolver(
            transport.wake,
            lookup=self._lookup,
            allow_private=options.allow_private,
            limit_s=min(LOOKUP_S, options.deadline_s),
        )
        course = Course(options, self._queues, self._origins, resolver, transport, put)
        self._course = course
        try:
            _loop(course, resolver, transport, urls, room, stop)
        finally:
            course.give_up()
            resolver.close()
            transport.close()


def _loop(
    course: Course,
    resolver: Resolver,
    transport: Transport,
    urls: Sequence[str | None],
    room: Callable[[], bool],
    stop: threading.Event,
) -> None:
    admitted, ticked = 0, time.monotonic()
    while course.ended < len(urls) and not stop.is_set():
        for row in range(admitted, min(admitted + _ADMITTED, len(urls))):
            course.admit(row, urls[row])
        admitted = min(admitted + _ADMITTED, len(urls))
        has_room = course.start(room)
        if admitted == len(urls) and course.ended < admitted and not course.busy:
            raise Failed(f"the fetcher lost track of {admitted - course.ended} URLs")
        now = time.monotonic()
        pause_s = min(TICK_S, max(0.0, course.next_due - now))
        if admitted < len(urls):
            pause_s = 0.0
        elif not has_room:
            pause_s = NO_ROOM_S
        for errand, answer in transport.poll(pause_s):
            course.answered(errand, answer)
        course.resolved(resolver.answers())
        if now - ticked > TICK_S:
            course.resolved(resolver.overdue())
            ticked = now
