"""Hostile cases of HTTP/2: frames written by hand, as no server would."""

import asyncio
import struct
from collections.abc import Awaitable, Callable

from .hostile_case import Case
from .hostile_pictures import jpeg
from .hostile_server import Behaviour, Request, Site, Wire

DATA, HEADERS, RESET, SETTINGS, PUSH, GOAWAY, CONTINUATION = 0, 1, 3, 4, 5, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
OK, NOT_FOUND = b"\x88", b"\x8d"  # HPACK's static table: the whole header block
HUFFMAN = "011000 101100 00111 100011 00111 01001 01000 010111 01001 1111001 01001"
ROBOTS = int(HUFFMAN.replace(" ", "") + "1" * 3, 2).to_bytes(8, "big")  # "/robots.txt" in HPACK
Act = Callable[[Wire, int], Awaitable[None]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def speaks(act: Act) -> Behaviour:
    """Speak HTTP/2: robots.txt is not there, and ``act`` has every other request."""

    async def behave(wire: Wire, _: Request) -> None:
        await wire.reader.readexactly(len(b"SM\r\n\r\n"))
        await wire.send(frame(SETTINGS, 0, 0))
        while head := await wire.reader.readexactly(9):
            payload = await wire.reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            if kind == SETTINGS and not flags & ACK:
                await wire.send(frame(SETTINGS, ACK, 0))
            elif kind == HEADERS:
                if ROBOTS in payload:
                    await wire.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, NOT_FOUND))
                else:
                    await act(wire, stream)

    return behave


def sends(*frames: tuple[int, int, bytes]) -> Act:
    """Answer with frames on the request's stream."""

    async def act(wire: Wire, stream: int) -> None:
        await wire.send(b"".join(frame(kind, flags, stream, data) for kind, flags, data in frames))

    return act


def on_connection(data: bytes) -> Act:
    """Answer with bytes that are of no stream, and hang up."""

    async def act(wire: Wire, _: int) -> None:
        await wire.send(data)
        wire.writer.close()

    return act


async def continues(wire: Wire, stream: int) -> None:
    """Begin a header block and never end it."""
    await wire.send(frame(HEADERS, 0, stream, OK))
    for _ in range(2_000):  # over TLS a writer is not always told that its reader has gone
        await wire.send(frame(CONTINUATION, 0, stream, b"\0\1a\1b" * 3_000))
        await asyncio.sleep(0.001)


async def says_nothing(_: Wire, __: int) -> None:
    """Take the request and leave it at that."""


def case(name: str, act: Act, failure: str | None = None, *, timed: bool = False) -> Case:
    """Return a case of a host that speaks HTTP/2 over TLS."""
    return Case(Site(f"h2_{name}", speaks(act), tls="h2"), failure, timed=timed)


LENGTH_999 = OK + b"\x0f\x0d\x03999"  # content-length, by its number in the static table
CASES = [
    case("sound", sends((HEADERS, END_HEADERS, OK), (DATA, END_STREAM, jpeg()))),
    case("silent", says_nothing, "timeout", timed=True),
    case("resets", sends((RESET, 0, b"\0\0\0\2")), "broken_off"),
    case(
        "resets_in_body",
        sends((HEADERS, 4, OK), (DATA, 0, jpeg()), (RESET, 0, b"\0\0\0\2")),
        "broken_off",
    ),
    case("refuses", sends((RESET, 0, b"\0\0\0\7")), "broken_off"),
    case("goes_away", on_connection(frame(GOAWAY, 0, 0, bytes(8))), "broken_off"),
    case("hangs_up", on_connection(b""), "broken_off"),
    case("junk", on_connection(b"\xff" * 500), "broken_off"),
    case("http_1", on_connection(b"HTTP/1.1 200 OK\r\n\r\n" + jpeg()), "broken_off"),
    case("pushes", sends((PUSH, END_HEADERS, b"\0\0\0\2" + OK)), "broken_off"),
    case("continues", continues, "protocol"),
    case("length_lie", sends((HEADERS, 4, LENGTH_999), (DATA, 1, jpeg()[:900])), "broken_off"),
    case("data_first", sends((DATA, END_STREAM, jpeg())), "timeout", timed=True),
]
