"""Decode in a child process, which may hang, eat memory or die of a picture without harm."""

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import IO

from breadth.loaders.errors import Failed

from . import picture
from .picture import Picture, Shape

MEMORY_BYTES = 4 * 2**30
"""Address space of the child: enough for max_pixels in every format, and an end to bombs."""

START_S = 60.0
"""Time for the child to load its libraries, on a machine that has other work."""

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in linux/prctl.h


class Child:
    """A process that decodes one picture at a time; it is started when the first one comes."""

    def __init__(self, shape: Shape, deadline_s: float) -> None:
        self._shape, self._deadline_s = shape, deadline_s
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, body: bytes) -> Picture:
        """Decode a picture; where the child dies of it twice, that is its failure.

        A second try in a fresh child tells a picture's fault from that of the one before it.
        Raises Failed where no child can be started.
        Cost: about 0.2 ms a picture more than in this process, and 0.4 s for each new child.
        """
        found = self._try(body)
        if found.failure == "crash":
            found = self._try(body)
        return found

    def _try(self, body: bytes) -> Picture:
        process = self._process or self._start()
        began = time.perf_counter()  # its start is not the picture's
        try:
            _write(process.stdin, body)
            facts = json.loads(_read(process.stdout, began + self._deadline_s))
            image = _read(process.stdout, began + self._deadline_s)
        except TimeoutError:
            self.close()
            return _failed("slow_picture", f"not decoded in {self._deadline_s:g} s", began)
        except (EOFError, OSError):
            self.close()
            return _failed("crash", "the decoder died of it", began)
        return Picture(image or None, *facts)

    def _start(self) -> subprocess.Popen[bytes]:
        options = json.dumps(asdict(self._shape))  # infinity is Infinity on both sides
        self._process = subprocess.Popen(  # -P: no module of the working directory
            [sys.executable, "-P", "-m", __name__, options, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            _read(self._process.stdout, time.perf_counter() + START_S)
        except (EOFError, OSError) as error:  # TimeoutError is one
            self.close()
            raise Failed(f"no decoder could be started beside this process: {error!r}") from error
        return self._process

    def close(self) -> None:
        """Stop the child; the next picture starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _failed(failure: str, message: str, began: float) -> Picture:
    spent = time.perf_counter() - began
    return Picture(None, None, None, None, None, None, failure, message, spent, 0.0, 0.0)


def _write(pipe: IO[bytes] | None, block: bytes) -> None:
    assert pipe is not None
    pipe.write(len(block).to_bytes(8, "little") + block)
    pipe.flush()


def _read(pipe: IO[bytes] | None, until: float) -> bytes:
    """Read one block; raises TimeoutError at ``until``, EOFError where the other side is gone."""
    length = int.from_bytes(_read_exactly(pipe, 8, until), "little")
    return _read_exactly(pipe, length, until)


def _read_exactly(pipe: IO[bytes] | None, length: int, until: float) -> bytes:
    assert pipe is not None
    waiting = select.poll()  # select() knows no descriptor beyond 1,024
    waiting.register(pipe, select.POLLIN)
    block = bytearray()
    while len(block) < length:
        left_s = max(0.0, until - time.perf_counter())
        if not waiting.poll(1000 * left_s):
            raise TimeoutError
        piece = pipe.raw.read(length - len(block))  # type: ignore[attr-defined]
        if not piece:
            raise EOFError
        block += piece
    return bytes(block)


def serve(source: IO[bytes], sink: IO[bytes], process: Callable[[bytes, Shape], Picture]) -> None:
    """Answer with a picture for each body until the source ends."""
    shape = Shape(**json.loads(sys.argv[1]))
    _write(sink, b"")  # ready
    while head := source.read(8):
        image, *facts = process(source.read(int.from_bytes(head, "little")), shape)
        _write(sink, json.dumps(facts).encode())
        _write(sink, image or b"")


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, in whatever picture it then is."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it was over before
        sys.exit()


if __name__ == "__main__":
    _die_with(int(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer, picture.process)
