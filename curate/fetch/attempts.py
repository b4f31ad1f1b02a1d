"""Remember across processes how often a part's fetch was cut off by the death of its worker."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 2
"""Deaths after which a part decodes in a child process, which may die of a picture."""


@contextmanager
def attempt(folder: Path) -> Iterator[int]:
    """Count this attempt as begun, and yield how many before it were cut off.

    An attempt is a file that its process holds locked. A file that nobody holds is of a process
    that died, by a picture that its decoder cannot bear or by other hands: the kernel lets go of
    the lock either way. An attempt that ends with an exception is no death; one that ends well
    forgets them all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deaths = sum(_unheld(file) for file in folder.glob("*.attempt"))
    own = folder / f"{secrets.token_hex(8)}.attempt"
    with own.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield deaths
        finally:
            own.unlink(missing_ok=True)
        for dead in folder.glob("*.attempt"):  # only after a good end: then the deaths are over
            if _unheld(dead):
                dead.unlink(missing_ok=True)


def _unheld(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
