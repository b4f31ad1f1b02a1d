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
SAMPLE_S = 0.25
_SAMPLES_TO_A_MAP = 4  # reading a big process's memory map costs it milliseconds
_SET_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER in linux/prctl.h


@dataclass(frozen=True)
class Usage:
    """What a command took, with all that it started."""

    wall_s: float
    cpu_s: float  # user and system, of every process, those that outlived the command included
    largest_mb: float  # peak resident memory of the largest process, in 10^6 bytes, sampled
    together_mb: float  # peak of all processes' proportional memory, sampled once a second


def run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Usage:
    """Run a command to its end; raises RuntimeError with the log's end where it fails.

    The kernel adds up the CPU time: a process that outlives its parent becomes our child, and its
    time is taken with it. What ``log`` is given is standard output and error.
    """
    _become_subreaper(True)
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
        wall_s, cpu_s = _reap(leader, started)
    finally:
        limit.cancel()
        over.set()
        sampler.join()
        _kill(leader.pid)
        _become_subreaper(False)
    if leader.returncode:
        raise RuntimeError(f"{command[0]} ended with {leader.returncode}: {_tail(log)}")
    return Usage(wall_s, cpu_s, memory.largest_mb, memory.together_mb)


def _become_subreaper(wanted: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_SET_SUBREAPER, int(wanted), 0, 0, 0)


def session_cpu_s() -> float:
    """Return the CPU time so far of all processes of this session, to a hundredth of a second.

    Of those that have ended, only this process's own children count.
    """
    ended = os.times()
    ticks = 0
    for pid in _members(os.getsid(0)):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # user, system
    return ended.children_user + ended.children_system + ticks / os.sysconf("SC_CLK_TCK")


def _reap(leader: "subprocess.Popen[bytes]", started: float) -> tuple[float, float]:
    """Wait for every process of the leader's group; return wall time and CPU time."""
    wall_s = cpu_s = 0.0
    with suppress(ChildProcessError):  # none is left
        while True:
            pid, status, usage = os.wait4(-leader.pid, 0)
            if pid == leader.pid:
                wall_s = time.perf_counter() - started
                leader.returncode = os.waitstatus_to_exitcode(status)
            cpu_s += usage.ru_utime + usage.ru_stime
    return wall_s, cpu_s


class _Memory:
    """The peaks of a session's memory.

    The kernel's own maximum (ru_maxrss) will not do: a process inherits that of the one it was
    started from, here ours.
    """

    def __init__(self, session: int) -> None:
        self._session = session
        self.largest_mb = self.together_mb = 0.0

    def watch(self, over: threading.Event) -> None:
        """Sample until ``over``."""
        samples = 0
        while not over.wait(SAMPLE_S):
            members = _members(self._session)
            peaks = (_kb(pid, "status", "VmHWM:") for pid in members)
            self.largest_mb = max(self.largest_mb, max(peaks, default=0) * 1024 / 1e6)
            if samples % _SAMPLES_TO_A_MAP == 0:
                now = sum(_kb(pid, "smaps_rollup", "Pss:") for pid in members)
                self.together_mb = max(self.together_mb, now * 1024 / 1e6)
            samples += 1


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


def _kb(pid: int, file: str, field: str) -> int:
    """Return a figure of a process's memory (Pss counts shared pages in parts); 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _tail(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split()[-60:])
