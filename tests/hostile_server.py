"""A loopback server whose every site has an address, a port and bad manners of its own.

Linux answers on all of 127.0.0.0/8, so that each site is a host and a domain by itself: what one
does to the client's limits, robots and breakers touches no other.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .hostile_tls import context

MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """What a client asked of a site: the target as sent, the names of the headers in lower case."""

    site: str
    origin: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for key, value in self.headers if key == name]


class Wire:
    """One connection to a client, for behaviours that are more than some bytes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, names: Mapping[str, str]
    ) -> None:
        self.reader, self.writer, self.names = reader, writer, names
        self.keep = False  # whether to read another request when the behaviour is done

    async def send(self, data: bytes) -> None:
        """Send bytes, with every ``{here}`` and ``{there}`` replaced by a site's origin."""
        for name, origin in self.names.items():
            data = data.replace(b"{%s}" % name.encode(), origin.encode())
        self.writer.write(data)
        await self.writer.drain()

    async def hang(self) -> None:
        """Say nothing more until the client goes away."""
        while await self.reader.read(65_536):
            pass

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Wire, Request], Awaitable[None]]
Answer = bytes | Behaviour


@dataclass(frozen=True)
class Site:
    """What one host does: its answer, its robots.txt, and those of the second host beside it."""

    name: str
    answer: Answer = MISSING
    robots: Answer = MISSING
    there: Answer = MISSING
    there_robots: Answer = MISSING
    tls: str = ""  # a kind of certificate
    ipv6: bool = False
    deaf: bool = False  # bound, but it never listens


@dataclass
class Hostile:
    """A running server: what stands for its sites' hosts, and what they were asked."""

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    connections: Counter[tuple[str, str]] = field(default_factory=Counter)  # by site and host

    def link(self, site: str, template: str) -> str:
        """Fill ``{here}``, ``{there}`` and ``{port}`` in."""
        for name, value in self.names[site].items():
            template = template.replace(f"{{{name}}}", value)
        return template

    def requests(self, site: str) -> list[Request]:
        """Return what a site was asked, robots.txt left out, in order."""
        return [r for r in self.asked if r.site == site and r.target != "/robots.txt"]


@contextlib.contextmanager
def serving(sites: list[Site]) -> Iterator[Hostile]:
    """Serve the sites from a thread; ends with every connection."""
    hostile, loop, up = Hostile(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        servers = []
        for number, site in enumerate(sites):
            servers += await _open(hostile, site, number)
        up.set()
        try:
            await asyncio.Event().wait()
        finally:
            for server in servers:
                server.close()

    def run() -> None:
        task = loop.create_task(serve())
        loop.set_exception_handler(lambda *_: None)  # clients leave in the middle all the time
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        while rest := asyncio.all_tasks(loop):
            loop.run_until_complete(asyncio.wait(rest))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert up.wait(30), "the hostile server did not come up"
    try:
        yield hostile
    finally:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        thread.join(30)


async def _open(hostile: Hostile, site: Site, number: int) -> list[asyncio.AbstractServer]:
    """Open a site's two hosts; a server may be deaf, and then only its port is taken."""
    names = hostile.names[site.name] = {}
    own = f"{number // 200}.{number % 200 + 1}"
    hosts = ["::1"] if site.ipv6 else [f"127.77.{own}", f"127.78.{own}"]
    answers = ((site.answer, site.robots), (site.there, site.there_robots))
    servers = []
    port = 0  # the second host has the first one's: a name may mean either
    for host, name, (answer, robots) in zip(hosts, ("here", "there"), answers, strict=False):
        raw = socket.socket(socket.AF_INET6 if site.ipv6 else socket.AF_INET)
        raw.bind((host, port))
        port = raw.getsockname()[1]
        scheme = "https" if site.tls else "http"
        shown = f"[{host}]" if site.ipv6 else host
        names |= {name: f"{scheme}://{shown}:{port}", f"{name}_port": str(port), f"{name}_ip": host}
        if not site.deaf:
            tls = context(site.tls, host) if site.tls else None
            talk = _talk(hostile, site, name, answer, robots)
            servers.append(await asyncio.start_server(talk, sock=raw, ssl=tls, backlog=64))
    return servers


def _talk(
    hostile: Hostile, site: Site, name: str, answer: Answer, robots: Answer
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return what a host does with a connection: read a request, misbehave, maybe once more."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names = hostile.names[site.name]
        hostile.connections[site.name, name] += 1
        wire = Wire(reader, writer, names)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                first = await reader.readexactly(1)
                if first == b"\x16":  # TLS where none is spoken
                    await wire.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    break
                head = first + await reader.readuntil(b"\r\n\r\n")
                request = _request(site.name, names[name], head)
                hostile.asked.append(request)
                wire.keep = False
                act = robots if request.target == "/robots.txt" else answer
                await (wire.send(act) if isinstance(act, bytes) else act(wire, request))
                if not wire.keep:
                    break
        writer.close()

    return talk


def _request(site: str, origin: str, head: bytes) -> Request:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target = [*first.split(" "), ""][:2]
    headers = [line.partition(":")[::2] for line in lines]
    return Request(site, origin, method, target, tuple((k.lower(), v.strip()) for k, v in headers))
