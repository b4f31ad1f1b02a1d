"""Find the addresses of hosts without waiting for them, and tell public from private ones."""

import ipaddress
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

Lookup = Callable[..., Sequence[Any]]  # as socket.getaddrinfo

MOST_ADDRESSES = 8
"""Addresses of one host that are tried; all of them are checked."""
LOST_THREADS = 256
"""Lookups without end that are replaced by new threads; beyond, the hosts that wait have no DNS."""
_AGAIN_S = 0.5  # a host without address is asked for again after this time
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that the internet routes
_NOT_PUBLIC = {
    4: tuple(
        ipaddress.ip_network(net)
        for net in (
            "192.0.0.0/24",  # protocol assignments
            "192.88.99.0/24",  # 6to4 relays
            "168.63.129.16/32",  # a cloud's own metadata service, at a public address
        )
    ),
    6: tuple(
        ipaddress.ip_network(net)
        for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
    ),  # protocol assignments (Teredo among them), documentation, 6to4: both carry IPv4 inside
}


class Found(NamedTuple):
    """What is known of a host: its addresses, or the name of the failure."""

    addresses: tuple[str, ...]
    failure: str | None
    seconds: float


def is_public(address: str) -> bool:
    """Whether an address is on the public internet; of IPv4 inside IPv6, what is inside counts.

    6to4 and Teredo, which tunnel to any IPv4 address, are refused altogether.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # also a zone, as in fe80::1%eth0
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in _UNICAST:
            return False
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return not any(ip in net for net in _NOT_PUBLIC[ip.version])


class _Question:
    """One lookup, handed to a thread and back."""

    __slots__ = ("asked", "begun", "host", "lost")

    def __init__(self, host: str) -> None:
        self.host, self.asked = host, time.monotonic()
        self.begun = 0.0  # when a thread took it; 0: it waits for one
        self.lost = False  # it took too long: its thread was replaced


class Resolver:
    """Looks hosts up in daemon threads, each once while the answer is fresh; used by one thread.

    ``wake`` is called from the threads when answers() has something. A lookup that takes longer
    than ``limit_s`` counts as failed, and its thread, which nobody can stop, is replaced. Every
    address of a host must be public unless ``allow_private``.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        *,
        lookup: Lookup = socket.getaddrinfo,
        allow_private: bool = False,
        threads: int = 64,
        ttl_s: float = 300.0,
        limit_s: float = 10.0,
    ) -> None:
        self._wake, self._lookup, self._allow_private = wake, lookup, allow_private
        self._most, self._ttl_s, self._limit_s = threads, ttl_s, limit_s
        self._known: dict[str, tuple[Found, float]] = {}  # by host, and until when
        self._asked: dict[str, _Question] = {}
        self._todo: SimpleQueue[_Question | None] = SimpleQueue()
        self._done: deque[tuple[_Question, Found | Exception]] = deque()
        self._threads = self._lost = 0

    def known(self, host: str) -> Found | None:
        """Return what is known of a host without a lookup; an address is known by itself."""
        entry = self._known.get(host)
        if entry is not None and time.monotonic() < entry[1]:
            return entry[0]
        literal = _literal(host)
        if literal is None:
            return None
        found = self._judge((literal,))
        self._known[host] = found, float("inf")
        return found

    def ask(self, host: str) -> None:
        """Begin to look a host up; does nothing where that is under way."""
        if host in self._asked:
            return
        self._asked[host] = question = _Question(host)
        self._todo.put(question)
        if self._threads < min(self._most, len(self._asked)):
            self._start_thread()

    def answers(self) -> list[tuple[str, Found]]:
        """Return the hosts whose lookup ended since the last call; raises what one raised."""
        ended = []
        while self._done:
            question, found = self._done.popleft()
            if isinstance(found, Exception):
                raise found
            if self._asked.get(question.host) is question:
                del self._asked[question.host]
                ended.append((question.host, found))
            now = time.monotonic()
            self._known[question.host] = found, now + (_AGAIN_S if found.failure else self._ttl_s)
        return ended

    def overdue(self) -> list[tuple[str, Found]]:
        """Give up on lookups that take too long, and return their hosts; call it now and then."""
        now, late = time.monotonic(), []
        for question in list(self._asked.values()):
            stuck = now - (question.begun or now) > self._limit_s
            stuck |= self._lost >= LOST_THREADS and now - question.asked > self._limit_s
            if stuck:
                question.lost = True
                del self._asked[question.host]
                late.append((question.host, Found((), "dns", self._limit_s)))
                if question.begun and self._lost < LOST_THREADS:
                    self._lost += 1
                    self._start_thread()
        return late

    def close(self) -> None:
        """Let go of the threads: idle ones end, and those in a lookup end after it."""
        for _ in range(self._threads):
            self._todo.put(None)

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name="lookup", daemon=True).start()

    def _work(self) -> None:
        while (question := self._todo.get()) is not None:
            if question.lost:
                continue
            question.begun = began = time.monotonic()
            try:
                found = self._judge(self._addresses(question.host))
                found = found._replace(seconds=time.monotonic() - began)
                self._done.append((question, found))
            except Exception as error:  # for who waits: this thread has nobody to tell
                self._done.append((question, error))
            self._wake()
            if question.lost:
                return

    def _addresses(self, host: str) -> tuple[str, ...]:
        try:
            answer = self._lookup(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # no such host; a label that is too long
            return ()
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in answer))

    def _judge(self, addresses: tuple[str, ...]) -> Found:
        if not addresses:
            return Found((), "dns", 0.0)
        if not self._allow_private and not all(is_public(a) for a in addresses):
            return Found((), "private_address", 0.0)
        return Found(addresses[:MOST_ADDRESSES], None, 0.0)


def _literal(host: str) -> str | None:
    """Return the address that a URL's host is, without brackets; None where it is a name."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return None
