"""Know of every origin what its robots.txt says, fetching each once and a few at a time."""

import json
from collections import deque
from datetime import UTC, datetime

from .answers import Answer
from .errand import Errand
from .robots import Robots, Rules
from .urls import parse

ROBOTS_BYTES = 500 * 1024
"""What is read of a robots.txt at most. Source: RFC 9309."""
ROBOTS_S = 10.0
"""The deadline of a robots.txt, where the pictures' own is not sooner."""
_OF_THE_HOST = ("dns", "private_address", "connect", "tls")
"""Failures that a picture of the same origin would meet as well: it fails by the same name."""


class _Origin:
    """One origin: what is known, and the errands that wait for it."""

    __slots__ = ("asking", "failure", "rules", "tries", "waiting")

    def __init__(self, rules: Rules | None) -> None:
        self.rules = rules
        self.failure: str | None = None
        self.tries = 1 if rules is not None else 0
        self.asking = False
        self.waiting: list[Errand] = []


class Origins:
    """Judges errands by their origin's robots.txt; those that must wait for it are kept here."""

    def __init__(self, robots: Robots, deadline_s: float) -> None:
        self._robots, self._deadline_s = robots, min(deadline_s, ROBOTS_S)
        self._origins: dict[str, _Origin] = {}
        self._todo: deque[str] = deque()
        self.asking = 0  # how many robots.txt are being fetched

    @property
    def waiting(self) -> int:
        """Return how many origins wait for their robots.txt to be fetched."""
        return len(self._todo)

    def judge(self, errand: Errand) -> tuple[str | None, str | None] | None:
        """Return the failure and the evidence, two None where an errand may go on.

        None: the errand was kept, and done() returns it when the robots.txt is known. An origin
        that failed is asked again by the errands' next attempts, all together once.
        """
        href = errand.link.origin
        origin = self._origins.get(href)
        if origin is None:
            origin = self._origins[href] = _Origin(self._robots.known(href))
        unknown = origin.rules is None or origin.rules.unknown
        if origin.asking or (unknown and errand.attempts > origin.tries):
            origin.waiting.append(errand)
            if not origin.asking:
                origin.asking = True
                self._todo.append(href)
            return None
        if origin.rules is None:
            return origin.failure, None
        verdict = origin.rules.verdict(errand.link.href)
        errand.crawl_delay_s = origin.rules.crawl_delay_s
        if verdict.allowed:
            return None, None
        if verdict.unknown:
            return "robots_unknown", None
        return "robots", evidence(verdict.rule, f"{href}/robots.txt", origin.rules.read_s)

    def next(self) -> Errand | None:
        """Return an errand for the next robots.txt to fetch, None where there is none."""
        if not self._todo:
            return None
        href = self._todo.popleft()
        link = parse(f"{href}/robots.txt")
        assert link is not None  # it is an origin
        self.asking += 1
        return Errand(-1, link, self._deadline_s, robots_of=href)

    def done(self, errand: Errand, answer: Answer | None, failure: str | None) -> list[Errand]:
        """Learn from what came of an errand by next(), and return the errands that waited."""
        assert errand.robots_of is not None
        origin = self._origins[errand.robots_of]
        self.asking -= 1
        origin.asking = False
        origin.tries += 1
        if failure in _OF_THE_HOST and errand.hops == 0:
            origin.rules, origin.failure = None, failure
        else:
            status, body = (answer.status or None, answer.body) if answer else (None, b"")
            origin.rules = self._robots.learn(errand.robots_of, status, body, failure)
        waiting, origin.waiting = origin.waiting, []
        if waiting:  # the time it took is theirs
            seconds = waiting[0].seconds
            seconds[:] = [a + b for a, b in zip(seconds, errand.seconds, strict=True)]
        return waiting


def evidence(rule: str | None, where: str, read_s: float) -> str:
    """Return as JSON what forbade a fetch, where it stands, and when it was read (Unix time)."""
    when = datetime.fromtimestamp(read_s, UTC).isoformat(timespec="seconds")
    return json.dumps({"rule": rule, "where": where, "time": when}, ensure_ascii=False)
