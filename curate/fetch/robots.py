"""What robots.txt allows: read once a day per origin for the whole build."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from protego import Protego

from .robots_lines import lines_for
from .shared_records import Records, key_of, lock_soon, open_shared, unlock_byte

KEPT_S = 24 * 3600.0  # RFC 9309: not to be used for longer
UNKNOWN_KEPT_S = 300.0  # a host that is down may soon be up again
LONGEST_CRAWL_DELAY_S = 30.0  # more would make one host hold up a build for days
_FREE, _UNKNOWN, _RULES = 0, 1, 2
_BUCKETS = (1 << 12, 1 << 15, 1 << 18, 1 << 21)  # 2 MiB at first, 18 million origins at last
_PORTION = 16  # lines in which the one that forbids is looked for
_MOST_REMEMBERED = 50_000  # origins and lines, at about 1 kB a line


class RobotsVerdict(NamedTuple):
    """Whether a URL may be fetched, and the line of robots.txt that forbids it."""

    allowed: bool
    rule: str | None = None
    unknown: bool = False


_ALLOWED = RobotsVerdict(True)
_NOT_KNOWN = RobotsVerdict(False, None, True)


@dataclass(frozen=True)
class Rules:
    """The rules of one origin for one agent; ``read_s`` is when they were read (Unix time)."""

    read_s: float
    lines: tuple[str, ...] = ()  # as they stand in robots.txt, those with the longest path first
    crawl_delay_s: float = 0.0
    unknown: bool = False  # robots.txt could not be read: everything is forbidden for now

    def verdict(self, url: str) -> RobotsVerdict:
        """Judge a URL of the origin. Cost: 0.2 us if all is allowed, 1 us else."""
        if self.unknown:
            return _NOT_KNOWN
        if not self.lines or self._all.can_fetch(url, "*"):
            return _ALLOWED
        return RobotsVerdict(False, self._reason(url))

    @cached_property
    def _all(self) -> Protego:
        return _parsed(self.lines)

    @cached_property
    def _portions(self) -> list[tuple[list[str], Protego]]:
        forbidding = [line for line in self.lines if not line.lower().startswith("allow")]
        cuts = (forbidding[i : i + _PORTION] for i in range(0, len(forbidding), _PORTION))
        return [(lines, _parsed(lines)) for lines in cuts]

    def _reason(self, url: str) -> str:
        """Return the longest line that, were it alone, would forbid the URL; 100 us."""
        for lines, together in self._portions:
            if not together.can_fetch(url, "*"):
                return next(line for line in lines if not _parsed([line]).can_fetch(url, "*"))
        raise AssertionError(f"no line forbids {url}")


class Robots:
    """The robots.txt of all origins that a build meets, for one agent's name.

    All processes share what one of them read: 64 bytes an origin, and where it has rules for
    the agent their lines, at the end of one file. One instance a thread. Cost: 10 us to learn
    that all is allowed.
    """

    def __init__(
        self, folder: Path, user_agent_token: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._token = user_agent_token.lower()
        self._clock = clock
        self._table = Records(folder / "robots" / "origins", "BQII", _BUCKETS)
        self._rules = open_shared(folder / "robots" / "rules")
        self._memory: dict[str, Rules] = {}
        self._remembered = 0  # origins and lines

    def known(self, origin: str) -> Rules | None:
        """Return an origin's rules if this or another process read them not too long ago."""
        rules = self._memory.get(origin) or self._shared(origin)
        if rules is None or not self._is_fresh(rules):
            return None
        self._remember(origin, rules)
        return rules

    def learn(
        self, origin: str, http_status: int | None, body: bytes, failure: str | None
    ) -> Rules:
        """Take the answer to a request for robots.txt, or its failure; share the rules.

        4xx but 429 allows everything, and so do redirects without end; no answer, 429 and 5xx
        forbid everything for five minutes. Source: RFC 9309.
        """
        rules = self._judged(http_status, body, failure)
        self._remember(origin, rules)
        self._share(origin, rules)
        return rules

    def close(self) -> None:
        """Close the shared files."""
        self._table.close()
        os.close(self._rules)

    def _judged(self, http_status: int | None, body: bytes, failure: str | None) -> Rules:
        now = self._clock()
        status = 500 if http_status in (None, 429) else http_status
        if failure == "redirects" or status // 100 in (3, 4):
            return Rules(now)
        if status // 100 != 2 or failure not in (None, "too_large"):
            return Rules(now, unknown=True)
        found = lines_for(body, self._token)
        paths = [line for line in found if line.kind != "crawl-delay"]
        paths.sort(key=lambda line: len(line.value), reverse=True)
        texts = tuple(line.text for line in paths)
        forbids = any(line.kind == "disallow" for line in paths)
        delays = [_seconds(line.value) for line in found if line.kind == "crawl-delay"]
        return Rules(now, texts if forbids else (), max(delays, default=0.0))

    def _remember(self, origin: str, rules: Rules) -> None:
        if self._memory.get(origin) is rules:
            return
        self._remembered += 1 + len(rules.lines)
        if self._remembered > _MOST_REMEMBERED:  # they are in the files
            self._memory.clear()
            self._remembered = 1 + len(rules.lines)
        self._memory[origin] = rules

    def _is_fresh(self, rules: Rules) -> bool:
        age_s = self._clock() - rules.read_s
        return -60.0 <= age_s < (UNKNOWN_KEPT_S if rules.unknown else KEPT_S)

    def _key(self, origin: str) -> int:
        return key_of(f"{self._token} {origin}")

    def _shared(self, origin: str) -> Rules | None:
        found = self._table.read(self._key(origin))[1]
        if found is None:
            return None
        read_s, kind, start, length, checksum = found
        if kind != _RULES:
            return Rules(read_s, unknown=kind == _UNKNOWN)
        told = os.pread(self._rules, length, start)
        if crc32(told) != checksum:
            return None  # torn by a crash: it is read again
        delay_s, *lines = told.decode().split("\n")
        return Rules(read_s, tuple(lines), float(delay_s))

    def _share(self, origin: str, rules: Rules) -> None:
        kind, start, told = _UNKNOWN if rules.unknown else _FREE, 0, b""
        if rules.lines or rules.crawl_delay_s:
            kind, told = _RULES, "\n".join((str(rules.crawl_delay_s), *rules.lines)).encode()
            if not lock_soon(self._rules, 0):
                return  # its holder is suspended: the others can read robots.txt themselves
            try:
                start = os.lseek(self._rules, 0, os.SEEK_END)
                os.pwrite(self._rules, told, start)
            finally:
                unlock_byte(self._rules, 0)
        key = self._key(origin)
        if self._table.lock(key):
            try:
                place, _ = self._table.read(key)
                self._table.write(place, key, rules.read_s, kind, start, len(told), crc32(told))
            finally:
                self._table.unlock(key)


def _parsed(lines: Sequence[str]) -> Protego:
    return Protego.parse("\n".join(("User-agent: *", *lines)))


def _seconds(value: str) -> float:
    try:
        delay_s = float(value)
    except ValueError:
        return 0.0
    return min(delay_s, LONGEST_CRAWL_DELAY_S) if delay_s > 0 else 0.0
