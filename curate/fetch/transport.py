"""Make many HTTP requests at once with libcurl, each to addresses that were checked before."""

import time
from collections.abc import Sequence
from typing import Any

import pycurl

from .answers import Answer
from .polling import Poll
from .proxies import environment_proxies, proxy_for
from .transfer import Load, Transfer
from .trust import certificates
from .urls import Link

CONNECT_S = 7.5
"""Of the deadline, what TCP and TLS may take together: a host that is away shows early."""
_FEW = 8
"""Transfers that may be under way where bodies in flight weigh half of what they may: they grow."""


class Transport:
    """A set of transfers under way; everything but wake() belongs to one thread.

    No cookies, no .netrc, no redirects, no protocol but http and https; a proxy only where
    ``use_proxy`` and the environment says so.
    """

    def __init__(self, user_agent: str, *, connections: int, use_proxy: bool = False) -> None:
        self._load = Load()
        self._transfers = [Transfer(user_agent, self._load) for _ in range(connections)]
        self._free = list(self._transfers)
        self._most_connecting = max(1, connections // 2)
        self._proxies = environment_proxies() if use_proxy else {}
        self._due: float | None = None  # when libcurl wants to be called without an event
        self._error: BaseException | None = None
        self._poll = Poll()
        self._multi = multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self.wake = self._poll.wake

    @property
    def full(self) -> bool:
        """Whether no further transfer can start now."""
        under_way = len(self._transfers) - len(self._free)
        heavy = self._load.heavy and under_way >= _FEW
        return heavy or not self._free

    @property
    def connecting_is_full(self) -> bool:
        """Whether half of the transfers wait for a connection: more such might wait in vain."""
        return self._load.connecting >= self._most_connecting

    def is_proxied(self, link: Link) -> bool:
        """Whether a link is fetched by a proxy, which then looks up its host."""
        return bool(proxy_for(link, self._proxies))

    def start(
        self,
        token: Any,
        link: Link,
        addresses: Sequence[str],
        *,
        deadline_s: float,
        max_bytes: int,
        cut: bool = False,
        raw: bool = False,
    ) -> None:
        """Request a link from one of ``addresses`` and no other; poll() will return ``token``.

        All of it, connecting included, must be done in ``deadline_s``. A body over ``max_bytes``,
        as sent or decompressed, is a failure, or is cut there. A ``raw`` one is taken as sent.
        Raises Failed where there are no certificates to check a server's by.
        """
        transfer = self._free[-1]
        if link.scheme == "https" and not transfer.trusts:
            transfer.curl.setopt(pycurl.CAINFO, certificates())
            transfer.trusts = True
        self._free.pop()
        curl, proxy = transfer.curl, proxy_for(link, self._proxies)
        transfer.token, transfer.addresses = token, None if proxy else addresses
        transfer.cap, transfer.cut, transfer.secure = max_bytes, cut, link.scheme == "https"
        transfer.begun, transfer.waited_s = time.monotonic(), 0.0
        transfer.ends = transfer.begun + deadline_s
        curl.setopt(pycurl.URL, link.href)
        curl.setopt(pycurl.MAXFILESIZE_LARGE, 32 * max_bytes if cut else max_bytes)
        curl.setopt(pycurl.PROXY, proxy)
        # Over TLS it is soon known whether one connection will do for all; else it never is.
        curl.setopt(pycurl.PIPEWAIT, 1 if link.scheme == "https" else 0)
        if proxy:
            curl.unsetopt(pycurl.RESOLVE)
            curl.unsetopt(pycurl.RESOLVER_START_FUNCTION)
        else:
            curl.setopt(pycurl.RESOLVE, [_pinned(link, addresses)])
            curl.setopt(pycurl.RESOLVER_START_FUNCTION, _refuse)
        milliseconds = max(1, int(deadline_s * 1000))
        curl.setopt(pycurl.TIMEOUT_MS, milliseconds)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(milliseconds, int(CONNECT_S * 1000)))
        curl.setopt(pycurl.HTTP_CONTENT_DECODING, 0 if raw else 1)
        transfer.connected = False
        self._load.connecting += 1
        self._multi.add_handle(curl)

    def poll(self, timeout_s: float) -> list[tuple[Any, Answer]]:
        """Move every transfer on, wait for at most ``timeout_s``, and return those that ended."""
        if self._due is not None:
            timeout_s = min(timeout_s, max(0.0, self._due - time.monotonic()))
        for descriptor, events in self._poll.wait(timeout_s):
            self._multi.socket_action(descriptor, events)
        if self._due is not None and time.monotonic() >= self._due:
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        if self._error is not None:
            raise self._error
        return self._ended()

    def close(self) -> None:
        """Break every transfer off and close every connection."""
        for transfer in self._transfers:
            if transfer.token is not None:
                self._multi.remove_handle(transfer.curl)
            transfer.curl.close()
        self._multi.close()
        self._poll.close()
        self._transfers.clear()
        self._free.clear()

    def _ended(self) -> list[tuple[Any, Answer]]:
        more, ended = 1, []
        while more:
            more, good, bad = self._multi.info_read()
            ended += [(curl.transfer, 0, "") for curl in good]
            ended += [(curl.transfer, code, text) for curl, code, text in bad]
        answers = [self._take(*end) for end in ended]
        if self._load.slowed or self._load.paused:
            now = time.monotonic()
            late = self._load.overdue(now)
            answers += [self._take(transfer, pycurl.E_OPERATION_TIMEDOUT, "") for transfer in late]
            self._resume(now)
        return answers

    def _take(self, transfer: Transfer, code: int, text: str) -> tuple[Any, Answer]:
        self._multi.remove_handle(transfer.curl)
        self._load.take_off(transfer)
        answer = transfer.token, transfer.answer(code, text)
        transfer.clear()
        self._free.append(transfer)
        return answer

    def _resume(self, now: float) -> None:
        """Let the oldest of those that paused go on; each may pause again at once."""
        paused, self._load.paused = self._load.paused, []
        for transfer in sorted(paused, key=lambda transfer: transfer.begun):
            transfer.hold()
            if self._load.may_go_on(transfer, now):
                transfer.go_on(now)
            else:
                self._load.paused.append(transfer)

    def _watch(self, event: int, descriptor: int, _multi: Any, _data: Any) -> None:
        """Do as libcurl says about which sockets to wait for."""
        try:
            self._poll.watch(descriptor, event)
        except BaseException as error:  # libcurl would swallow it; poll() raises it
            self._error = error

    def _set_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def _pinned(link: Link, addresses: Sequence[str]) -> str:
    written = (f"[{a}]" if ":" in a else a for a in addresses)
    return f"{link.host}:{link.port}:{','.join(written)}"


def _refuse(*_: Any) -> int:
    """Keep libcurl from looking a host up by itself: it fails, and nothing leaves the machine."""
    return 1
