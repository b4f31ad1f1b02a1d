"""One HTTP transfer by libcurl: its handle, what it receives, and what came of it."""

import socket
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import pycurl

from .answers import Answer

MOST_BYTES = 32 * 2**20
"""Bodies in flight, all together: over this the oldest large ones go on, and the others pause."""
SMALL_BYTES = 512 * 1024
"""Bodies up to here never pause: large ones that stall hold up nobody but each other."""
STALLED_S, STALLED_BYTES = 2.0, 65_536
"""One that goes on is broken off where less than this comes in that time."""
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
    """What all bodies in flight weigh together, and who goes on when it is too much."""

    __slots__ = ("ahead", "connecting", "paused", "size", "slowed")

    def __init__(self) -> None:
        self.size = 0
        self.connecting = 0  # transfers whose connection is not there yet
        self.ahead: dict[Transfer, tuple[int, float]] = {}  # how large it was, and when
        self.paused: list[Transfer] = []
        self.slowed: set[Transfer] = set()  # those that paused once: their deadline is kept here

    @property
    def heavy(self) -> bool:
        """Whether it is half of what it may be: those under way will make it more."""
        return self.size > MOST_BYTES // 2

    def must_pause(self, transfer: "Transfer") -> bool:
        """Whether a transfer has to wait for those ahead, now that there is too much."""
        if transfer.size < SMALL_BYTES or transfer in self.ahead:
            return False
        transfer.paused_at = time.monotonic()
        self.paused.append(transfer)
        return True

    def may_go_on(self, transfer: "Transfer", now: float) -> bool:
        """Whether a paused transfer may go on; over MOST_BYTES it is then one of those ahead.

        As many are ahead as may still bring MOST_BYTES together, but always one.
        """
        if self.size > MOST_BYTES:
            if self.ahead and sum(t.to_come() for t in (*self.ahead, transfer)) > MOST_BYTES:
                return False
            self.ahead[transfer] = transfer.size, now
        return True

    def overdue(self, now: float) -> "list[Transfer]":
        """Return transfers that are over a prolonged deadline, or ahead and hardly move."""
        late = [t for t in self.slowed if now > t.ends and t not in self.paused]
        for transfer, (seen, since) in list(self.ahead.items()):
            if self.paused and now - since >= STALLED_S:
                self.ahead[transfer] = transfer.size, now
                if transfer.size - seen < STALLED_BYTES and transfer not in late:
                    late.append(transfer)
        return late

    def take_off(self, transfer: "Transfer") -> None:
        """Forget a transfer that ended."""
        self.size -= transfer.size
        self.connecting -= not transfer.connected
        self.ahead.pop(transfer, None)
        self.slowed.discard(transfer)
        if transfer in self.paused:
            self.paused.remove(transfer)


class Transfer:
    """One reusable libcurl handle and what it is receiving for ``token``."""

    def __init__(self, user_agent: str, load: Load) -> None:
        self.curl = pycurl.Curl()
        self.curl.transfer = self
        self.load = load
        self.body = BytesIO()  # unlike a list of pieces it is never there twice
        self.lines: list[bytes] = []
        self.size = self.cap = 0
        self.addresses: Sequence[str] | None = None  # None: a proxy connects
        self.cut = False  # a body over the cap is cut there, and no failure
        self.secure = False  # over TLS
        self.trusts = False  # it was told of the certificates
        self.connected = False
        self.begun = self.ends = self.paused_at = self.waited_s = 0.0  # monotonic clock
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
            (pycurl.PREREQFUNCTION, self._has_connected),
        ):
            self.curl.setopt(option, value)

    def clear(self) -> None:
        """Let go of what was received."""
        if self.size:
            self.body = BytesIO()
        self.lines.clear()
        self.size, self.token = 0, None

    def hold(self) -> None:
        """Take the deadline from libcurl, whose clock runs on while the transfer is paused."""
        if self not in self.load.slowed:
            self.load.slowed.add(self)
            self.curl.setopt(pycurl.TIMEOUT_MS, 0)

    def go_on(self, now: float) -> None:
        """End a pause, and prolong the deadline by it; the transfer may pause again at once."""
        self.waited_s += now - self.paused_at
        self.ends += now - self.paused_at
        self.curl.pause(pycurl.PAUSE_CONT)

    def to_come(self) -> int:
        """Return how many bytes may still come: by Content-Length, if they come as they are."""
        most, fields = self.cap, [line.lower() for line in self.lines]
        if not any(line.startswith((b"content-encoding", b"transfer-encoding")) for line in fields):
            lengths = [line[15:].strip() for line in fields if line.startswith(b"content-length:")]
            most = min([most, *(int(length) for length in lengths[-1:] if length.isdigit())])
        return max(0, most - self.size)

    def answer(self, code: int, text: str) -> Answer:
        """Return what came, given how libcurl says that it ended: 0 is well."""
        info: Callable[[int], Any] = self.curl.getinfo
        total, secured, opened_now = (
            info(name) for name in (pycurl.TOTAL_TIME, pycurl.APPCONNECT_TIME, pycurl.NUM_CONNECTS)
        )
        # Where there was no connection libcurl gives the other times as if all had been well.
        reached = info(pycurl.PRIMARY_IP) != "" and not (self.secure and opened_now and not secured)
        ready, first = info(pycurl.PRETRANSFER_TIME), info(pycurl.STARTTRANSFER_TIME)
        opened = max(info(pycurl.CONNECT_TIME), secured)  # both 0 on a connection that was open
        over = self.cut and self.size > self.cap
        failure = None if code == 0 or over else _failure(code, text, reached)
        if failure == "tls" and info(pycurl.OS_ERRNO):
            failure = "broken_off"  # the network's doing, not the certificate's
        status = info(pycurl.RESPONSE_CODE)
        return Answer(
            status=status,
            lines=tuple(self.lines),
            body=self._received(over, failure),
            failure=failure,
            connect_s=opened if reached else total,
            first_byte_s=max(0.0, (first or total) - ready) if reached else 0.0,
            body_s=max(0.0, total - first - self.waited_s) if reached and first else 0.0,
            silent=code == pycurl.E_OPERATION_TIMEDOUT and not reached,
            again=code == pycurl.E_BAD_CONTENT_ENCODING and status == 200,
            waited_s=self.waited_s,
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

    def _has_connected(self, *_: Any) -> int:
        if not self.connected:
            self.connected = True
            self.load.connecting -= 1
        return int(pycurl.PREREQFUNC_OK)

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


def _failure(code: int, text: str, reached: bool) -> str:
    if code == pycurl.E_OPERATION_TIMEDOUT and not reached:
        return "connect"
    if code == pycurl.E_RECV_ERROR and ("chunk" in text or "headers" in text):
        return "protocol"
    return _FAILURES.get(code, "protocol")
