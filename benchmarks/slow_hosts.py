"""Hosts as the web has them: one that answers late, one that never does, one that drips."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

LATE_S = 0.1  # a round trip or two to another continent
DRIPS, DRIP_S = 8, 1.0  # pieces of a body, and the time between them
LATE, HANGING, DRIPPING = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class _Conversation(asyncio.Protocol):
    """One connection; ``address`` says how its host behaves."""

    def __init__(self, root: Path, address: str) -> None:
        self._root, self._address = root, address
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        assert isinstance(transport, asyncio.Transport)
        self._out = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete, after the host's time."""
        self._read += data
        loop = asyncio.get_running_loop()
        while b"\r\n\r\n" in self._read:
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode("latin-1")
            last = b"connection: close" in head.lower()
            if self._address != HANGING:
                loop.call_later(LATE_S, self._answer, path, last)

    def _answer(self, path: str, last: bool) -> None:
        body = (self._root / path.rpartition("/")[2]).read_bytes()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        self._out.write(head % len(body))
        drips = self._address == DRIPPING and path != "/robots.txt"
        step = -(-len(body) // DRIPS) if drips else len(body)
        loop = asyncio.get_running_loop()
        for number, start in enumerate(range(0, len(body), step)):
            end = last and start + step >= len(body)
            self._later(loop, number * DRIP_S, body[start : start + step], end)

    def _later(
        self, loop: asyncio.AbstractEventLoop, after_s: float, piece: bytes, end: bool
    ) -> None:
        def write() -> None:
            if not self._out.is_closing():
                self._out.write(piece)
                if end:
                    self._out.close()

        if after_s:
            loop.call_later(after_s, write)
        else:
            write()


async def _serve(root: Path, port: int) -> None:
    loop = asyncio.get_running_loop()
    for address in (LATE, HANGING, DRIPPING):
        await loop.create_server(
            lambda address=address: _Conversation(root, address),  # type: ignore[misc]
            address,
            port,
            backlog=4096,
        )
    await loop.create_server(asyncio.Protocol, "127.0.0.1", port)  # where one asks if it is up
    await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
