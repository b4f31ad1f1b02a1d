"""One HTTP transfer by libcurl: its handle, what it receives, and what came of it."""

import socket
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import pycurl

from .answers import Answer

MOST_BYTES = 32 * 2**20
"""Bodies in flight, all together: over this one large one goes on, and the others pause."""
SMALL_BYTES = 512 * 1024
"""Bodies up to here never pause: large ones that stall hold up nobody but each other."""
STALLED_S, STALLED_BYTES = 2.0, 65_536
"""The one that goes on is broken off where less than this comes in that time."""
OTHER_ANSWER_BYTES = 65_536
"""What is read of an answer other than 200, so that its connection can be used again."""
_HTTP2_STREAM = 92  # libcurl's CURLE_HTTP2_STREAM, which pycurl does not name
_FAILURES = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_ABORTED_BY_CALLBACK: "dns",  # libcurl is not allowed to look up by itself
    pycurl.E_COULDNT_RESOLVE_PROXY: "connect",
    pycurl.E_COULDNT_CONNECT: "connect",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_PARTIAL_FILE: "broken_off",
    pycurl.E_GOT_NOTHING: "broken_off",
    pycurl.E_RECV_ERROR: "broken_off",
    pycurl.E_SEND_ERROR: "broken_off",
    pycurl.E_HTTP2: "broken_off",
    _HTTP2_STREAM: "broken_off",
    pycurl.E_FILESIZE_EXCEEDED: "too_large",
    pycurl.E_WRITE_ERROR: "too_large",  # Transfer._write refuses for no other reason
    pycurl.E_URL_MALFORMAT: "bad_url",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CERTPROBLEM: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_SSL_ISSUER_ERROR: "tls",
    pycurl.E_SSL_INVALIDCERTSTATUS: "tls",
}
"""Names of FAILURES by libcurl's error; any other is "protocol"."""


class Load:
    """What all bodies in flight weigh together, and the one that goes on when it is too much."""

    __slots__ = ("ahead", "paused", "seen", "since", "size")

    def __init__(self) -> None:
        self.size = 0
        self.ahead: Transfer | None = None
        self.paused: list[Transfer] = []
        self.seen, self.since = 0, 0.0  # how large the one ahead was, and when

    def must_pause(self, transfer: "Transfer") -> bool:
        """Whether a transfer has to wait for the one ahead, which it becomes if there is none."""
        if transfer.size < SMALL_BYTES or self.size <= MOST_BYTES or self.ahead is transfer:
            return False
        if self.ahead is not None:
            self.paused.append(transfer)
            return True
        self.ahead, self.seen, self.since = transfer, transfer.size, time.monotonic()
        return False

    def stalled(self, now: float) -> "Transfer | None":
        """Return the transfer ahead where it keeps others waiting and hardly moves."""
        if self.ahead is None or not self.paused or now - self.since < STALLED_S:
            return None
        came, self.seen, self.since = self.ahead.size - self.seen, self.ahead.size, now
        return self.ahead if came < STALLED_BYTES else None

    def take_off(self, transfer: "Transfer") -> None:
        """Forget a transfer's body, and that it went ahead."""
        self.size -= transfer.size
        if self.ahead is transfer:
            self.ahead = None


class Transfer:
    """One reusable libcurl handle and what it is receiving for ``token``."""

    __slots__ = (
        "addresses",
        "body",
        "cap",
        "curl",
        "cut",
        "ends",
        "lines",
        "load",
        "raw",
        "size",
        "token",
        "trusts",
    )

    def __init__(self, user_agent: str, load: Load) -> None:
        self.curl = pycurl.Curl()
        self.curl.transfer = self
        self.load = load
        self.body = BytesIO()  # unlike a list of pieces it is never there twice
        self.lines: list[bytes] = []
        self.size = self.cap = 0
        self.addresses: Sequence[str] | None = None  # None: a proxy connects
        self.cut = False  # a body over the cap is cut there, and no failure
        self.raw = False  # a Content-Encoding is left alone
        self.trusts = False  # it was told of the certificates
        self.ends = 0.0  # monotonic clock
        self.token: Any = None
        for option, value in (
            (pycurl.NOSIGNAL, 1),  # signals are the main thread's
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.NETRC, 0),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS),
            (pycurl.USERAGENT, user_agent),
            (pycurl.ACCEPT_ENCODING, "identity"),  # compression nobody asked for is still undone
            (pycurl.BUFFERSIZE, 131_072),
            (pycurl.NOPROXY, ""),
            (pycurl.HEADERFUNCTION, self.lines.append),  # libcurl holds headers to 300 KB
            (pycurl.WRITEFUNCTION, self._write),
            (pycurl.OPENSOCKETFUNCTION, self._open_socket),
        ):
            self.curl.setopt(option, value)

    def clear(self) -> None:
        """Let go of what was received."""
        if self.size:
            self.body = BytesIO()
        self.lines.clear()
        self.size = 0

    def answer(self, code: int, text: str) -> Answer:
        """Return what came, given how libcurl says that it ended: 0 is well."""
        info: Callable[[int], Any] = self.curl.getinfo
        ready, first = info(pycurl.PRETRANSFER_TIME), info(pycurl.STARTTRANSFER_TIME)
        total, secured = info(pycurl.TOTAL_TIME), info(pycurl.APPCONNECT_TIME)
        opened = max(info(pycurl.CONNECT_TIME), secured)  # both 0 on a connection that was open
        over = self.cut and self.size > self.cap
        failure = None if code == 0 or over else _failure(code, text, ready > 0)
        if failure == "tls" and info(pycurl.OS_ERRNO):
            failure = "broken_off"  # the network's doing, not the certificate's
        return Answer(
            status=info(pycurl.RESPONSE_CODE),
            lines=tuple(self.lines),
            body=self._received(over, failure),
            failure=failure,
            connect_s=opened if ready else total,
            first_byte_s=max(0.0, (first or total) - ready) if ready else 0.0,
            body_s=max(0.0, total - first) if first else 0.0,
        )

    def _received(self, over: bool, failure: str | None) -> bytes:
        if over:
            self.body.truncate(self.cap)
        return b"" if failure else self.body.getvalue()

    def _write(self, chunk: bytes) -> int | None:
        """Keep a piece of the body, or let the transfer pause; -1 ends it."""
        load = self.load
        if load.size > MOST_BYTES and load.must_pause(self):
            return int(pycurl.WRITEFUNC_PAUSE)
        if not self.size and not self.cut and not _is_200(self.lines):
            self.cap = min(self.cap, OTHER_ANSWER_BYTES)
        self.body.write(chunk)
        self.size += len(chunk)
        load.size += len(chunk)
        return -1 if self.size > self.cap else None

    def _open_socket(self, _purpose: int, address: Any) -> Any:
        """Open a socket to an address that was checked, and to no other."""
        allowed = self.addresses
        if allowed is not None and _packed(address.addr[0]) not in map(_packed, allowed):
            return pycurl.SOCKET_BAD
        try:
            return socket.socket(address.family, address.socktype, address.protocol)
        except OSError:  # no IPv6 on this machine, say: the next address
            return pycurl.SOCKET_BAD


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _is_200(lines: Sequence[bytes]) -> bool:
    last = next((line for line in reversed(lines) if line.startswith(b"HTTP/")), b"")
    return last.split(b" ", 2)[1:2] == [b"200"]


def _failure(code: int, text: str, connected: bool) -> str:
    if code == pycurl.E_OPERATION_TIMEDOUT and not connected:
        return "connect"
    if code == pycurl.E_RECV_ERROR and ("chunk" in text or "headers" in text):
        return "protocol"
    return _FAILURES.get(code, "protocol")
