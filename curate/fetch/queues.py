"""Let errands wait for the limits of their domain, so that one domain never holds up another."""

import heapq
from collections import deque

from .errand import POLITE, Errand
from .limits import Limits
from .urls import registrable_domain

_HOSTS_TRIED = 3
_NEXT_HOSTS_S = 0.1
"""A domain with many hosts, some of them down: how many are tried at once, and when the next."""


class _Domain:
    """The errands of one registrable domain: a queue per host, as hosts can be down alone."""

    __slots__ = ("blocked_since", "by_host", "hosts", "name", "size", "state", "until")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hosts: deque[deque[Errand]] = deque()
        self.by_host: dict[str, deque[Errand]] = {}
        self.size = 0
        self.state = "idle"
        self.until = self.blocked_since = 0.0


class Queues:
    """Errands that may start, domain after domain, as far as the limits allow."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._domains: dict[str, _Domain] = {}
        self._ready: deque[_Domain] = deque()
        self._blocked: list[tuple[float, str]] = []  # a heap: when to try a domain again
        self.size = 0

    @property
    def ready(self) -> int:
        """Return how many domains may have an errand that can start now."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """Return how many errands wait for politeness; any thread may ask."""
        return sum(d.size for d in list(self._domains.values()) if d.state == "blocked")

    @property
    def next_try(self) -> float | None:
        """Return when the next waiting domain is to be tried (monotonic clock)."""
        return self._blocked[0][0] if self._blocked else None

    def add(self, errand: Errand, now: float) -> None:
        """Put an errand at the end of its host's queue, at the head where it has begun."""
        errand.domain = name = registrable_domain(errand.link.host)
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = _Domain(name)
        errand.queued = now
        queue = domain.by_host.get(errand.link.host)
        if queue is None:
            queue = domain.by_host[errand.link.host] = deque((errand,))
            domain.hosts.append(queue)
        elif errand.hops or errand.robots_of is not None:
            queue.appendleft(errand)
        else:
            queue.append(errand)
        domain.size += 1
        self.size += 1
        if domain.state == "idle":
            self._make_ready(domain)

    def take(self, now: float) -> tuple[Errand, bool] | None:
        """Return an errand that may start now, or one whose host is down (True), else None.

        One that starts holds a place in the limits until ended().
        """
        while self._blocked and self._blocked[0][0] <= now:
            until, name = heapq.heappop(self._blocked)
            domain = self._domains[name]
            if domain.state == "blocked" and domain.until == until:
                self._make_ready(domain)
        while self._ready:
            domain = self._ready.popleft()
            taken = self._take_of(domain, now)
            if taken is not None:
                return taken
        return None

    def ended(self, errand: Errand, verdict: str, retry_after_s: float | None = None) -> None:
        """Say how a request went that take() let start, and let its domain's next one try."""
        self._limits.ended(errand.domain, errand.link.host, verdict, retry_after_s)
        domain = self._domains[errand.domain]
        if domain.state == "blocked":
            self._make_ready(domain)

    def _make_ready(self, domain: _Domain) -> None:
        domain.state = "ready"
        self._ready.append(domain)

    def _take_of(self, domain: _Domain, now: float) -> tuple[Errand, bool] | None:
        wait_s = _NEXT_HOSTS_S if len(domain.hosts) > _HOSTS_TRIED else float("inf")
        for _ in range(min(len(domain.hosts), _HOSTS_TRIED)):
            queue = domain.hosts[0]
            errand = queue[0]
            start = self._limits.try_start(domain.name, errand.link.host, errand.crawl_delay_s)
            if start.go or start.down:
                self._remove_first(domain)
                if domain.blocked_since:
                    errand.seconds[POLITE] += now - max(domain.blocked_since, errand.queued)
                    domain.blocked_since = 0.0
                return errand, start.down
            wait_s = min(wait_s, start.wait_s)
            domain.hosts.rotate(-1)
        domain.state = "blocked"
        domain.blocked_since = domain.blocked_since or now
        domain.until = now + max(wait_s, 0.001)
        heapq.heappush(self._blocked, (domain.until, domain.name))
        return None

    def _remove_first(self, domain: _Domain) -> None:
        """Take the first errand of the first host; the next turn is another domain's and host's."""
        queue = domain.hosts[0]
        errand = queue.popleft()
        if queue:
            domain.hosts.rotate(-1)
        else:
            domain.hosts.popleft()
            del domain.by_host[errand.link.host]
        domain.size -= 1
        self.size -= 1
        domain.state = "idle"
        if domain.hosts:
            self._make_ready(domain)
