"""What the fetcher has to do for one URL, or for one origin's robots.txt, and how far it is."""

import hashlib
from dataclasses import dataclass

from .urls import Link

PHASES = ("polite", "dns", "connect", "first_byte", "body")
POLITE, DNS, CONNECT, FIRST_BYTE, BODY = range(5)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0


@dataclass(frozen=True)
class FetchOptions:
    """How URLs are fetched."""

    deadline_s: float = 20.0  # for each attempt: look-up, connection, redirects, body
    max_bytes: int = 32 * 2**20  # of a body, as sent and decompressed
    max_redirects: int = 5
    retries: int = 1  # of failures that can pass
    connections: int = 64
    allow_private: bool = False
    use_proxy: bool = False
    user_agent: str = "breadth/0.1"
    user_agent_token: str = "breadth"  # what robots.txt and X-Robots-Tag call us
    respect_robots: bool = True
    longest_retry_after_s: float = 120.0  # that a Retry-After is given; 0 heeds none
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")


@dataclass(slots=True)
class Fetched:
    """What came of one URL: its body, or the name of a failure and what else is known of it."""

    row: int
    failure: str | None
    message: str | None
    body: bytes | None
    opt_out: str | None  # JSON: the rule, where it stands, when it was read
    seconds: dict[str, float]  # by phase, of all attempts
    attempts: int
    host: str


class Errand:
    """A URL on its way: each hop of a redirect has its own link, each attempt begins anew."""

    __slots__ = (
        "addresses",
        "attempts",
        "crawl_delay_s",
        "domain",
        "first",
        "hops",
        "left_s",
        "link",
        "probe",
        "queued",
        "raw",
        "robots_of",
        "row",
        "seconds",
    )

    def __init__(
        self, row: int, link: Link, deadline_s: float, robots_of: str | None = None
    ) -> None:
        self.row, self.first, self.link = row, link, link
        self.robots_of = robots_of  # the origin whose robots.txt this is about
        self.attempts, self.hops = 1, 0
        self.left_s = deadline_s  # of this attempt, not counting what it waits for politeness
        self.queued = self.crawl_delay_s = 0.0
        self.domain = ""
        self.probe = False  # it finds out whether its host is up again
        self.raw = False  # the link's body is taken as sent: its Content-Encoding is no true one
        self.addresses: tuple[str, ...] = ()  # of the link's host, as they were checked
        self.seconds = [0.0] * len(PHASES)

    def again(self, deadline_s: float) -> None:
        """Begin the next attempt."""
        self.link, self.hops, self.left_s = self.first, 0, deadline_s
        self.attempts += 1
        self.raw = False

    def back_off_s(self, asked_s: float) -> float:
        """Return how long to wait before the next attempt.

        The wait doubles with each attempt, and up to a quarter more, drawn from the URL, keeps
        errands apart. ``asked_s`` is what the server asked for, 0 if nothing.
        """
        text = f"{self.attempts} {self.first.href}".encode()
        draw = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") / 2**32
        wait_s = _FIRST_WAIT_S * 2.0 ** (self.attempts - 1) * (1.0 + 0.25 * draw)
        return max(min(wait_s, _LONGEST_WAIT_S), asked_s)

    def fetched(
        self,
        failure: str | None,
        message: str | None = None,
        body: bytes | None = None,
        opt_out: str | None = None,
    ) -> Fetched:
        """Return the end of the errand."""
        seconds = dict(zip(PHASES, self.seconds, strict=True))
        host = self.link.host
        return Fetched(self.row, failure, message, body, opt_out, seconds, self.attempts, host)
