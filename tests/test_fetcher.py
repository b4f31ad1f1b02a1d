"""The fetcher against loopback servers: every URL ends, by one of the known ends, in time."""

import gzip
import json
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from breadth.curate.fetch import (
    addresses,
    answers,
    breaker,
    errand,
    origins,
    queues,
    transfer,
    transport,
    urls,
)
from breadth.curate.fetch.failures import FAILURES
from breadth.curate.fetch.fetcher import Fetched, Fetcher, FetchOptions
from breadth.curate.fetch.limits import Limits, Start
from breadth.curate.fetch.robots import Robots

from .certificates import authority, certificate

Answering = Callable[[socket.socket], None]


@dataclass
class Web:
    """A server on loopback: what it answers by path, and what it was asked."""

    port: int = 0
    pages: dict[str, bytes | Answering] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    heads: list[bytes] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    tls: ssl.SSLContext | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def link(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http{'s' if self.tls else ''}://{host}:{self.port}/{path}"

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection: socket.socket) -> None:
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            rest = b""
            while head := self.read(connection, rest):
                self.answer(connection, head)
        except OSError:
            pass
        finally:
            connection.close()

    def read(self, connection: socket.socket, head: bytes) -> bytes:
        while b"\r\n\r\n" not in head:
            more = connection.recv(65_536)
            if not more:
                return b""
            head += more
        return head

    def answer(self, connection: socket.socket, head: bytes) -> None:
        path = head.split(b" ", 2)[1].decode().lstrip("/")
        with self.lock:
            self.asked[path] += 1
            self.heads.append(head)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            page = self.pages.get(path.partition("?")[0], reply(b"gone", "404 Not Found"))
            if callable(page):
                page(connection)
            else:
                connection.sendall(page)
        finally:
            with self.lock:
                self.at_once -= 1


def reply(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def moved(location: str) -> bytes:
    return reply(b"", "302 Found", Location=location)


@pytest.fixture
def webs() -> Iterator[Callable[..., Web]]:
    """Makes servers on any loopback address, with TLS on demand."""
    listeners = []

    def make(address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Web:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family)
        listener.bind((address, 0))
        listener.listen(256)
        listeners.append(listener)
        web = Web(listener.getsockname()[1], tls=tls)
        threading.Thread(target=web.serve, args=(listener,), daemon=True).start()
        return web

    yield make
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def web(webs: Callable[..., Web]) -> Web:
    """One server, which has one picture."""
    made = webs()
    made.pages["a"] = reply(b"picture")
    return made


def names(**table: str | Sequence[str]) -> Callable[..., list[Any]]:
    """A look-up by table; several calls for a host take turns through its list of lists."""

    def lookup(host: str, *_: Any, **__: Any) -> list[Any]:
        found = table.get(host.partition(".")[0])
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        known = [found] if isinstance(found, str) else found
        return [(0, 0, 0, "", (address, 0)) for address in known]

    return lookup


class Run:
    """A fetch in a thread of its own, as a part does it."""

    def __init__(
        self,
        folder: Path,
        urls: Sequence[str | None],
        *,
        lookup: Any = None,
        limits: Any = None,
        room: Callable[[], bool] = lambda: True,
        put: Callable[[Fetched], None] | None = None,
        **options: Any,
    ) -> None:
        defaults = {"allow_private": True, "retries": 0, "deadline_s": 5.0}
        own = None if limits else Limits(folder, per_s=0, connections=0)
        robots = Robots(folder, "breadth")
        self.opened = [files for files in (own, robots) if files is not None]
        chosen = FetchOptions(**(defaults | options))
        self.fetcher = Fetcher(chosen, limits or own, robots, lookup=lookup or names())
        self.stop, self.error = threading.Event(), None
        self.got: list[Fetched] = []
        self.args = (urls, put or self.got.append)
        self.room = room
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.fetcher.run(*self.args, room=self.room, stop=self.stop)
        except BaseException as error:
            self.error = error  # type: ignore[assignment]
        for files in self.opened:
            files.close()

    def end(self, within_s: float = 20.0) -> list[Fetched]:
        self.thread.join(within_s)
        assert not self.thread.is_alive(), "the fetcher hangs"
        if self.error is not None:
            raise self.error
        return sorted(self.got, key=lambda fetched: fetched.row)


def fetch(folder: Path, *urls: str | None, **options: Any) -> list[Fetched]:
    return Run(folder, urls, **options).end()


def ends(fetched: Sequence[Fetched]) -> list[str | None]:
    return [one.failure for one in fetched]


def test_every_row_ends_once(web: Web, tmp_path: Path) -> None:
    """Bodies, a 404, and what is no URL at all: each row is put exactly once, by its number."""
    links = [web.link(f"a?{n}") for n in range(300)]
    links[7:7] = [None, "", "nonsense", web.link("gone"), "http://u:p@a.test/", "http://none.test/"]
    fetched = fetch(tmp_path, *links)
    assert [one.row for one in fetched] == list(range(306))
    assert ends(fetched)[7:13] == ["bad_url"] * 3 + ["not_found", "credentials", "dns"]
    assert fetched[10].message == "HTTP Error 404: Not Found"
    assert {one.body for one in fetched if one.failure is None} == {b"picture"}
    assert all(set(one.seconds) == set(errand.PHASES) for one in fetched)


def test_we_say_who_we_are_and_ask_for_bytes_as_they_are(web: Web, tmp_path: Path) -> None:
    """The user agent is ours, nothing is asked to be compressed, and nothing else is told."""
    fetch(tmp_path, web.link("a"), user_agent="breadth/1 (me@a.test)", respect_robots=False)
    lines = sorted(web.heads[0].decode().lower().split("\r\n"))
    assert [line for line in lines if line] == [
        "accept-encoding: identity",
        "accept: */*",
        "get /a http/1.1",
        f"host: 127.0.0.1:{web.port}",
        "user-agent: breadth/1 (me@a.test)",
    ]


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        ("204 No Content", "http_error"),
        ("206 Partial Content", "http_error"),
        ("300 Multiple Choices", "http_error"),
        ("304 Not Modified", "http_error"),
        ("401 Unauthorized", "forbidden"),
        ("403 Forbidden", "forbidden"),
        ("404 Not Found", "not_found"),
        ("410 Gone", "not_found"),
        ("418 I'm a Teapot", "http_error"),
        ("429 Too Many Requests", "throttled"),
        ("451 Unavailable For Legal Reasons", "forbidden"),
        ("500 Internal Server Error", "server_error"),
        ("503 Service Unavailable", "server_error"),
        ("599 Whatever", "server_error"),
        ("999 Denied", "http_error"),
    ],
)
def test_a_status_has_a_failure_of_its_own(
    web: Web, tmp_path: Path, status: str, failure: str
) -> None:
    """Only 200 is a picture; the message has the standard's words and not the server's."""
    body = b"" if status[:3] in ("204", "304") else b"no"
    web.pages["x"] = reply(body, status)
    [one] = fetch(tmp_path, web.link("x"))
    assert one.failure == failure
    assert (one.message or "").startswith(f"HTTP Error {status[:3]}: ")


def test_redirects_are_followed_to_the_limit(web: Web, tmp_path: Path) -> None:
    """Three hops of all kinds arrive; a fourth, a loop, and one without a location do not."""
    web.pages |= {"3": moved("/2"), "2": moved("1?x"), "1": moved(f"//127.0.0.1:{web.port}/a")}
    web.pages |= {"4": moved("3"), "loop": moved("loop"), "none": reply(b"", "302 Found")}
    web.pages |= {"utf-8": moved("/é"), "%C3%A9": reply(b"picture")}  # as bytes, not escaped
    paths = ("3", "4", "loop", "none", "utf-8")
    fetched = fetch(tmp_path, *map(web.link, paths), max_redirects=3)
    assert ends(fetched) == [None, "redirects", "redirects", "redirects", None]
    assert fetched[0].body == b"picture"


def test_a_redirect_leads_nowhere_but_to_the_web(web: Web, tmp_path: Path) -> None:
    """file:, data:, ftp: and credentials in a Location are refused, and no file is read."""
    targets = ("file:///etc/hostname", "data:,x", "ftp://127.0.0.1/", "http://u:p@127.0.0.1/")
    web.pages |= {str(n): moved(target) for n, target in enumerate(targets)}
    fetched = fetch(tmp_path, *(web.link(str(n)) for n in range(4)))
    assert ends(fetched) == ["redirects"] * 3 + ["credentials"]
    assert not any(one.body for one in fetched)


@pytest.fixture
def one_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all loopback addresses, 127.0.0.1 counts as public."""
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")


@pytest.mark.usefixtures("one_public_address")
def test_private_addresses_are_never_connected_to(
    webs: Callable[..., Web], web: Web, tmp_path: Path
) -> None:
    """By name, by number, by one address of several, by redirect: it is never asked."""
    private = webs("127.0.0.2")
    lookup = names(inside="127.0.0.2", both=["127.0.0.1", "127.0.0.2"], outside="127.0.0.1")
    port = private.port
    web.pages |= {
        "to-name": moved(f"http://inside.test:{port}/a"),
        "to-number": moved(f"http://2130706434:{port}/a"),
    }
    hosts = ("inside.test", "both.test", "127.0.0.2", "[::ffff:127.0.0.2]", "0x7f000002")
    links = [f"http://{host}:{port}/a" for host in hosts]
    links += [web.link("to-name", "outside.test"), web.link("to-number", "outside.test")]
    fetched = fetch(tmp_path, *links, lookup=lookup, allow_private=False)
    assert ends(fetched) == ["private_address"] * 7
    assert not private.asked and web.asked["to-name"] == 1


@pytest.mark.usefixtures("one_public_address")
def test_a_host_that_changes_its_address_is_asked_where_it_was_checked(
    webs: Callable[..., Web], web: Web, tmp_path: Path
) -> None:
    """A resolver that turns private at the second question (rebinding) is asked only once."""
    private = webs("127.0.0.2")
    answers = ["127.0.0.1", "127.0.0.2", "127.0.0.2"]

    def lookup(*_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 0, "", (answers.pop(0), 0))]

    links = [web.link(f"a?{n}", "host.test") for n in range(5)]
    assert ends(fetch(tmp_path, *links, lookup=lookup, allow_private=False)) == [None] * 5
    assert len(answers) == 2 and not private.asked


def test_libcurl_connects_nowhere_else() -> None:
    """Whatever address libcurl comes up with, a socket is opened only to one that was checked."""
    handle = transfer.Transfer("test", transfer.Load())
    handle.addresses = ["127.0.0.1", "::ffff:7f00:2"]
    for address in ("127.0.0.3", "127.0.0.2", "::1", "::ffff:127.0.0.1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        assert handle._open_socket(0, Wanted(family, (address, 80))) == transfer.pycurl.SOCKET_BAD
    handle._open_socket(0, Wanted(socket.AF_INET, ("127.0.0.1", 80))).close()


@dataclass
class Wanted:
    """An address as libcurl asks for a socket to it."""

    family: int
    addr: tuple[str, int]
    socktype: int = socket.SOCK_STREAM
    protocol: int = 0


def test_libcurl_looks_nothing_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the checked addresses do not reach libcurl it fails, even for localhost."""
    monkeypatch.setattr(transport, "_pinned", lambda *_: "other.test:80:127.0.0.1")
    link = urls.parse(web.link("a", "localhost"))
    assert link is not None
    made = transport.Transport("test", connections=1)
    made.start("it", link, ("127.0.0.1",), deadline_s=2.0, max_bytes=100)
    ended: list[Any] = []
    while not ended:
        ended = made.poll(0.1)
    made.close()
    assert [(token, answer.failure) for token, answer in ended] == [("it", "dns")]
    assert not web.asked


def test_the_next_address_is_tried(web: Web, tmp_path: Path) -> None:
    """A host with IPv6 where nobody listens, and IPv4 where somebody does, is reached."""
    lookup = names(host=["::1", "127.0.0.9", "127.0.0.1"])
    assert ends(fetch(tmp_path, web.link("a", "host.test"), lookup=lookup)) == [None]


def drip(connection: socket.socket, every_s: float = 0.05) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(every_s)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65_536)


def silent(_: socket.socket) -> None:
    time.sleep(30)


def slow_hop(connection: socket.socket) -> None:
    time.sleep(0.4)
    connection.sendall(moved("slow"))


def test_one_deadline_holds_for_everything(web: Web, tmp_path: Path) -> None:
    """Drips, silence, and slow hops that are each in time: all end at the deadline."""
    web.pages |= {"drip": drip, "silent": silent, "slow": slow_hop}
    began = time.monotonic()
    links = [web.link(path) for path in ("drip", "silent", "slow")]
    fetched = fetch(tmp_path, *links, deadline_s=1.0, max_redirects=50, respect_robots=False)
    assert ends(fetched) == ["timeout"] * 3
    assert 0.9 < time.monotonic() - began < 2.5


def test_bodies_are_bounded_as_sent_and_unpacked(web: Web, tmp_path: Path) -> None:
    """Endless, announced too long, a gzip bomb, empty gzip blocks: 200 kB is the end of each."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    blocks = gzip.compress(b"")[:10] + b"\x00\x00\x00\xff\xff" * 100_000

    def lied(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")

    web.pages |= {
        "endless": endless,
        "announced": lied,
        "bomb": reply(bomb, Content_Encoding="gzip"),
        "blocks": reply(blocks, Content_Encoding="gzip"),
        "just": reply(b"x" * 200_000),
    }
    paths = ("endless", "announced", "bomb", "blocks", "just")
    fetched = fetch(tmp_path, *map(web.link, paths), max_bytes=200_000)
    assert ends(fetched) == ["too_large"] * 4 + [None]


def test_content_encodings_are_undone_where_they_are_true(web: Web, tmp_path: Path) -> None:
    """gzip is undone, and a body that only claims an encoding is taken as it is."""
    web.pages |= {
        "gzip": reply(gzip.compress(b"picture"), Content_Encoding="gzip"),
        "utf-8": reply(b"picture", Content_Encoding="utf-8"),
        "lie": reply(b"picture", Content_Encoding="gzip"),
    }
    fetched = fetch(tmp_path, *map(web.link, ("gzip", "utf-8", "lie")))
    assert [one.body for one in fetched] == [b"picture"] * 3


def test_answers_that_are_no_http_have_a_name(web: Web, tmp_path: Path) -> None:
    """HTTP/0.9, bad chunks, endless headers, resets and short bodies end as what they are."""

    def reset(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    def headers(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X: " + b"y" * 1000 + b"\r\n")

    def short(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        connection.close()

    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    web.pages |= {
        "old": b"hello there\r\n",
        "chunk": chunked + b"zz\r\nhello",
        "huge chunk": chunked + b"f" * 30 + b"\r\nhello",
        "headers": headers,
        "nul": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "reset": reset,
        "short": short,
    }
    web.pages["huge%20chunk"] = web.pages["huge chunk"]
    paths = ("old", "chunk", "huge chunk", "headers", "nul", "reset", "short")
    fetched = fetch(tmp_path, *map(web.link, paths), respect_robots=False)
    assert ends(fetched) == ["protocol"] * 5 + ["broken_off"] * 2


def test_a_status_counts_more_than_what_goes_wrong_after_it(web: Web, tmp_path: Path) -> None:
    """A 404 with an endless page is a 404, and no more of the page is read than is useful."""

    def endless_404(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65_536)

    web.pages["x"] = endless_404
    began = time.monotonic()
    assert ends(fetch(tmp_path, web.link("x"))) == ["not_found"]
    assert time.monotonic() - began < 2.0


def test_what_can_pass_is_tried_again(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 that passes ends well at the second attempt; a 404 is asked for only once."""
    monkeypatch.setattr(errand, "_FIRST_WAIT_S", 0.1)
    first = [reply(b"", "500 No"), reply(b"picture")]
    web.pages["x"] = lambda connection: connection.sendall(first.pop(0))
    fetched = fetch(tmp_path, web.link("x"), web.link("gone"), web.link("never"), retries=2)
    assert [(one.failure, one.attempts) for one in fetched[:2]] == [(None, 2), ("not_found", 1)]
    assert web.asked["x"] == 2 and web.asked["gone"] == 1


def test_retry_after_is_waited_for(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 429 that asks for a second gets one, where we would have come back in a tenth."""
    monkeypatch.setattr(errand, "_FIRST_WAIT_S", 0.1)
    first = [reply(b"", "429 No", Retry_After="1"), reply(b"picture")]
    web.pages["x"] = lambda connection: connection.sendall(first.pop(0))
    began = time.monotonic()
    [one] = fetch(tmp_path, web.link("x"), retries=1)
    assert (one.failure, one.attempts) == (None, 2)
    assert time.monotonic() - began >= 1.0


def test_attempts_come_at_growing_distances_that_the_url_decides() -> None:
    """1, 2, 4 ... 30 s and a quarter more at most, the same for a URL; more where asked for."""
    link = urls.parse("http://a.test/x")
    assert link is not None
    waits = []
    made, again = errand.Errand(0, link, 5.0), errand.Errand(0, link, 5.0)
    for attempt in range(7):
        waits.append(made.back_off_s(0.0))
        assert waits[-1] == again.back_off_s(0.0)
        assert min(2.0**attempt, 30) <= waits[-1] <= min(1.25 * 2.0**attempt, 30)
        made.again(5.0)
        again.again(5.0)
    assert made.back_off_s(50.0) == 50.0


def test_nothing_starts_while_there_is_no_room(web: Web, tmp_path: Path) -> None:
    """Without room no request is made; with room again all are."""
    room = threading.Event()
    run = Run(tmp_path, [web.link("a")] * 5, room=room.is_set)
    time.sleep(0.3)
    assert not web.asked
    room.set()
    assert ends(run.end()) == [None] * 5


def test_no_more_connections_than_allowed(web: Web, tmp_path: Path) -> None:
    """Forty slow pictures over seven connections: seven are on the way at a time."""

    def slow(connection: socket.socket) -> None:
        time.sleep(0.05)
        connection.sendall(reply(b"x"))

    web.pages["slow"] = slow
    links = [web.link(f"slow?{n}") for n in range(40)]
    assert ends(fetch(tmp_path, *links, connections=7)) == [None] * 40
    assert web.most_at_once == 7


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_stop_ends_it_within_a_second_and_leaves_nothing(web: Web, tmp_path: Path) -> None:
    """With transfers, look-ups and waits that would last for ever, stop is obeyed at once."""
    web.pages["silent"] = silent
    release = threading.Event()

    def hangs(*_: Any, **__: Any) -> list[Any]:
        release.wait(30)
        return []

    fetch(tmp_path, web.link("a"))  # what is opened once for all is open
    before = descriptors()
    links = [web.link("silent"), "http://hangs.test/", web.link("drip")]
    limits = Limits(tmp_path, per_s=0, connections=1)
    opened = descriptors() - before
    run = Run(
        tmp_path, links * 20, lookup=hangs, limits=limits, deadline_s=30, respect_robots=False
    )
    time.sleep(0.4)
    assert run.fetcher.figures()["in_flight"] == 1
    began = time.monotonic()
    run.stop.set()
    run.thread.join(5)
    assert time.monotonic() - began < 1.0 and run.error is None
    release.set()
    assert descriptors() <= before + opened + 1  # the server's end of the silent one
    assert limits.try_start("127.0.0.1", "127.0.0.1").go, "a place was not given back"


def test_no_descriptor_is_lost(web: Web, tmp_path: Path) -> None:
    """Ten fetches that end well, in errors and by redirects leave as many files open as one."""
    web.pages |= {"moved": moved("a"), "drip": drip}
    links = [web.link(p) for p in ("a", "moved", "gone", "drip")] + ["http://no.test/"]
    limits = Limits(tmp_path, per_s=0, connections=0)
    counts = []
    for _ in range(10):
        fetch(tmp_path, *links, deadline_s=0.3, limits=limits, respect_robots=False)
        time.sleep(0.15)  # the server lets go of its ends
        counts.append(descriptors())
    assert counts[-1] <= counts[1] + 2, counts


def test_what_nobody_expected_reaches_the_caller(web: Web, tmp_path: Path) -> None:
    """An exception in the middle of the loop is raised by run, not swallowed."""

    def put(_: Fetched) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Run(tmp_path, [web.link("a")], put=put).end(5)


def test_one_domain_never_holds_up_another(web: Web, tmp_path: Path) -> None:
    """A domain at its limit waits alone: a hundred URLs of another pass it by."""
    limits = Limits(tmp_path, per_s=4, connections=0)
    fast = [web.link(f"a?{n}", f"{n % 50}.fast{n}.test") for n in range(100)]
    slow = [web.link(f"a?{n}", "slow.test") for n in range(6)]
    table = names(**{str(n): "127.0.0.1" for n in range(50)}, slow="127.0.0.1")
    run = Run(tmp_path, slow + fast, lookup=table, limits=limits, respect_robots=False)
    fetched = run.end()
    assert ends(fetched) == [None] * 106
    rows = [one.row for one in run.got]
    assert max(rows.index(row) for row in range(6)) == 105
    assert max(one.seconds["polite"] for one in fetched[:6]) > 0.2
    assert max(one.seconds["polite"] for one in fetched[6:]) == 0.0


ROBOTS = b"User-agent: *\nDisallow: /no\n"


def test_robots_txt_is_asked_for_first_and_once(web: Web, tmp_path: Path) -> None:
    """What it forbids is not asked for, with the rule, the place and the time as evidence."""
    web.pages["robots.txt"] = reply(ROBOTS)
    web.pages["no/b"] = reply(b"picture")
    links = [web.link("a"), web.link("no/b")] * 20
    fetched = fetch(tmp_path, *links)
    assert ends(fetched) == [None, "robots"] * 20
    assert web.asked["robots.txt"] == 1 and not web.asked["no/b"]
    told = json.loads(fetched[1].opt_out or "")
    assert told["rule"] == "Disallow: /no" and told["where"] == web.link("robots.txt")
    assert told["time"].endswith("+00:00")
    assert ends(fetch(tmp_path / "off", web.link("no/b"), respect_robots=False)) == [None]


def test_robots_txt_that_fails_forbids_everything_for_now(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5xx is unknown, and the next attempts ask once more together; dead hosts stay dead."""
    monkeypatch.setattr(errand, "_FIRST_WAIT_S", 0.1)
    answers = [reply(b"", "500 No"), reply(ROBOTS)]
    web.pages["robots.txt"] = lambda connection: connection.sendall(answers.pop(0))
    links = [web.link(f"a?{n}") for n in range(10)]
    fetched = fetch(tmp_path, *links, retries=1)
    assert ends(fetched) == [None] * 10 and {one.attempts for one in fetched} == {2}
    web.pages["robots.txt"] = reply(b"", "500 No")
    assert ends(fetch(tmp_path / "2", *links)) == ["robots_unknown"] * 10
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}/a"
        assert ends(fetch(tmp_path, dead, "http://none.test/a")) == ["connect", "dns"]


def test_robots_txt_holds_after_a_redirect(
    webs: Callable[..., Web], web: Web, tmp_path: Path
) -> None:
    """The host that a redirect leads to has rules of its own, and robots.txt may be redirected."""
    other = webs()
    other.pages |= {"robots.txt": moved("/rules"), "rules": reply(ROBOTS)}
    other.pages |= {"no/x": reply(b"picture"), "x": reply(b"picture")}
    web.pages |= {"1": moved(other.link("no/x")), "2": moved(other.link("x"))}
    assert ends(fetch(tmp_path, web.link("1"), web.link("2"))) == ["robots", None]
    assert not other.asked["no/x"] and other.asked["robots.txt"] == 1


def test_a_long_robots_txt_is_read_as_far_as_it_must_be(web: Web, tmp_path: Path) -> None:
    """Of 30 MB the first 500 KiB count, as RFC 9309 says, and the picture is fetched."""
    web.pages["robots.txt"] = reply(ROBOTS + b"# padding\n" * 1_000_000)
    fetched = fetch(tmp_path, web.link("a"), web.link("no/b"))
    assert ends(fetched) == [None, "robots"]
    assert origins.ROBOTS_BYTES == 512_000


def test_a_header_can_forbid_what_was_fetched(web: Web, tmp_path: Path) -> None:
    """X-Robots-Tag with noai drops the body and keeps the evidence; others' directives do not."""
    web.pages |= {
        "no": reply(b"picture", X_Robots_Tag="unavailable_after: 25 Jun 2010 15:00:00 PST, noai"),
        "yes": reply(b"picture", X_Robots_Tag="otherbot: noai"),
    }
    fetched = fetch(tmp_path, web.link("no"), web.link("yes"))
    assert ends(fetched) == ["opt_out", None] and fetched[0].body is None
    told = json.loads(fetched[0].opt_out or "")
    assert told["where"] == web.link("no") and "noai" in told["rule"]
    off = fetch(tmp_path, web.link("no"), disallowed_header_directives=())
    assert ends(off) == [None]


def test_no_cookies_no_netrc_no_proxy(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server sets is not sent back, and neither home folder nor environment is heeded."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    web.pages["x"] = reply(b"", "302 Found", Set_Cookie="a=b", Location="a")
    assert ends(fetch(tmp_path, web.link("x"), web.link("a"), connections=1)) == [None, None]
    sent = b"".join(web.heads).lower()
    assert b"cookie" not in sent and b"authorization" not in sent


def test_a_proxy_of_the_environment_is_used_only_by_option(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With use_proxy the proxy is asked for the whole URL, and no name is looked up here."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{web.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    web.pages["http://far.test/a"] = reply(b"by proxy")
    options: dict[str, Any] = {"respect_robots": False, "allow_private": False}
    [one] = fetch(tmp_path, "http://far.test/a", use_proxy=True, **options)
    assert one.body == b"by proxy"
    assert ends(fetch(tmp_path, "http://far.test/a", **options)) == ["dns"]
    inside = fetch(tmp_path, "http://127.0.0.1/a", use_proxy=True, **options)
    assert ends(inside) == ["private_address"]


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A server's side of TLS, for www.test, by an authority whose file is ca.pem."""
    key, root = authority(tmp_path / "ca.pem")
    certificate(tmp_path / "server.pem", key, root, "www.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    return context


def test_tls_is_checked_against_the_authorities_that_are_named(
    webs: Callable[..., Web], tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE's authority is trusted for the name it signed, no other, and no other is."""
    web = webs(tls=tls)
    web.pages["a"] = reply(b"picture")
    lookup = names(www="127.0.0.1", other="127.0.0.1")
    links = (web.link("a", "www.test"), web.link("a", "other.example"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert ends(fetch(tmp_path, *links, lookup=lookup)) == [None, "tls"]
    authority(tmp_path / "stranger.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "stranger.pem"))
    assert ends(fetch(tmp_path, *links, lookup=lookup)) == ["tls", "tls"]
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(Exception, match="SSL_CERT_FILE"):
        fetch(tmp_path, *links, lookup=lookup)


def test_http_2_is_offered_over_tls(
    webs: Callable[..., Web], tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that speaks HTTP/2 is chosen by ALPN: it gets the preface of HTTP/2."""
    tls.set_alpn_protocols(["h2"])
    web = webs(tls=tls)
    heard: list[bytes] = []

    def read(connection: Any, _: bytes) -> bytes:
        heard.append(connection.recv(65_536))
        return b""

    monkeypatch.setattr(web, "read", read)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    lookup = names(www="127.0.0.1")
    fetched = fetch(tmp_path, web.link("a", "www.test"), lookup=lookup, respect_robots=False)
    assert heard[0].startswith(b"PRI * HTTP/2.0") and ends(fetched) == ["broken_off"]


def test_thousands_of_hosts_do_not_wait_for_one_another(web: Web, tmp_path: Path) -> None:
    """2,000 URLs on 1,000 hosts, look-ups of 30 ms, some hosts unknown: far from one by one."""
    asked: Counter[str] = Counter()
    table = names(**{f"h{n}": "127.0.0.1" for n in range(1000) if n % 10})

    def lookup(host: str, *_: Any, **__: Any) -> list[Any]:
        asked[host] += 1
        time.sleep(0.03)
        return table(host)

    links = [web.link(f"a?{n}", f"h{n % 1000}.d{n % 1000}.test") for n in range(2000)]
    began = time.monotonic()
    fetched = fetch(tmp_path, *links, lookup=lookup)
    taken = time.monotonic() - began
    assert ends(fetched) == ["dns" if n % 1000 % 10 == 0 else None for n in range(2000)]
    assert max(asked.values()) == 1 and web.asked["robots.txt"] == 900
    assert taken < 15.0, taken  # one by one it would be over 30 s


def test_bodies_in_flight_are_bounded(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty bodies of 1 MB with a bound of 2 MB for all: transfers pause, and all arrive."""
    monkeypatch.setattr(transfer, "MOST_BYTES", 2_000_000)
    monkeypatch.setattr(transfer, "SMALL_BYTES", 50_000)
    weights: list[int] = []
    monkeypatch.setattr(transfer.Load, "take_off", _noting(transfer.Load.take_off, weights))
    web.pages["big"] = reply(b"x" * 1_000_000)
    fetched = fetch(tmp_path, *(web.link(f"big?{n}") for n in range(20)))
    assert {len(one.body or b"") for one in fetched} == {1_000_000}
    assert max(weights) < 4_800_000  # the bound, as much ahead, and what still was small


def test_a_large_body_that_stalls_makes_way(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no memory left a body that stands still is broken off long before its deadline."""
    monkeypatch.setattr(transfer, "MOST_BYTES", 300_000)
    monkeypatch.setattr(transfer, "SMALL_BYTES", 50_000)
    monkeypatch.setattr(transfer, "STALLED_S", 0.3)

    def stalls(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * 900_000)
        time.sleep(20)

    def later(connection: socket.socket) -> None:
        time.sleep(0.5)
        connection.sendall(reply(b"x" * 400_000))

    web.pages |= {"stalls": stalls, "later": later}
    began = time.monotonic()
    links = [web.link("stalls"), *(web.link(f"later?{n}") for n in range(5))]
    fetched = fetch(tmp_path, *links, deadline_s=15.0)
    assert ends(fetched) == ["timeout"] + [None] * 5
    assert time.monotonic() - began < 5.0


def _noting(take_off: Any, weights: list[int]) -> Any:
    def noted(load: Any, ended: Any) -> None:
        weights.append(load.size)
        take_off(load, ended)

    return noted


def test_who_pauses_for_others_loses_no_time(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty bodies of half a second each, a few at a time: all arrive, after two deadlines."""
    monkeypatch.setattr(transfer, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(transfer, "SMALL_BYTES", 50_000)
    weights: list[int] = []
    monkeypatch.setattr(transfer.Load, "take_off", _noting(transfer.Load.take_off, weights))
    arrived: list[float] = []

    def steady(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 450000\r\n\r\n")
        for _ in range(45):
            connection.sendall(b"x" * 10_000)
            time.sleep(0.012)

    def put(fetched: Fetched) -> None:
        run.got.append(fetched)
        arrived.append(time.monotonic() - began)

    open_socket = transfer.Transfer._open_socket

    def narrow(*args: Any) -> Any:
        opened = open_socket(*args)  # else all of it waits in the kernel while we pause
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        return opened

    monkeypatch.setattr(transfer.Transfer, "_open_socket", narrow)
    web.pages["steady"] = steady
    limits = Limits(tmp_path / "limits", per_s=0, connections=0, breaker_failures=1)
    began = time.monotonic()
    links = [web.link(f"steady?{n}") for n in range(20)]
    run = Run(tmp_path, links, deadline_s=0.9, limits=limits, put=put, respect_robots=False)
    fetched = run.end()
    assert ends(fetched) == [None] * 20
    assert 1.5 < max(arrived) < 4.5  # one by one it would be 5.9 s
    assert max(one.seconds["body"] for one in fetched) < 1.0
    assert max(weights) < 3_200_000  # the bound, as much ahead, and what still was small
    assert limits.try_start("127.0.0.1", "127.0.0.1").go


def test_a_paused_body_is_still_bounded(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endless bodies that pause and go on end as too large, one by one, and at a deadline."""
    monkeypatch.setattr(transfer, "MOST_BYTES", 300_000)
    monkeypatch.setattr(transfer, "SMALL_BYTES", 50_000)

    def slows(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 250_000)
        drip(connection)

    web.pages |= {"endless": endless, "slows": slows}
    links = [web.link(f"endless?{n}") for n in range(6)] + [web.link(f"slows?{n}") for n in (1, 2)]
    began = time.monotonic()
    fetched = fetch(tmp_path, *links, max_bytes=400_000, deadline_s=2.0)
    assert ends(fetched) == ["too_large"] * 6 + ["timeout"] * 2
    assert time.monotonic() - began < 8.0


def test_what_befalls_a_paused_body_is_not_held_against_its_host() -> None:
    """A transfer that breaks off counts as the host's failure, but not where we let it wait."""
    came = answers.Answer(200, [], b"", "broken_off", 0.0, 0.0, 0.0)
    assert came.of_host("broken_off") == "failed"
    assert came._replace(waited_s=0.5).of_host("broken_off") == "ok"
    assert came._replace(waited_s=0.5).of_host("throttled") == "throttled"


def test_few_start_while_there_is_much_in_memory(tmp_path: Path) -> None:
    """Over half of the bound there is room for eight transfers only, under it for all."""
    made = transport.Transport("test", connections=10)
    link = urls.parse("http://127.0.0.9:9/")
    assert link is not None
    full = []
    for size in (0, transfer.MOST_BYTES):
        made._load.size = size
        full.append(made.full)
    for _ in range(8):
        made.start("it", link, ("127.0.0.9",), deadline_s=2.0, max_bytes=100)
    for size in (0, transfer.MOST_BYTES // 2 + 1):
        made._load.size = size
        full.append(made.full)
    made.close()
    assert full == [False, False, False, True]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port on all of loopback where nobody takes a connection, and nobody refuses one."""
    monkeypatch.setattr(transport, "CONNECT_S", 0.5)
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        time.sleep(0.1)
        yield port
        for one in waiting:
            one.close()


@pytest.mark.parametrize("respect_robots", [True, False])
def test_a_host_that_takes_no_connection_is_no_connection(
    web: Web, nobody: int, tmp_path: Path, respect_robots: bool
) -> None:
    """Neither a timeout nor a robots.txt nobody knows; the seconds are those of connecting."""
    links = [web.link("a"), f"http://127.0.0.1:{nobody}/a", f"https://127.0.0.1:{nobody}/a"]
    fetched = fetch(tmp_path, *links, respect_robots=respect_robots, connections=1)
    assert ends(fetched) == [None, "connect", "connect"]
    for one in fetched[1:]:
        assert one.seconds["connect"] > 0.4
        assert one.seconds["first_byte"] == one.seconds["body"] == 0.0


def test_tls_that_hangs_is_no_connection(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake without an answer is of the connection; a request without one is not."""
    monkeypatch.setattr(transport, "CONNECT_S", 0.5)
    web.pages["silent"] = silent
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        hangs = f"https://127.0.0.1:{listener.getsockname()[1]}/a"
        fetched = fetch(tmp_path, hangs, web.link("silent"), deadline_s=1.0)
    assert ends(fetched) == ["connect", "timeout"]
    assert fetched[0].seconds["connect"] > 0.4 and fetched[0].seconds["first_byte"] == 0.0
    assert fetched[1].seconds["connect"] < 0.4 < fetched[1].seconds["first_byte"]


@pytest.mark.parametrize("respect_robots", [True, False])
def test_where_nobody_was_there_is_no_second_attempt(
    web: Web, nobody: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, respect_robots: bool
) -> None:
    """A silent host and a name without address cost once; one that refuses is asked again."""
    monkeypatch.setattr(errand, "_FIRST_WAIT_S", 0.1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.2", 0))
        links = [
            f"http://127.0.0.3:{nobody}/a",
            "http://none.test/a",
            f"http://127.0.0.2:{closed.getsockname()[1]}/a",
            f"http://127.0.0.1:{nobody}/a",  # a host that has answered at another port
        ]
        fetch_first = web.link("a")
        slow = moved(links[3])
        web.pages["slow"] = lambda connection: (time.sleep(0.2), connection.sendall(slow))
        fetched = fetch(
            tmp_path,
            *links[:3],
            web.link("slow"),
            fetch_first,
            retries=1,
            respect_robots=respect_robots,
        )
    assert ends(fetched) == ["connect", "dns", "connect", "connect", None]
    assert [one.attempts for one in fetched] == [1, 1, 2, 2, 1]


def test_dead_hosts_hold_up_nobody_who_has_answered(web: Web, nobody: int, tmp_path: Path) -> None:
    """Forty of them over four connections: all of a living host's pictures come meanwhile."""
    table = names(**{f"dead{n}": "127.0.0.1" for n in range(40)}, living="127.0.0.1")
    dead = [f"http://dead{n}.d{n}.test:{nobody}/a" for n in range(40)]
    living = [web.link(f"a?{n}", "living.test") for n in range(60)]
    links = [*living[:1], *dead, *living[1:]]
    run = Run(tmp_path, links, lookup=table, connections=4, respect_robots=False)
    fetched = run.end()
    assert Counter(ends(fetched)) == {None: 60, "connect": 40}
    failed = [place for place, one in enumerate(run.got) if one.failure]
    assert failed[0] >= 30  # at most half of the connections wait at a time: the rest goes on
    assert Counter(one.failure for one in run.got[:64])["connect"] <= 4


def test_who_only_says_429_is_soon_left_alone(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 200 URLs few are asked for: the rest ends at the fourth silence, for a later build."""
    monkeypatch.setattr(breaker, "FIRST_SILENCE_S", 0.1)
    web.pages["no"] = reply(b"", "429 No")
    limits = Limits(tmp_path / "limits", per_s=0, connections=2)
    began = time.monotonic()
    links = [web.link(f"no?{n}") for n in range(200)]
    fetched = fetch(tmp_path, *links, limits=limits, retries=1, respect_robots=False)
    assert ends(fetched) == ["throttled"] * 200 and FAILURES["throttled"].retryable
    assert time.monotonic() - began < 8.0
    assert web.asked["no"] < 25
    assert sum(one.attempts for one in fetched) < 225


def test_a_long_crawl_delay_holds_a_part_for_so_long_and_no_longer(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would wait for longer than the budget ends at once, and says why."""
    monkeypatch.setattr(queues, "LONGEST_CRAWL_S", 1.1)
    web.pages["robots.txt"] = reply(b"User-agent: *\nCrawl-delay: 0.5\n")
    began = time.monotonic()
    fetched = fetch(tmp_path, *(web.link(f"a?{n}") for n in range(50)), retries=1)
    assert 0.9 < time.monotonic() - began < 4.0
    late = [one for one in fetched if one.failure]
    assert len(late) in (46, 47) and {(one.failure, one.attempts) for one in late} == {
        ("throttled", 1)
    }
    assert "0.5 s between requests" in (late[0].message or "")
    assert "Crawl-delay" in (late[0].message or "")


class Slowly:
    """Limits that let a host's second request wait for ever."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def try_start(self, _domain: str, host: str, _delay_s: float) -> Start:
        self.asked[host] += 1
        return Start(self.asked[host] == 1, 0.0 if self.asked[host] == 1 else 1e6)


def test_a_blocked_host_does_not_hold_up_a_sister_that_comes_later() -> None:
    """Of a domain that waits for one host the next host's errand starts when it is added."""
    waiting = queues.Queues(Slowly())  # type: ignore[arg-type]
    rows = [(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4, "c")]
    taken = []
    for row, host in rows:
        link = urls.parse(f"http://{host}.site.test/")
        assert link is not None
        waiting.add(errand.Errand(row, link, 5.0), 100.0)
        while (found := waiting.take(100.0)) is not None:
            taken.append(found[0].row)
    assert taken == [0, 2, 4]


def test_a_body_that_is_asked_for_twice_counts_twice(web: Web, tmp_path: Path) -> None:
    """The second request, without an encoding, keeps to the rate as any other does."""
    asked: list[float] = []

    def utf_8(connection: socket.socket) -> None:
        asked.append(time.monotonic())
        connection.sendall(reply(b"picture", Content_Encoding="utf-8"))

    web.pages["x"] = utf_8
    limits = Limits(tmp_path / "limits", per_s=2, connections=0)
    [one] = fetch(tmp_path, web.link("x"), limits=limits, respect_robots=False)
    assert (one.body, one.attempts) == (b"picture", 1)
    assert asked[1] - asked[0] > 0.25


def test_retry_after_can_be_left_unheeded(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With longest_retry_after_s = 0.5 a minute is half a second; with 0 it is nothing."""
    monkeypatch.setattr(errand, "_FIRST_WAIT_S", 0.1)
    for longest_s in (0.0, 0.5):
        first = [reply(b"", "429 No", Retry_After="60"), reply(b"picture")]
        web.pages["x"] = lambda connection, first=first: connection.sendall(first.pop(0))
        folder = tmp_path / str(longest_s)
        limits = Limits(folder, per_s=0, connections=0, longest_silence_s=longest_s)
        began = time.monotonic()
        options = {"retries": 1, "longest_retry_after_s": longest_s, "respect_robots": False}
        [one] = fetch(folder, web.link("x"), limits=limits, **options)
        assert (one.failure, one.attempts) == (None, 2)
        assert longest_s <= time.monotonic() - began < longest_s + 0.5


def test_every_hop_can_forbid(web: Web, tmp_path: Path) -> None:
    """A redirect with X-Robots-Tag is not followed; that of a robots.txt is of no concern."""
    web.pages |= {
        "no": reply(b"", "302 Found", Location="a", X_Robots_Tag="noai"),
        "yes": reply(b"", "302 Found", Location="a", X_Robots_Tag="otherbot: noai"),
        "robots.txt": reply(b"", X_Robots_Tag="noai, noindex"),
    }
    fetched = fetch(tmp_path, web.link("no"), web.link("yes"))
    assert ends(fetched) == ["opt_out", None] and web.asked["a"] == 1
    told = json.loads(fetched[0].opt_out or "")
    assert told["where"] == web.link("no") and "noai" in told["rule"]


def test_a_stopped_fetch_tells_nothing_of_its_hosts(web: Web, tmp_path: Path) -> None:
    """One failure before and one after make two in a row, whatever was broken off between."""
    web.pages["silent"] = silent
    limits = Limits(tmp_path / "limits", per_s=0, connections=0, breaker_failures=2)

    def fail() -> None:
        assert limits.try_start("127.0.0.1", "127.0.0.1").go
        limits.ended("127.0.0.1", "127.0.0.1", "failed")

    fail()
    run = Run(tmp_path, [web.link("silent")], limits=limits, respect_robots=False)
    time.sleep(0.4)
    assert run.fetcher.figures()["in_flight"] == 1
    run.stop.set()
    run.end()
    fail()
    assert not limits.try_start("127.0.0.1", "127.0.0.1").go


def test_a_lookup_has_no_more_time_than_all_the_rest(tmp_path: Path) -> None:
    """A resolver that is silent costs the deadline where that is under ten seconds."""
    release = threading.Event()

    def hangs(*_: Any, **__: Any) -> list[Any]:
        release.wait(30)
        return []

    began = time.monotonic()
    fetched = fetch(tmp_path, "http://hangs.test/", lookup=hangs, deadline_s=0.5)
    release.set()
    assert ends(fetched) == ["dns"] and time.monotonic() - began < 2.0


def test_figures_tell_what_goes_on(web: Web, tmp_path: Path) -> None:
    """While it runs another thread sees requests in flight, and afterwards the slowest host."""
    go_on = threading.Event()

    def slow(connection: socket.socket) -> None:
        go_on.wait(10)
        connection.sendall(reply(b"x"))

    web.pages["slow"] = slow
    run = Run(tmp_path, [web.link("slow"), web.link("a")], respect_robots=False)
    time.sleep(0.3)
    assert run.fetcher.figures()["in_flight"] == 1
    go_on.set()
    run.end()
    figures = run.fetcher.figures()
    assert figures["in_flight"] == figures["waiting_polite"] == 0
    [[host, seconds]] = figures["slowest"]
    assert host == "127.0.0.1" and seconds > 0.1


def test_every_end_of_the_course_is_a_known_failure() -> None:
    """The names by which the transport and the course fail are all in FAILURES."""
    assert set(transfer._FAILURES.values()) <= set(FAILURES)
    assert set(answers._HOST_FAILED) <= set(FAILURES)
