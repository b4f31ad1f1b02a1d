"""Let errands wait for the limits of their domain, so that one domain never holds up another."""

import heapq
from collections import deque

from .errand import POLITE, Errand
from .limits import Limits
from .urls import registrable_domain

_HOSTS_TRIED = 3
_NEXT_HOSTS_S = 0.1
"""A domain with many hosts, some of them down: how many are tried at once, and when the next."""
LONGEST_CRAWL_S = 200.0
"""What the errands of a host may wait for its Crawl-delay: a part must end some time."""


class _Domain:
    """The errands of one registrable domain: a queue per host, as hosts can be down alone."""

    __slots__ = (
        "blocked_since",
        "by_host",
        "hosts",
        "name",
        "reached",
        "serial",
        "size",
        "state",
        "until",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.hosts: deque[deque[Errand]] = deque()
        self.by_host: dict[str, deque[Errand]] = {}
        self.size = 0
        self.state = "idle"
        self.until = self.blocked_since = 0.0
        self.reached = False  # it has answered
        self.serial = 0


class Queues:
    """Errands that may start, domain after domain, as far as the limits allow."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._domains: dict[str, _Domain] = {}
        self._ready: deque[tuple[int, _Domain]] = deque()  # in the order of their numbers
        self._strangers: deque[tuple[int, _Domain]] = deque()  # they have not answered yet
        self._serial = 0
        self._blocked: list[tuple[float, str]] = []  # a heap: when to try a domain again
        self.size = 0

    @property
    def ready(self) -> int:
        """Return how many domains may have an errand that can start now."""
        return len(self._ready) + len(self._strangers)

    @property
    def waiting(self) -> int:
        """Return how many errands wait for politeness; any thread may ask."""
        return sum(d.size for d in list(self._domains.values()) if d.state == "blocked")

    @property
    def next_try(self) -> float | None:
        """Return when the next waiting domain is to be tried (monotonic clock)."""
        return self._blocked[0][0] if self._blocked else None

    def add(self, errand: Errand, now: float) -> bool:
        """Put an errand at the end of its host's queue, at the head where it has begun.

        False: the Crawl-delay would make it wait for more than LONGEST_CRAWL_S.
        """
        errand.domain = name = registrable_domain(errand.link.host)
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = _Domain(name)
        errand.queued = now
        queue = domain.by_host.get(errand.link.host)
        if queue is None:
            queue = domain.by_host[errand.link.host] = deque((errand,))
            domain.hosts.append(queue)
            if domain.state == "blocked":  # by other hosts, perhaps
                domain.hosts.rotate(1)
                self._make_ready(domain)
        elif len(queue) * errand.crawl_delay_s > LONGEST_CRAWL_S:
            return False
        elif errand.hops or errand.raw or errand.robots_of is not None:
            queue.appendleft(errand)
        else:
            queue.append(errand)
        domain.size += 1
        self.size += 1
        if domain.state == "idle":
            self._make_ready(domain)
        return True

    def take(self, now: float, *, strangers: bool = True) -> tuple[Errand, str | None] | None:
        """Return an errand that may start now, or one and the failure it ends by, else None.

        One that starts holds a place in the limits until ended(). Without ``strangers`` it is of
        a domain that has answered before.
        """
        while self._blocked and self._blocked[0][0] <= now:
            until, name = heapq.heappop(self._blocked)
            waited = self._domains[name]
            if waited.state == "blocked" and waited.until == until:
                self._make_ready(waited)
        while (domain := self._next(strangers)) is not None:
            taken = self._take_of(domain, now)
            if taken is not None:
                return taken
        return None

    def ended(self, errand: Errand, verdict: str, retry_after_s: float | None = None) -> None:
        """Say how a request went that take() let start, and let its domain's next one try."""
        host, probe = errand.link.host, errand.probe
        errand.probe = False
        self._limits.ended(errand.domain, host, verdict, retry_after_s, probe=probe)
        domain = self._domains[errand.domain]
        met = not domain.reached and verdict in ("ok", "throttled")
        domain.reached |= met
        if domain.state == "blocked" or (met and domain.state == "ready"):
            self._make_ready(domain)

    def _make_ready(self, domain: _Domain) -> None:
        domain.state = "ready"
        self._serial += 1
        domain.serial = self._serial
        (self._ready if domain.reached else self._strangers).append((domain.serial, domain))

    def _next(self, strangers: bool) -> _Domain | None:
        known, others = self._ready, self._strangers
        while others and others[0][0] != others[0][1].serial:  # it is no stranger any more
            others.popleft()
        if strangers and others and not (known and known[0] < others[0]):
            return others.popleft()[1]
        return known.popleft()[1] if known else None

    def _take_of(self, domain: _Domain, now: float) -> tuple[Errand, str | None] | None:
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
                errand.probe = start.probe
                if start.go:
                    return errand, None
                return errand, "throttled" if start.throttled else "host_down"
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
