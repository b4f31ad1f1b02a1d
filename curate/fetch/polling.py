"""Wait for sockets and for other threads at once, as libcurl's event interface wants it."""

import os
import select
import threading
from contextlib import suppress

_IN, _OUT, _ERROR = 1, 2, 4  # libcurl's names for what a socket is ready for
_REMOVE = 4  # and what it says when it is done with one


class Poll:
    """The sockets of libcurl and a pipe by which other threads wake the one that waits."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._lock = threading.Lock()
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(self._mouth, False)
        self._epoll.register(self._ear, select.EPOLLIN)
        self._closed = False

    def wake(self) -> None:
        """End a wait; any thread may call it at any time, also after close()."""
        with self._lock, suppress(BlockingIOError):  # a full pipe wakes as well
            if not self._closed:
                os.write(self._mouth, b".")

    def watch(self, descriptor: int, wanted: int) -> None:
        """Wait for a socket to be readable (1), writable (2), either (3), or no more (4)."""
        if wanted == _REMOVE:
            self._watched.discard(descriptor)
            with suppress(OSError):  # closed already, which is as good
                self._epoll.unregister(descriptor)
            return
        mask = (select.EPOLLIN if wanted & _IN else 0) | (select.EPOLLOUT if wanted & _OUT else 0)
        if descriptor in self._watched:
            self._epoll.modify(descriptor, mask)
        else:
            self._epoll.register(descriptor, mask)
            self._watched.add(descriptor)

    def wait(self, timeout_s: float) -> list[tuple[int, int]]:
        """Return the sockets that are ready and for what, in libcurl's words."""
        ready = []
        for descriptor, events in self._epoll.poll(timeout_s):
            if descriptor == self._ear:
                with suppress(BlockingIOError):
                    os.read(self._ear, 4096)
                continue
            bits = _IN if events & select.EPOLLIN else 0
            bits |= _OUT if events & select.EPOLLOUT else 0
            bits |= _ERROR if events & (select.EPOLLERR | select.EPOLLHUP) else 0
            ready.append((descriptor, bits))
        return ready

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            self._closed = True
            self._epoll.close()
            os.close(self._ear)
            os.close(self._mouth)
