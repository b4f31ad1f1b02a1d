"""Take every errand from its URL to its end: checks, waits, requests, redirects, next attempts."""

import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from .addresses import Found, Resolver
from .answers import Answer
from .errand import BODY, CONNECT, DNS, FIRST_BYTE, Errand, Fetched, FetchOptions
from .failures import FAILURES
from .opt_out import forbidden_by
from .origins import ROBOTS_BYTES, Origins, evidence
from .queues import LONGEST_CRAWL_S, Queues
from .transport import Transport
from .urls import join, parse


class Course:
    """The errands of one list of URLs, and where each of them is; used by one thread."""

    def __init__(
        self,
        options: FetchOptions,
        queues: Queues,
        origins: Origins,
        resolver: Resolver,
        transport: Transport,
        put: Callable[[Fetched], None],
    ) -> None:
        self._options, self._put = options, put
        self._queues, self._origins = queues, origins
        self._resolver, self._transport = resolver, transport
        self._asking: defaultdict[str, list[Errand]] = defaultdict(list)  # by host
        self._later: list[tuple[float, int, Errand]] = []  # a heap: when, row
        self._flying: set[Errand] = set()
        self._there: dict[str, bool] = {}  # by host, whether it has ever reacted
        self.hosts: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0.0])  # count, seconds
        self.ended = 0

    @property
    def in_flight(self) -> int:
        """Return how many requests are under way."""
        return len(self._flying)

    @property
    def next_due(self) -> float:
        """Return when something is to be done that no socket tells (monotonic clock)."""
        attempt = self._later[0][0] if self._later else float("inf")
        return min(attempt, self._queues.next_try or float("inf"))

    @property
    def busy(self) -> bool:
        """Whether anything is under way: else nothing will ever happen."""
        waits = self._later or self._asking or self._queues.size or self._origins.waiting
        return bool(self._flying or waits)

    def admit(self, row: int, url: str | None) -> None:
        """Begin with a URL."""
        link = parse(url) if url else None
        if link is None:
            seconds = dict.fromkeys(("polite", "dns", "connect", "first_byte", "body"), 0.0)
            meaning = FAILURES["bad_url"].meaning
            self._end(Fetched(row, "bad_url", meaning, None, None, seconds, 0, ""))
        else:
            self._enter(Errand(row, link, self._options.deadline_s))

    def start(self, room: Callable[[], bool]) -> bool:
        """Start what may start; False where there is no room for more."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._enter(heapq.heappop(self._later)[2])
        most = self._options.connections
        while self._origins.asking < 2 * most and self._queues.ready < 2 * most:
            errand = self._origins.next()
            if errand is None:
                break
            self._enter(errand)
        while not self._transport.full:
            if not room():
                return False
            taken = self._queues.take(now, strangers=not self._transport.connecting_is_full)
            if taken is None:
                break
            errand, hopeless = taken
            if hopeless is not None:
                self._fail(errand, hopeless, last=True)
            else:
                self._request(errand)
        return True

    def resolved(self, answers: Iterable[tuple[str, Found]]) -> None:
        """Go on with the errands whose host was looked up."""
        for host, found in answers:
            for errand in self._asking.pop(host, ()):
                errand.seconds[DNS] += found.seconds
                errand.left_s -= found.seconds
                if found.failure is not None:
                    self._fail(errand, found.failure)
                elif errand.left_s <= 0:
                    self._fail(errand, "timeout")
                else:
                    errand.addresses = found.addresses
                    self._queue(errand)

    def answered(self, errand: Errand, answer: Answer) -> None:
        """Go on with an errand whose request has ended."""
        self._flying.discard(errand)
        spent = answer.connect_s + answer.first_byte_s + answer.body_s
        errand.left_s -= spent
        for phase, seconds in ((CONNECT, answer.connect_s), (FIRST_BYTE, answer.first_byte_s)):
            errand.seconds[phase] += seconds
        errand.seconds[BODY] += answer.body_s
        host = self.hosts[errand.link.host]
        host[0] += 1
        host[1] += spent
        self._there[errand.link.host] = self._there.get(errand.link.host) or not answer.silent
        failure, message = answer.verdict()
        asked_s = answer.retry_after_s()
        self._queues.ended(errand, answer.of_host(failure), asked_s)
        if answer.again and not errand.raw:
            self._ask_raw(errand)
        elif answer.moved:
            self._follow(errand, answer)
        elif errand.robots_of is not None:
            self._robots_done(errand, answer, failure)
        elif failure is not None:
            self._fail(errand, failure, message, asked_s)
        else:
            self._arrived(errand, answer)

    def give_up(self) -> None:
        """Give back the places of the requests under way."""
        for errand in self._flying:
            self._queues.ended(errand, "dropped")
        self._flying.clear()

    def _enter(self, errand: Errand) -> None:
        """Check an errand's next hop, find its address, and let it queue."""
        link = errand.link
        if link.has_credentials:
            return self._fail(errand, "credentials")
        if self._options.respect_robots and errand.robots_of is None:
            judged = self._origins.judge(errand)
            if judged is None:
                return None
            failure, opt_out = judged
            if failure is not None:
                return self._fail(errand, failure, opt_out=opt_out)
        found = self._resolver.known(link.host)
        if found is not None and found.failure is not None:
            return self._fail(errand, found.failure)
        if found is not None:
            errand.addresses = found.addresses
        elif not self._transport.is_proxied(link):
            self._asking[link.host].append(errand)
            return self._resolver.ask(link.host)
        return self._queue(errand)

    def _queue(self, errand: Errand) -> None:
        if not self._queues.add(errand, time.monotonic()):
            wait = f"{LONGEST_CRAWL_S:g} s of waiting for its Crawl-delay"
            message = f"the host asks for {errand.crawl_delay_s:g} s between requests: over {wait}"
            self._fail(errand, "throttled", message, last=True)

    def _request(self, errand: Errand) -> None:
        robots = errand.robots_of is not None
        self._flying.add(errand)
        self._transport.start(
            errand,
            errand.link,
            errand.addresses,
            deadline_s=errand.left_s,
            max_bytes=ROBOTS_BYTES if robots else self._options.max_bytes,
            cut=robots,
            raw=errand.raw,
        )

    def _ask_raw(self, errand: Errand) -> None:
        """Ask for the same link once more, as any other: most such bodies are not encoded."""
        errand.raw = True
        if errand.left_s <= 0:
            return self._fail(errand, "timeout")
        return self._queue(errand)

    def _follow(self, errand: Errand, answer: Answer) -> None:
        """Go to where a redirect leads, as if it were a URL of the pool, if it may be followed."""
        if self._opted_out(errand, answer):
            return None
        location = answer.header("location")
        link = join(errand.link.href, location) if location else None
        errand.hops += 1
        if link is None or errand.hops > self._options.max_redirects:
            return self._fail(errand, "redirects")
        if errand.left_s <= 0:
            return self._fail(errand, "timeout")
        errand.link, errand.raw = link, False
        return self._enter(errand)

    def _arrived(self, errand: Errand, answer: Answer) -> None:
        if not self._opted_out(errand, answer):
            self._end(errand.fetched(None, body=answer.body))

    def _opted_out(self, errand: Errand, answer: Answer) -> bool:
        """Whether an answer's headers forbid the use of what they lead to: that is the end."""
        directives = self._options.disallowed_header_directives
        if errand.robots_of is not None or not directives or not answer.has(b"x-robots-tag"):
            return False
        rule = forbidden_by(answer.headers(), self._options.user_agent_token, directives)
        if rule is not None:
            where = evidence(rule, errand.link.href, time.time())
            self._fail(errand, "opt_out", opt_out=where)
        return rule is not None

    def _robots_done(self, errand: Errand, answer: Answer | None, failure: str | None) -> None:
        for waiting in self._origins.done(errand, answer, failure):
            self._enter(waiting)

    def _fail(
        self,
        errand: Errand,
        failure: str,
        message: str | None = None,
        asked_s: float | None = None,
        opt_out: str | None = None,
        last: bool = False,
    ) -> None:
        """End an errand, or let it wait for its next attempt where that may go well."""
        if errand.robots_of is not None:
            return self._robots_done(errand, None, failure)
        may_pass = FAILURES[failure].retryable and not last and not self._is_away(errand, failure)
        if may_pass and errand.attempts <= self._options.retries:
            asked_s = min(asked_s or 0.0, self._options.longest_retry_after_s)
            due = time.monotonic() + errand.back_off_s(asked_s)
            errand.again(self._options.deadline_s)
            return heapq.heappush(self._later, (due, errand.row, errand))
        message = message or FAILURES[failure].meaning
        return self._end(errand.fetched(failure, message, opt_out=opt_out))

    def _is_away(self, errand: Errand, failure: str) -> bool:
        """Whether there is no sign of the first host: a next attempt would last as long."""
        away = failure in ("dns", "connect") and errand.hops == 0
        return away and not self._there.get(errand.link.host)

    def _end(self, fetched: Fetched) -> None:
        self.ended += 1
        self._put(fetched)
