"""Run a command and account for its whole process tree: wall time, CPU time, memory."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 900.0
SAMPLE_S = 1.0  # reading a big process's memory map costs it milliseconds
_BECOME_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER in linux/prctl.h


@dataclass(frozen=True)
class Usage:
    """What a command took, with all that it started."""

    wall_s: float
    cpu_s: float  # user and system, of every process, those that outlived the command included
    largest_mb: float  # peak resident memory of the largest process, in 10^6 bytes
    together_mb: float  # peak of all processes' proportional memory, sampled once a second


def run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Usage:
    """Run a command to its end; raises RuntimeError with the log's end where it fails.

    The kernel adds up the CPU time: a process that outlives its parent becomes our child, and its
    time is taken with it. What ``log`` is given is standard output and error.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_BECOME_SUBREAPER, 1, 0, 0, 0)
    with log.open("wb") as sink:
        started = time.perf_counter()
        leader = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    over = threading.Event()
    memory = _Memory(leader.pid)
    sampler = threading.Thread(target=memory.watch, args=(over,), daemon=True)
    limit = threading.Timer(LIMIT_S, _kill, (leader.pid,))
    sampler.start()
    limit.start()
    try:
        wall_s, cpu_s, largest_mb = _reap(leader, started)
    finally:
        limit.cancel()
        over.set()
        sampler.join()
        _kill(leader.pid)
    if leader.returncode:
        raise RuntimeError(f"{command[0]} ended with {leader.returncode}: {_tail(log)}")
    return Usage(wall_s, cpu_s, largest_mb, memory.peak_mb)


def _reap(leader: "subprocess.Popen[bytes]", started: float) -> tuple[float, float, float]:
    """Wait for every process of the leader's group; return wall, CPU and the largest's peak."""
    wall_s = cpu_s = largest_mb = 0.0
    with suppress(ChildProcessError):  # none is left
        while True:
            pid, status, usage = os.wait4(-leader.pid, 0)
            if pid == leader.pid:
                wall_s = time.perf_counter() - started
                leader.returncode = os.waitstatus_to_exitcode(status)
            cpu_s += usage.ru_utime + usage.ru_stime
            largest_mb = max(largest_mb, usage.ru_maxrss * 1024 / 1e6)
    return wall_s, cpu_s, largest_mb


class _Memory:
    """The peak of a session's memory."""

    def __init__(self, session: int) -> None:
        self._session = session
        self.peak_mb = 0.0

    def watch(self, over: threading.Event) -> None:
        """Sample until ``over``."""
        while not over.wait(SAMPLE_S):
            now = sum(_proportional_kb(pid) for pid in _members(self._session))
            self.peak_mb = max(self.peak_mb, now * 1024 / 1e6)


def _members(session: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # pid (name) state parent group session ...; a name may hold spaces
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                if int(fields[3]) == session:
                    members.append(int(entry.name))
    return members


def _proportional_kb(pid: int) -> int:
    """Return a process's memory, shared pages by halves, thirds ...; 0 where it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _tail(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split()[-60:])
