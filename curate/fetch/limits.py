"""How much may be asked of whom: limits that all running parts of a build share by files."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .breaker import (
    HOPELESS,
    SKEW_S,
    Health,
    Traffic,
    after_answer,
    after_failure,
    left_alone_s,
    silenced,
)
from .connection_slots import ConnectionSlots
from .shared_records import Records, key_of

BUCKETS = (1 << 14,)  # 131,072 domains and as many hosts are remembered, in 8 MiB each
TRAFFIC, HEALTH = "ddHIIHdH", "IIdd"
BURST_S = 0.2  # what was not used of the rate in this time may be made up for
POLL_S = 0.05  # how soon to ask again for a slot that others hold
FRESH_S = 0.15  # how long one who was refused counts as waiting


@dataclass(frozen=True)
class Start:
    """Whether a request may start: else when to ask again, or that it is hopeless for now."""

    go: bool
    wait_s: float = 0.0
    down: bool = False  # the host gives no answer, or
    throttled: bool = False  # it is down as its domain only says 429
    probe: bool = False  # this one finds out whether the host is up again: tell ``ended``


_GO, _PROBE = Start(True), Start(True, probe=True)
_POLL = Start(False, POLL_S)


class Limits:
    """Connections and rate per registrable domain, and a breaker per host.

    Each is for all instances over the same folder together; 0 switches it off. In any time
    T no more than ``per_s`` (T + 0.2) + 1 requests to a domain start. Nothing has to be
    cleaned up after a process that died. One instance a thread: its file descriptions own
    its slots. Cost: 10-15 us for a start and its end. Times are of ``clock``, in seconds: what
    lies further ahead than it can, by 2 s for the clocks of several machines, is from before
    the clock was set back, and over.
    """

    def __init__(
        self,
        folder: Path,
        *,
        connections: int = 8,
        per_s: float = 25.0,
        breaker_failures: int = 10,
        cool_down_s: float = 15.0,
        longest_silence_s: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connections = connections
        self._interval_s = 1.0 / per_s if per_s else 0.0
        self._breaker_failures = breaker_failures
        self._cool_down_s = cool_down_s
        self._longest_silence_s = longest_silence_s
        self._clock = clock
        self._domains = Records(folder / "limits" / "domains", TRAFFIC, BUCKETS)
        self._hosts = Records(folder / "limits" / "hosts", HEALTH, BUCKETS)
        self._slots = ConnectionSlots(folder / "limits", connections)
        self._me = int.from_bytes(os.urandom(4), "little") or 1
        self._keys: dict[str, int] = {}

    def try_start(self, domain: str, host: str, crawl_delay_s: float = 0.0) -> Start:
        """Start a request if the limits allow it; each start needs one ``ended``."""
        now = self._clock()
        key, host_key = self._key(domain), self._key(host)
        health = self._health(host_key)
        if crawl_delay_s <= 0.0 and not self._tripped(health):
            return self._start(key, now)
        if not self._hosts.lock(host_key):
            return _POLL
        try:
            return self._start_with_care(key, host_key, crawl_delay_s, now)
        finally:
            self._hosts.unlock(host_key)

    def ended(
        self,
        domain: str,
        host: str,
        verdict: str,
        retry_after_s: float | None = None,
        *,
        probe: bool = False,
    ) -> None:
        """End a request that was started: it went "ok", "failed", was "throttled" or "dropped".

        "ok" is any answer of a host that is up, 404 too; "failed" is none, or 5xx; "throttled"
        is 429, or 503 with ``retry_after_s``: then the whole domain is left in peace; "dropped"
        says nothing of the host. ``probe`` is what its Start said.
        """
        now = self._clock()
        key, host_key = self._key(domain), self._key(host)
        if self._connections:
            self._slots.free(key)
        if probe:
            self._slots.free_probe(host_key)
        if verdict == "dropped":
            return
        self._note_health(host_key, verdict == "failed", now, probe)
        if self._longest_silence_s and verdict in ("ok", "throttled"):
            self._note_answer(key, verdict == "throttled", retry_after_s, now)

    def close(self) -> None:
        """Close the files, which frees every slot."""
        for part in (self._domains, self._hosts, self._slots):
            part.close()

    def _key(self, name: str) -> int:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = key_of(name)
        return key

    def _health(self, key: int) -> Health:
        found = self._hosts.read(key)[1] if self._breaker_failures else None
        return Health(*found[1:]) if found else Health()

    def _traffic(self, key: int) -> tuple[int, Traffic]:
        place, found = self._domains.read(key)
        return place, Traffic(*found[1:]) if found else Traffic()

    def _tripped(self, health: Health) -> bool:
        return 0 < self._breaker_failures <= health.failures

    def _start_with_care(self, key: int, host_key: int, delay_s: float, now: float) -> Start:
        """Start a request to a host that failed, or that has a Crawl-delay; it is locked."""
        place, found = self._hosts.read(host_key)
        health = Health(*found[1:]) if found else Health()
        early_s = health.due_s - now
        if 0.0 < early_s <= delay_s + SKEW_S:
            return Start(False, early_s)
        tripped = self._tripped(health)
        if tripped:
            left_s = left_alone_s(health, self._cool_down_s, now)
            if left_s:
                return Start(False, left_s, down=health.trips > 0)
            if not self._slots.take_probe(host_key):
                return _POLL
        start = self._start(key, now)
        if start.go and delay_s:
            self._hosts.write(place, host_key, now, *health._replace(due_s=now + delay_s))
        if not tripped:
            return start
        if start.go:
            return _PROBE
        self._slots.free_probe(host_key)
        return start

    def _start(self, key: int, now: float) -> Start:
        if not self._domains.lock(key):
            return _POLL
        try:
            place, before = self._traffic(key)
            start, after = self._decide(key, before, now)
            if after is not before:
                self._domains.write(place, key, now, *after)
            return start
        finally:
            self._domains.unlock(key)

    def _decide(self, key: int, traffic: Traffic, now: float) -> tuple[Start, Traffic]:
        due_s, silent_until, throttles, last, asker, asker_held, asked_s, _ = traffic
        if 0.0 < silent_until - now <= self._longest_silence_s + SKEW_S:
            hopeless = traffic.refusals >= HOPELESS
            return Start(False, silent_until - now, hopeless, hopeless), traffic
        interval_s = self._interval_s
        if due_s - now > interval_s + BURST_S + SKEW_S:
            due_s = now
        if due_s - now > BURST_S:
            return Start(False, due_s - now - BURST_S), traffic
        if self._connections:
            held = self._slots.held(key)
            waiting = asker not in (0, self._me) and 0.0 <= now - asked_s < FRESH_S
            mine_last = (held, last == self._me) > (asker_held, last == asker)
            if (waiting and mine_last) or not self._slots.take(key):
                if waiting and asker_held <= held:  # who has least is next
                    return _POLL, traffic
                return _POLL, traffic._replace(asker=self._me, asker_held=held, asked_s=now)
        if asker == self._me:
            asker = 0
        due_s = max(due_s, now) + interval_s
        return _GO, Traffic(
            due_s, silent_until, throttles, self._me, asker, asker_held, asked_s, traffic.refusals
        )

    def _note_health(self, key: int, failed: bool, now: float, probe: bool) -> None:
        if not self._breaker_failures:
            return
        if not failed and not self._health(key).failures:
            return
        if not self._hosts.lock(key):
            return  # its holder is suspended: one failure more or less is not worth a wait
        try:
            place, found = self._hosts.read(key)
            health = Health(*found[1:]) if found else Health()
            if failed:
                most, first_s = self._breaker_failures, self._cool_down_s
                health = after_failure(health, most, first_s, now, probe)
            else:
                health = after_answer(health)
            self._hosts.write(place, key, now, *health)
        finally:
            self._hosts.unlock(key)

    def _note_answer(
        self, key: int, throttled: bool, retry_after_s: float | None, now: float
    ) -> None:
        if not throttled and not self._traffic(key)[1].refusals:
            return
        if not self._domains.lock(key, patience_s=0.5):
            return  # its holder is suspended: the host will say so again
        try:
            place, traffic = self._traffic(key)
            if throttled:
                traffic = silenced(traffic, retry_after_s, self._longest_silence_s, now)
            else:
                traffic = traffic._replace(refusals=0)
            self._domains.write(place, key, now, *traffic)
        finally:
            self._domains.unlock(key)
