"""What a hostile case is, and the ways to answer that several cases share."""

import asyncio
from dataclasses import dataclass

from .hostile_pictures import SIZE, jpeg
from .hostile_server import MISSING, Answer, Behaviour, Request, Site, Wire


@dataclass(frozen=True)
class Case:
    """One behaviour and what a careful fetcher makes of it: ``failure`` None is success.

    ``size`` is the original size that must be found on success, which tells a sound answer from a
    forged one; ``asked`` the targets that must be asked for, in order, where that is the point.
    ``colour`` is what the picture must be all over, in RGB. ``timed`` marks those that last until
    the deadline.
    """

    site: Site
    failure: str | None
    url: str | None = "{here}/picture.jpg"
    size: tuple[int, int] = SIZE
    asked: tuple[str, ...] | None = None
    colour: tuple[int, int, int] | None = None
    timed: bool = False

    @property
    def name(self) -> str:
        """Return the case's name, which is its site's."""
        return self.site.name


def case(
    name: str,
    answer: Answer = MISSING,
    failure: str | None = None,
    *,
    robots: Answer = MISSING,
    there: Answer = MISSING,
    there_robots: Answer = MISSING,
    **facts: object,
) -> Case:
    """Return a case; its site is made of the answers."""
    site = Site(name, answer, robots, there, there_robots)
    return Case(site, failure, **facts)  # type: ignore[arg-type]


def ok(body: bytes, *headers: str, kind: str = "image/jpeg") -> bytes:
    """Return a sound answer with ``body``, and more headers."""
    return answer("200 OK", f"Content-Type: {kind}", *headers, body=body)


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    """Return an answer that names its length, unless a header speaks of it, and then closes."""
    framed = any(h.lower().startswith(("content-length", "transfer-enc")) for h in headers)
    framed |= b"{here}" in body  # its length is known only when that is filled in
    length = () if framed else (f"Content-Length: {len(body)}",)
    lines = [f"HTTP/1.1 {status}", *length, *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def leads(location: str, status: str = "302 Found", *headers: str) -> bytes:
    """Return a redirect."""
    return answer(status, f"Location: {location}", *headers)


def picture() -> bytes:
    """Return the answer that most cases end well with."""
    return ok(jpeg())


def paths(default: Answer = MISSING, **answers: Answer) -> Behaviour:
    """Answer by the last word of the path: ``paths(a=..., b=...)`` is for /a and /b."""

    async def behave(wire: Wire, request: Request) -> None:
        word = request.target.partition("?")[0].rpartition("/")[2].partition(".")[0]
        act = answers.get(word, default)
        await (wire.send(act) if isinstance(act, bytes) else act(wire, request))

    return behave


def drip(data: bytes, every_s: float = 0.1) -> Behaviour:
    """Send one byte at a time, each in good time, all of them in none."""

    async def behave(wire: Wire, _: Request) -> None:
        for at in range(len(data)):
            await wire.send(data[at : at + 1])
            await asyncio.sleep(every_s)

    return behave


def endless(head: bytes, block: bytes) -> Behaviour:
    """Send a head and then the same block until the client has had enough."""

    async def behave(wire: Wire, _: Request) -> None:
        await wire.send(head)
        while not wire.writer.is_closing():
            wire.writer.write(block)
            await wire.writer.drain()
            await asyncio.sleep(0.002)

    return behave


def then_silence(data: bytes = b"") -> Behaviour:
    """Send something and then nothing, with the connection open."""

    async def behave(wire: Wire, _: Request) -> None:
        await wire.send(data)
        await wire.hang()

    return behave


def then_reset(data: bytes = b"") -> Behaviour:
    """Send something, let it arrive, then reset the connection."""

    async def behave(wire: Wire, _: Request) -> None:
        await wire.send(data)
        await asyncio.sleep(0.05)  # else the reset overtakes what was sent
        wire.reset()

    return behave


def then_kept(data: bytes) -> Behaviour:
    """Answer and wait for another request on the same connection."""

    async def behave(wire: Wire, _: Request) -> None:
        await wire.send(data.replace(b"Connection: close\r\n", b""))
        wire.keep = True

    return behave


def in_turn(*answers: Answer) -> Behaviour:
    """Answer the first request with the first answer, and so on; the last one stays."""
    left = list(answers)

    async def behave(wire: Wire, request: Request) -> None:
        act = left.pop(0) if len(left) > 1 else left[0]
        await (wire.send(act) if isinstance(act, bytes) else act(wire, request))

    return behave
