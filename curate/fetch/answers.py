"""Read an HTTP answer: its headers, and what its status means for the fetch of a picture."""

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from .failures import FAILURES
from .retry_after import retry_after_s

_NAMED = {404: "not_found", 410: "not_found", 429: "throttled"} | dict.fromkeys(
    (401, 402, 403, 451), "forbidden"
)
_HOST_FAILED = ("connect", "timeout", "broken_off", "tls", "server_error")
_MOVED = (301, 302, 303, 307, 308)


class Answer(NamedTuple):
    """What came of one request, of one hop."""

    status: int  # 0: none came
    lines: Sequence[bytes]  # the status line and headers as sent, interim answers' too
    body: bytes
    failure: str | None  # what libcurl met, as a name of FAILURES; judge by verdict()
    connect_s: float  # TCP and TLS; 0 on a connection that was open
    first_byte_s: float
    body_s: float
    silent: bool = False  # the host let the connection time out
    again: bool = False  # the body is not in the Content-Encoding it claims: ask for it raw
    waited_s: float = 0.0  # how long it was paused for want of memory, which is our doing

    def has(self, name: bytes) -> bool:
        """Whether there may be a header of this name, given in lower case (cost: 1 us)."""
        return name in b"".join(self.lines).lower()

    def headers(self) -> list[tuple[str, str]]:
        """Return the last answer's headers in order, names in lower case, repeated ones kept."""
        pairs: list[tuple[str, str]] = []
        for line in self.lines:
            text = _text(line).rstrip("\r\n")
            name, colon, value = text.partition(":")
            if text.startswith("HTTP/"):
                pairs.clear()
            elif text[:1] in (" ", "\t") and pairs:  # a folded line goes on with the one before
                pairs[-1] = pairs[-1][0], f"{pairs[-1][1]} {text.strip()}"
            elif colon:
                pairs.append((name.strip().lower(), value.strip()))
        return pairs

    def header(self, name: str) -> str | None:
        """Return the first value of a header whose name is given in lower case."""
        if not self.has(name.encode()):
            return None
        return next((value for key, value in self.headers() if key == name), None)

    @property
    def moved(self) -> bool:
        """Whether the answer is a redirect."""
        return self.status in _MOVED

    def retry_after_s(self) -> float | None:
        """Return for how long the server asks to be left in peace, if it does."""
        if self.status not in (429, 503):
            return None
        return retry_after_s(self.header("retry-after"), time.time())

    def of_host(self, failure: str | None) -> str:
        """Return what the answer, with the failure of verdict(), says of its host to Limits."""
        if failure == "throttled":
            return failure
        # What befell a transfer that was paused may be our doing.
        return "failed" if failure in _HOST_FAILED and not self.waited_s else "ok"

    def verdict(self) -> tuple[str | None, str | None]:
        """Return the failure's name and message, or nothing where the body is all there.

        A final status other than 200 says more than what went wrong after it.
        """
        if self.status >= 200 and self.status != 200:
            return self._failure(), f"HTTP Error {self.status}: {_phrase(self.status)}"
        failure = self.failure
        if failure is None and self.status != 200:
            failure = "protocol"  # the answer ended before its final status, as after 101
        return failure, FAILURES[failure].meaning if failure else None

    def _failure(self) -> str:
        if self.status == 503 and self.header("retry-after") is not None:
            return "throttled"
        if 500 <= self.status < 600:
            return "server_error"
        return _NAMED.get(self.status, "http_error")


def _text(line: bytes) -> str:
    """Read a header as browsers do: UTF-8 if it is some, as in many a Location, else Latin-1."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _phrase(status: int) -> str:
    """Return the standard's words, not the server's: messages depend on nothing else."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
