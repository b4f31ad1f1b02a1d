"""Serve a folder of pictures from several loopback addresses that behave like the web's hosts.

A file lies at ``folder/<address>/<name>`` and is served as ``http://<address>:<port>/<name>``. The
first part of a longer path says how its host behaves: ``/redirect/<name>`` sends the client to the
next address, ``/slow/<name>`` takes its time, ``/hang/<name>`` never answers,
``/placeholder/<name>`` gives every link the file ``placeholder.jpg``; what is missing is a 404.
"""

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Thread

from breadth.loaders.errors import Failed, Refused

SLOW_S = 0.4
HANG_S = 60.0  # longer than any client should wait
PLACEHOLDER = "placeholder.jpg"
_TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
_TYPES[".svg"] = "image/svg+xml"
# How a conversation ends: the client leaves or talks nonsense, or the servers stop.
_GONE = (
    ConnectionError,
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
    asyncio.CancelledError,
)
_CANNOT_BIND = (errno.EADDRNOTAVAIL, errno.EACCES)


def loopback(n_hosts: int) -> list[str]:
    """Return the addresses 127.0.0.2 and on, one per host."""
    return [f"127.0.0.{2 + i}" for i in range(n_hosts)]


def free_port(addresses: Sequence[str]) -> int:
    """Return a port that is free on every address now; store it, so that links stay valid."""
    for _ in range(20):
        with ExitStack() as opened:
            try:
                first = opened.enter_context(closing(_bind(addresses[0], 0)))
                port: int = first.getsockname()[1]
                for address in addresses[1:]:
                    opened.enter_context(closing(_bind(address, port)))
                return port
            except OSError as error:
                if error.errno in _CANNOT_BIND:
                    raise Refused(_no_loopback(addresses)) from error
    raise Failed("found no port that is free on all loopback addresses; run the same command again")


def _no_loopback(addresses: Sequence[str]) -> str:
    return f"cannot listen on {addresses[0]} ... {addresses[-1]}; the demo needs Linux's loopback"


def _bind(address: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener


class Servers:
    """The hosts of one folder; ``requests`` counts what was asked, by behaviour."""

    def __init__(self, folder: Path, addresses: Sequence[str], port: int) -> None:
        self.folder, self.addresses, self.port = folder, list(addresses), port
        self.requests: Counter[str] = Counter()

    @property
    def base_urls(self) -> list[str]:
        """One base address per host, without a slash at the end."""
        return [f"http://{address}:{self.port}" for address in self.addresses]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until either side closes it."""
        address = writer.get_extra_info("sockname")[0]
        with suppress(*_GONE):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                if len(line) != 3:
                    break
                writer.write(await self._answer(address, line[1], with_body=line[0] != "HEAD"))
                await writer.drain()
                if line[2] == "HTTP/1.0" or b"connection: close" in head.lower():
                    break
        writer.close()

    async def _answer(self, address: str, path: str, with_body: bool) -> bytes:
        behaviour, _, name = path.lstrip("/").rpartition("/")
        self.requests[behaviour or "file"] += 1
        if behaviour == "redirect":
            after = self.addresses[(self.addresses.index(address) + 1) % len(self.addresses)]
            return _response("302 Found", b"", f"Location: http://{after}:{self.port}/{name}\r\n")
        if behaviour in ("slow", "hang"):
            await asyncio.sleep(SLOW_S if behaviour == "slow" else HANG_S)
        file = self.folder / address / (PLACEHOLDER if behaviour == "placeholder" else name)
        # ``name`` holds no slash, so it cannot lead out of the host's folder; ".." is no file.
        if not file.is_file():
            return _response("404 Not Found", b"not found", "Content-Type: text/plain\r\n")
        kind = _TYPES.get(file.suffix.lower(), "application/octet-stream")
        response = _response("200 OK", file.read_bytes(), f"Content-Type: {kind}\r\n")
        return response if with_body else response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _response(status: str, body: bytes, headers: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


@contextmanager
def serve(folder: Path, addresses: Sequence[str], port: int) -> Iterator[Servers]:
    """Serve ``folder`` while the block runs, from a thread of this process.

    Raises Failed where the port is taken: links name it, so another one would not do.
    """
    servers = Servers(folder, addresses, port)
    with ExitStack() as opened:
        try:
            listeners = [opened.enter_context(closing(_bind(a, port))) for a in addresses]
        except OSError as error:
            if error.errno in _CANNOT_BIND:
                raise Refused(_no_loopback(addresses)) from error
            raise Failed(
                f"port {port}, which the links in {folder.parent} name, is in use; "
                "run the same command again when it is free, or give another --out"
            ) from error
        with _loop_in_thread() as loop:
            asyncio.run_coroutine_threadsafe(_start(servers, listeners), loop).result()
            try:
                yield servers
            finally:
                asyncio.run_coroutine_threadsafe(_stop(), loop).result()


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="demo servers", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(servers: Servers, sockets: list[socket.socket]) -> None:
    for listener in sockets:
        await asyncio.start_server(servers.converse, sock=listener, backlog=512)


async def _stop() -> None:
    """Cancel every conversation, hanging ones too."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
