"""A small object store on loopback that counts requests and bytes, and fails when told to.

It speaks as much of S3 as reading takes (ListObjectsV2, HEAD, GET with Range), unsigned, and is a
plain web server with ranges and lists for whoever does not ask for a list of objects.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DATE = "Mon, 02 Jan 2023 03:04:05 GMT"


class Asked(NamedTuple):
    """A request: its method, the key, and the range that was sent, or -1."""

    method: str
    key: str
    start: int
    stop: int


@dataclass
class Store:
    """What the server holds by ``bucket/key``, what it was asked for, and how it misbehaves."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    failures: int = 0  # so many of the next GETs are answered 503
    cut: bool = False  # bodies of ranges end early
    ranges: bool = True
    delay_s: float = 0.0
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, folder: Path, prefix: str) -> None:
        """Hold every file of a folder under a prefix."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[f"{prefix}/{path.relative_to(folder)}"] = path.read_bytes()

    def gets(self, suffix: str) -> list[Asked]:
        """Return the GETs of keys with a suffix."""
        return [a for a in self.asked if a.method == "GET" and a.key.endswith(suffix)]

    def sent(self, suffix: str) -> int:
        """Return the bytes that were sent of keys with a suffix."""
        return sum(a.stop - a.start for a in self.gets(suffix))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request as under way."""
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def fails(self) -> bool:
        """Say whether this GET shall fail."""
        with self._lock:
            self.failures -= 1
            return self.failures >= 0


def etag(body: bytes) -> str:
    """Return a version of a file, from its ends: all of a shard would take longer than to send."""
    return md5(b"%d" % len(body) + body[:4096] + body[-4096:]).hexdigest()


def listing(store: Store, bucket: str, query: dict[str, list[str]]) -> bytes:
    """Answer ListObjectsV2 with a delimiter."""
    prefix = query.get("prefix", [""])[0]
    folders, entries = set(), []
    for path, body in sorted(store.files.items()):
        key = path.removeprefix(f"{bucket}/")
        if not path.startswith(f"{bucket}/{prefix}"):
            continue
        rest = key[len(prefix) :]
        if "/" in rest and "delimiter" in query:
            folders.add(prefix + rest.partition("/")[0] + "/")
            continue
        entries.append(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size>"
            f"<ETag>&quot;{etag(body)}&quot;</ETag>"
            "<LastModified>2023-01-02T03:04:05.000Z</LastModified></Contents>"
        )
    common = "".join(f"<CommonPrefixes><Prefix>{f}</Prefix></CommonPrefixes>" for f in folders)
    count = len(entries) + len(folders)
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount>"
        f"<IsTruncated>false</IsTruncated>{''.join(entries)}{common}</ListBucketResult>"
    ).encode()


def links(store: Store, folder: str) -> bytes:
    """Answer as a web server that lists a folder."""
    names = sorted(path.removeprefix(folder) for path in store.files if path.startswith(folder))
    return "".join(f'<a href="{name}">{name}</a>\n' for name in names if "/" not in name).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers for the store of its server."""

    server: "Server"
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        with self.server.store.counted():
            time.sleep(self.server.store.delay_s)
            self.answer(True)

    def answer(self, with_body: bool) -> None:
        parts = urlsplit(self.path)
        key, query = unquote(parts.path).lstrip("/"), parse_qs(parts.query)
        if "list-type" in query:
            self.send(
                200, listing(self.server.store, key.strip("/"), query), "application/xml", {}, True
            )
        elif key in self.server.store.files:
            self.send_file(key, self.server.store.files[key], with_body)
        elif key.endswith("/") and (body := links(self.server.store, key)):
            self.send(200, body, "text/html", {}, with_body)
        else:
            self.server.store.asked.append(Asked(self.command, key, -1, -1))
            self.send(404, b"", "text/plain", {}, with_body)

    def send_file(self, key: str, body: bytes, with_body: bool) -> None:
        if with_body and self.server.store.fails():
            self.server.store.asked.append(Asked("failed", key, -1, -1))
            self.send(503, b"", "text/plain", {}, True)
            return
        start, stop, headers = 0, len(body), {"ETag": f'"{etag(body)}"'}
        wanted = self.headers.get("Range")
        if wanted and self.server.store.ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            start, stop = int(first), min(len(body), int(last) + 1)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
            stop -= 1 if self.server.store.cut else 0
        if self.server.store.ranges:
            headers["Accept-Ranges"] = "bytes"
        self.server.store.asked.append(Asked(self.command, key, start, stop))
        status = 206 if "Content-Range" in headers else 200
        self.send(status, body[start:stop], "application/octet-stream", headers, with_body)

    def send(
        self, status: int, body: bytes, kind: str, headers: dict[str, str], with_body: bool
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Last-Modified": DATE, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    """Serves one store, a thread for every connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: Store) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = store

    def handle_error(self, *_: object) -> None:
        return  # a client may hang up


@contextmanager
def serve(store: Store) -> Iterator[Store]:
    """Serve a store on a free port of loopback."""
    server = Server(store)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
