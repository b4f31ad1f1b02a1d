"""Make many HTTP requests at once with libcurl, each to addresses that were checked before."""

import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass_environment

import pycurl

from .answers import Answer
from .polling import Poll
from .trust import certificates
from .urls import Link

CONNECT_S = 7.5
"""Of the deadline, what TCP and TLS may take together: a host that is away shows early."""
OTHER_ANSWER_BYTES = 65_536
"""What is read of an answer other than 200, so that its connection can be used again."""
_FAILURES = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_ABORTED_BY_CALLBACK: "dns",  # libcurl is not allowed to look up by itself
    pycurl.E_COULDNT_CONNECT: "connect",
    pycurl.E_COULDNT_RESOLVE_PROXY: "connect",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_PARTIAL_FILE: "broken_off",
    pycurl.E_GOT_NOTHING: "broken_off",
    pycurl.E_RECV_ERROR: "broken_off",
    pycurl.E_SEND_ERROR: "broken_off",
    pycurl.E_HTTP2: "broken_off",
    92: "broken_off",  # CURLE_HTTP2_STREAM, which pycurl does not name
    pycurl.E_FILESIZE_EXCEEDED: "too_large",
    pycurl.E_WRITE_ERROR: "too_large",  # by _Slot.write, which refuses no other way
    pycurl.E_URL_MALFORMAT: "bad_url",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CERTPROBLEM: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_SSL_ISSUER_ERROR: "tls",
    pycurl.E_SSL_INVALIDCERTSTATUS: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
}
"""Names of FAILURES by libcurl's error; any other is "protocol"."""


class _Slot:
    """One reusable libcurl handle and what it is receiving."""

    __slots__ = ("allowed", "cap", "chunks", "curl", "cut", "ends", "lines", "raw", "size", "token")

    def __init__(self, user_agent: str) -> None:
        self.curl = curl = pycurl.Curl()
        self.chunks: list[bytes] = []
        self.lines: list[bytes] = []
        self.size = self.cap = 0
        self.allowed: frozenset[str] | None = None
        self.cut = self.raw = False
        self.ends = 0.0
        self.token: Any = None
        curl.slot = self
        for option, value in (
            (pycurl.NOSIGNAL, 1),  # signals are the main thread's
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.NETRC, 0),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS),
            (pycurl.PIPEWAIT, 1),  # one TLS handshake where the host speaks HTTP/2
            (pycurl.USERAGENT, user_agent),
            (pycurl.ACCEPT_ENCODING, "identity"),  # unasked compression is undone all the same
            (pycurl.BUFFERSIZE, 131_072),
            (pycurl.NOPROXY, ""),
            (pycurl.HEADERFUNCTION, self.lines.append),  # libcurl holds headers to 300 KB
            (pycurl.WRITEFUNCTION, self.write),
            (pycurl.OPENSOCKETFUNCTION, self.open_socket),
        ):
            curl.setopt(option, value)

    def write(self, chunk: bytes) -> int | None:
        """Keep a piece of the body; -1 ends the transfer."""
        if not self.chunks and not self.cut and not _is_200(self.lines):
            self.cap = min(self.cap, OTHER_ANSWER_BYTES)
        self.chunks.append(chunk)
        self.size += len(chunk)
        return -1 if self.size > self.cap else None

    def open_socket(self, _purpose: int, address: Any) -> Any:
        """Open a socket to an address that was checked, and to no other."""
        if self.allowed is not None and address.addr[0] not in self.allowed:
            return pycurl.SOCKET_BAD
        try:
            return socket.socket(address.family, address.socktype, address.protocol)
        except OSError:  # no IPv6 on this machine: the next address
            return pycurl.SOCKET_BAD


def _is_200(lines: Sequence[bytes]) -> bool:
    last = next((line for line in reversed(lines) if line.startswith(b"HTTP/")), b"")
    return last[8:].split(b" ", 2)[1:2] == [b"200"]


class Transport:
    """A set of transfers under way; everything but wake() belongs to one thread."""

    def __init__(self, user_agent: str, *, connections: int, use_proxy: bool = False) -> None:
        self._slots = [_Slot(user_agent) for _ in range(connections)]
        self._free = list(self._slots)
        self._proxies = getproxies_environment() if use_proxy else {}
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
        """Whether no further transfer can start."""
        return not self._free

    def is_proxied(self, link: Link) -> bool:
        """Whether a link is fetched by a proxy, which then looks up its host."""
        return link.scheme in self._proxies and not proxy_bypass_environment(link.host)

    def start(
        self,
        token: Any,
        link: Link,
        addresses: Sequence[str],
        *,
        deadline_s: float,
        max_bytes: int,
        cut: bool = False,
    ) -> None:
        """Request a link from one of ``addresses`` and no other; poll() will return ``token``.

        All of it, connecting included, must be done in ``deadline_s``. A body over ``max_bytes``,
        as sent or decompressed, fails, or is cut there.
        """
        slot = self._free.pop()
        slot.token, slot.cap, slot.cut, slot.raw = token, max_bytes, cut, False
        slot.ends = time.monotonic() + deadline_s
        curl, proxied = slot.curl, self.is_proxied(link)
        slot.allowed = None if proxied else frozenset(addresses)
        curl.setopt(pycurl.URL, link.href)
        curl.setopt(pycurl.MAXFILESIZE_LARGE, 32 * max_bytes if cut else max_bytes)
        curl.setopt(pycurl.PROXY, self._proxies[link.scheme] if proxied else "")
        if proxied:
            curl.unsetopt(pycurl.RESOLVE)
            curl.unsetopt(pycurl.RESOLVER_START_FUNCTION)
        else:
            curl.setopt(pycurl.RESOLVE, [_pinned(link, addresses)])
            curl.setopt(pycurl.RESOLVER_START_FUNCTION, _refuse)
        if link.scheme == "https":
            curl.setopt(pycurl.CAINFO, certificates())
        self._begin(slot)

    def _begin(self, slot: _Slot) -> None:
        slot.chunks.clear()
        slot.lines.clear()
        slot.size = 0
        left_ms = max(1, int((slot.ends - time.monotonic()) * 1000))
        slot.curl.setopt(pycurl.TIMEOUT_MS, left_ms)
        slot.curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(left_ms, int(CONNECT_S * 1000)))
        slot.curl.setopt(pycurl.HTTP_CONTENT_DECODING, 0 if slot.raw else 1)
        self._multi.add_handle(slot.curl)

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
        for slot in self._slots:
            if slot.token is not None:
                self._multi.remove_handle(slot.curl)
            slot.curl.close()
        self._multi.close()
        self._poll.close()
        self._slots.clear()

    def _ended(self) -> list[tuple[Any, Answer]]:
        ended = []
        more = 1
        while more:
            more, good, bad = self._multi.info_read()
            ended += [(curl, 0, "") for curl in good]
            ended += bad
        answers = []
        for curl, code, text in ended:
            self._multi.remove_handle(curl)
            slot = curl.slot
            if code == pycurl.E_BAD_CONTENT_ENCODING and not slot.raw and slot.ends > 0:
                slot.raw = True  # "utf-8", "aws-chunked": the body is what it says it is not
                self._begin(slot)
                continue
            answers.append((slot.token, _answer(slot, code, text)))
            slot.token = None
            self._free.append(slot)
        return answers

    def _watch(self, event: int, descriptor: int, _multi: Any, _data: Any) -> None:
        """Do as libcurl says about which sockets to wait for."""
        try:
            self._poll.watch(descriptor, event)
        except BaseException as error:  # libcurl would swallow it
            self._error = error

    def _set_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def _pinned(link: Link, addresses: Sequence[str]) -> str:
    written = (f"[{a}]" if ":" in a else a for a in addresses)
    return f"{link.host}:{link.port}:{','.join(written)}"


def _refuse(*_: Any) -> int:
    """Keep libcurl from looking a host up by itself: it fails, and nothing leaves the machine."""
    return 1


def _answer(slot: _Slot, code: int, text: str) -> Answer:
    info = slot.curl.getinfo
    connected = info(pycurl.PRETRANSFER_TIME)
    first, total = info(pycurl.STARTTRANSFER_TIME), info(pycurl.TOTAL_TIME)
    opened = max(info(pycurl.CONNECT_TIME), info(pycurl.APPCONNECT_TIME))
    over = slot.cut and slot.size > slot.cap
    failure = None if code == 0 or over else _failure(code, text, connected > 0)
    if failure == "tls" and info(pycurl.OS_ERRNO):
        failure = "broken_off"  # the network's doing, not the certificate's
    body = b"".join(slot.chunks)
    return Answer(
        status=info(pycurl.RESPONSE_CODE),
        lines=tuple(slot.lines),
        body=body[: slot.cap] if over else body,
        failure=failure,
        connect_s=opened if opened else (0.0 if connected else total),
        first_byte_s=max(0.0, (first or total) - connected) if connected else 0.0,
        body_s=total - first if first else 0.0,
    )


def _failure(code: int, text: str, connected: bool) -> str:
    if code == pycurl.E_OPERATION_TIMEDOUT and not connected:
        return "connect"
    if code == pycurl.E_RECV_ERROR and ("chunk" in text or "headers" in text):
        return "protocol"
    return _FAILURES.get(code, "protocol")
