"""Read batches in a process of its own, so that its threads never hold up the training's.

The process is told which rows to put into which slot of shared memory, and answers when they are
there. The two talk in JSON: nothing that crosses is unpickled. Each ends when the other does.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import zlib
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np
from tokenizers import Tokenizer

from . import errors
from .arrow_arrays import integers
from .errors import BreadthError, Failed, Refused, ShardError
from .folder import Folder, open_folder
from .reader import Answer, Fault, Reader, ReaderThreads
from .shared_batches import SharedBatches, Sizes, make_file

ORPHAN_SECONDS = 1.0  # how often the process looks whether it still has its parent
PIECE_BYTES = 1 << 16
DYING_SECONDS = 10.0


class Channel:
    """Sends and receives messages, one JSON value a line; an interrupt loses none."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self._heard, self._sending = end, b"", threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; raises OSError where nobody listens any more."""
        with self._sending:
            self.end.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Wait for a message; None says that the other side has ended."""
        while b"\n" not in self._heard:
            try:
                piece = self.end.recv(PIECE_BYTES)
            except ConnectionResetError:
                return None
            if not piece:
                return None
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def is_silent(self, seconds: float) -> bool:
        """Say whether nothing came within some seconds."""
        return b"\n" not in self._heard and not select.select([self.end], [], [], seconds)[0]


class LoaderProcess:
    """Runs a reader in another process; ``batches`` is the memory that both see.

    ``options`` are those of ``Reader``, with the tokenizer as its JSON. Raises Refused for a folder
    that cannot be opened a second time, or where the system has no files without a name.
    """

    def __init__(self, folder: Folder, sizes: Sizes, options: dict[str, Any], threads: int) -> None:
        if not folder.source or not hasattr(os, "memfd_create"):
            raise Refused("a loader process needs Linux and open_folder(...): give process=False")
        told = {
            "parent": os.getpid(),
            "source": folder.source,
            "fingerprint": fingerprint(folder),
            "sizes": sizes,
            "options": options,
            "threads": threads,
        }
        file, paper = make_file(), make_file()
        mine, theirs = socket.socketpair()
        try:
            self.batches = SharedBatches(sizes, file)
            os.pwrite(paper, json.dumps(told, default=os.fspath).encode(), 0)
            # What this process can import, that one can; Rayon encodes the captions.
            settings = {"PYTHONPATH": os.pathsep.join(sys.path), "RAYON_NUM_THREADS": str(threads)}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(file)],
                stdin=paper,
                stdout=2,
                pass_fds=(theirs.fileno(), file),
                env=os.environ | settings,
                process_group=0,  # Ctrl-C is for the training, which then ends this
            )
        finally:
            theirs.close()
            os.close(file)
            os.close(paper)
        self._owner, self._channel = os.getpid(), Channel(mine)

    def ask(self, slot: int, places: np.ndarray) -> None:
        """Begin to fill some places of a slot, whose rows and positions are set."""
        with suppress(OSError):  # it has ended: the next answer says why
            self._channel.send({"slot": slot, "places": places.tolist()})

    def answer(self) -> Answer:
        """Wait for what is ready next; raises what ended the process, Failed for a kill."""
        told = self._channel.receive()
        if told is None:
            raise Failed(self._last_words())
        if "error" in told:
            raise getattr(errors, told["error"], Failed)(told["message"])
        return Answer(told["slot"], [Fault(*fault) for fault in told["faults"]], told["spent"])

    def close(self) -> None:
        """End the process; it has nothing to save."""
        self._channel.end.close()
        if os.getpid() != self._owner:  # in a fork of the training it is not ours to end
            return
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        try:
            status = self._process.wait(DYING_SECONDS)
        except subprocess.TimeoutExpired:
            return "the loader process closed its ears: run the same command again"
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        hints = {-9: " (for lack of memory?)", -7: " (was a shard cut while it was read?)"}
        return (
            f"the loader process was ended {how}{hints.get(status, '')}:"
            " the same command goes on from what is saved"
        )


def fingerprint(folder: Folder) -> list[int]:
    """Return numbers that differ where a folder was changed between two openings.

    Cost: 10 ms for a million pairs.
    """
    columns = [integers(folder.pieces[name]) for name in ("image_offset", "image_length")]
    names = "\n".join(shard.name for shard in folder.shards)
    return [len(folder), zlib.crc32(names.encode()), *(zlib.crc32(c.data) for c in columns)]


def main() -> NoReturn:
    """Serve the process whose socket and memory are named by number; ends when that does."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    told = json.load(sys.stdin)
    try:
        threads = _open(channel, told, int(sys.argv[2]))
        while _is_wanted(channel, told["parent"]) and (job := channel.receive()) is not None:
            threads.ask(job["slot"], np.array(job["places"], np.int64))
    except BaseException as error:
        _tell_error(channel, error)
    os._exit(0)  # without waiting for what threads are decoding


def _open(channel: Channel, told: dict[str, Any], file: int) -> ReaderThreads:
    folder = open_folder(**told["source"])
    if fingerprint(folder) != told["fingerprint"]:
        raise ShardError("the data was changed while it was opened: run the same command again")
    batches, options = SharedBatches(Sizes(*told["sizes"]), file), told["options"]
    if options["tokenizer"] is not None:
        options["tokenizer"] = Tokenizer.from_str(options["tokenizer"])

    def tell(made: Answer | Exception) -> None:
        if isinstance(made, Exception):
            _tell_error(channel, made)
            return
        with suppress(OSError):  # nobody listens: the main thread notices too
            channel.send(made._asdict())

    reader = Reader(folder, batches, **options)
    return ReaderThreads(reader, told["threads"], batches.sizes.slots, tell)


def _is_wanted(channel: Channel, parent: int) -> bool:
    """Wait until there is something to hear; False where the parent has gone without a word.

    Another child of the parent may hold its end of the socket open.
    """
    while channel.is_silent(ORPHAN_SECONDS):
        if os.getppid() != parent:
            return False
    return True


def _tell_error(channel: Channel, error: BaseException) -> None:
    if isinstance(error, BreadthError):
        told = {"error": type(error).__name__, "message": str(error)}
    else:
        traceback.print_exception(error)
        told = {"error": "Failed", "message": f"the loader process failed: {error!r}"}
    with suppress(OSError):
        channel.send(told)


if __name__ == "__main__":
    main()
