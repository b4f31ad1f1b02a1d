"""Fetch and decode the pictures of one part: network in one thread, decoding in another."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..scratch import Scratch
from . import picture
from .attempts import PATIENCE, attempt
from .failures import failed_row
from .fetcher import Fetched, Fetcher, FetchOptions
from .inbox import Inbox
from .isolated import Child
from .limits import Limits
from .live import Live
from .picture import Picture, Shape
from .robots import Robots
from .spool import Spool
from .watchdog import Watchdog


@dataclass(frozen=True)
class Gentleness:
    """How much the whole build asks of a registrable domain or a host; 0 lifts a limit."""

    connections: int = 8
    per_s: float = 25.0
    breaker_failures: int = 10
    longest_silence_s: float = 120.0  # that a Retry-After is given


@dataclass(frozen=True)
class Job:
    """What is done to every URL of a part; ``hashes`` are taken of the bytes as downloaded."""

    fetch: FetchOptions
    gentleness: Gentleness
    shape: Shape
    hashes: tuple[str, ...] = ("sha256",)


Row = dict[str, Any]


def fetch_part(
    urls: Sequence[str], pairs_of: Mapping[str, int], job: Job, scratch: Scratch
) -> tuple[list[Row], Spool]:
    """Fetch distinct URLs and return a row for each, in order, and the spool of their pictures.

    ``pairs_of`` says how many pairs have a URL, for the live figures. Nothing about a URL or its
    bytes raises: a row says what failed. Raises Failed where the machine cannot go on, and OSError
    where its disk is full. Cost: about 1.5 ms of CPU for each 640 x 480 JPEG; memory holds some 8
    MB of bodies and no pictures.
    """
    with ExitStack() as opened:
        deaths = opened.enter_context(attempt(scratch.journal))
        limits = Limits(scratch.shared, **vars(job.gentleness))
        opened.callback(limits.close)
        robots = Robots(scratch.shared, job.fetch.user_agent_token)
        opened.callback(robots.close)
        fetcher = Fetcher(job.fetch, limits, robots)
        decoder = _Decoder(job, in_child=deaths >= PATIENCE)
        opened.callback(decoder.close)
        watchdog = opened.enter_context(Watchdog(job.fetch.deadline_s))
        live = Live(scratch.live, sum(pairs_of.values()), fetcher.figures)
        spool = Spool(scratch.part, len(urls))
        rows: list[Row] = [{}] * len(urls)
        seconds: dict[str, float] = defaultdict(float)
        for fetched in Inbox(fetcher, urls).results(live.write):
            url = urls[fetched.row]
            with watchdog.on(url):
                row, encoded = decoder.row(fetched, seconds)
            if encoded is not None:
                began = time.perf_counter()
                spool.put(fetched.row, encoded)
                seconds["write"] += time.perf_counter() - began
            rows[fetched.row] = row
            live.count(row["failure"], len(fetched.body or b""), pairs_of[url])
        live.write(at_once=True)
        scratch.timings.update(seconds)
    return rows, spool


class _Decoder:
    """Makes rows of what was fetched: hashes, picture, and a failure by its name."""

    def __init__(self, job: Job, *, in_child: bool) -> None:
        self._job, self._in_child = job, in_child
        self._child = Child(job.shape, job.fetch.deadline_s)
        self.close = self._child.close

    def row(self, fetched: Fetched, seconds: dict[str, float]) -> tuple[Row, bytes | None]:
        """Return the columns of one URL and its encoded picture, and add to the time by phase."""
        for phase, spent in fetched.seconds.items():
            seconds[phase] += spent
        if fetched.body is None:
            return failed_row(fetched.failure or "protocol", fetched.message, fetched.opt_out), None
        began = time.perf_counter()
        hashes = {name: hashlib.new(name, fetched.body).hexdigest() for name in self._job.hashes}
        seconds["hash"] += time.perf_counter() - began
        made = self._decode(fetched.body)
        for phase in ("decode", "resize", "encode"):
            seconds[phase] += getattr(made, f"{phase}_s")
        if made.failure is not None:
            return failed_row(made.failure, made.message) | hashes, None
        return _arrived(made) | hashes, made.image

    def _decode(self, body: bytes) -> Picture:
        header = picture.header_of(body)
        if self._in_child or (header is not None and picture.risky(header)):
            return self._child.decode(body)
        return picture.process(body, self._job.shape, header)


def _arrived(made: Picture) -> Row:
    names = ("width", "height", "original_width", "original_height", "exif")
    facts = {name: getattr(made, name) for name in names}
    return {"status": "success", "failure": None, "retryable": False, **facts}
