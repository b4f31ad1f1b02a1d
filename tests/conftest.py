"""What many tests share: a loopback server of drawn scenes that counts what it is asked for."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from breadth.loaders.scene_drawing import picture
from breadth.loaders.world import World, caption, scene

SCENES = 120
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command has it
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # transformers makes its models of random weights


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked gpu where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@dataclass
class Site:
    """A picture server: what it holds, and how often each path was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    robots: int = 0  # robots.txt is asked for once a build, and is no picture
    delay_s: float = 0.0

    def link(self, path: str) -> str:
        return f"{self.url}/{path}"


@pytest.fixture(scope="session")
def drawn() -> list[tuple[bytes, str]]:
    """Encoded pictures of 224 px with their captions."""
    world = World(seed=3)
    scenes = [scene(world, index) for index in range(SCENES)]
    return [(encode(picture(s, 224)), caption(s)) for s in scenes]


def encode(pixels: object, quality: int = 90) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])  # type: ignore[index]


def result(out: Path) -> dict[str, str]:
    """Every file of a build that a user keeps, by its hash."""
    files = [out / "manifest.json", *(out / "shards").iterdir(), *(out / "ledger").iterdir()]
    return {str(f.relative_to(out)): sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def site() -> Iterator[Site]:
    """An empty picture server on loopback."""
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            if path == "robots.txt":
                served.robots += 1
            else:
                served.asked[path] += 1
            if served.delay_s:
                threading.Event().wait(served.delay_s)
            body = served.files.get(path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256  # 32 fetching threads a worker come at once

    server = Server(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def pool(site: Site, drawn: list[tuple[bytes, str]], tmp_path: Path) -> Path:
    """A pool of links: clean pairs, exact duplicates, 404s, a repeated row and short captions."""
    rows = []
    for number, (body, words) in enumerate(drawn):
        site.files[f"{number}.jpg"] = body
        rows.append((site.link(f"{number}.jpg"), words))
    rows += [(site.link(f"gone{n}.jpg"), "a picture that is not there any more") for n in range(5)]
    for n in range(4):
        site.files[f"copy{n}.jpg"] = drawn[n][0]
        rows.append((site.link(f"copy{n}.jpg"), f"{drawn[n][1]} once again"))
    rows += rows[10:12]
    rows.append((site.link("20.jpg"), "too short"))
    urls, captions = zip(*rows, strict=True)
    file = tmp_path / "pool.parquet"
    pq.write_table(pa.table({"url": urls, "caption": captions}), file)
    return file


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def double() -> Iterator[None]:
    """Compute in float64, so that only the formula can make a difference."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: models this small lose more by waiting than they gain."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
