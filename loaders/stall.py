"""Say whether training waits for its loader, for which part of it, and what to change."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

WORK = ("fetch", "decode", "collate", "copy")
"""What the loader's threads do: read, decode pictures, turn captions to tokens, copy kept pairs."""

STAGES = ("start", *WORK, "wait", "step")
"""And what the consumer does: start the loader once, wait for batches, and use them."""

NOTICED = 0.05
"""Share of the time spent waiting from which on the loader counts as the limit."""

BUSY = 0.6
"""Share of the threads' time from which on they have no more to give."""

_DOING = {
    "fetch": "reading bytes",
    "decode": "decoding pictures",
    "collate": "turning captions to tokens",
    "copy": "copying kept pictures",
}


class Spent(NamedTuple):
    """Seconds, and over how many things they were spent."""

    seconds: float = 0.0
    times: int = 0


class Stopwatch:
    """Adds up seconds by stage; many threads may add, and another process's sums are merged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent: dict[str, Spent] = {}

    def add(self, stage: str, seconds: float, times: int = 1) -> None:
        """Add the seconds that ``times`` things (pictures, batches) took in a stage."""
        self.merge({stage: (seconds, times)})

    def merge(self, sums: Mapping[str, tuple[float, int]]) -> None:
        """Add what another's ``sums`` returned."""
        with self._lock:
            for stage, (seconds, times) in sums.items():
                had = self._spent.get(stage, Spent())
                self._spent[stage] = Spent(had.seconds + seconds, had.times + times)

    def sums(self) -> dict[str, Spent]:
        """Return the seconds and times by stage so far."""
        with self._lock:
            return dict(self._spent)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class StallReport:
    """Where a stream's time went: a Stopwatch's sums, of a loader with ``threads`` (0: none)."""

    spent: Mapping[str, tuple[float, int]]
    threads: int
    cores: int = field(default_factory=_cores)

    def seconds(self, stage: str) -> float:
        """Return the seconds of a stage; of the loader's threads together where it is theirs."""
        return self.spent.get(stage, Spent())[0]

    @property
    def stall(self) -> float:
        """The share of the consumer's time that it waited for a batch: 0 to 1."""
        wait, step = self.seconds("wait"), self.seconds("step")
        return wait / (wait + step) if wait else 0.0

    @property
    def busy(self) -> float:
        """The share of the loader's threads' time that they worked: 0 to 1."""
        clock = self.seconds("wait") + self.seconds("step")
        work = sum(map(self.seconds, WORK))
        return min(1.0, work / (clock * max(self.threads, 1))) if clock else 0.0

    @property
    def limit(self) -> str:
        """What to make faster: step, threads, handover or the stage that takes the longest."""
        if self.stall < NOTICED:
            return "step"
        if not self.threads:
            return "threads"
        return max(WORK, key=self.seconds) if self.busy >= BUSY else "handover"

    def to_json(self) -> str:
        """Return the figures, for machines."""
        return json.dumps(self._figures())

    def _figures(self) -> dict[str, Any]:
        stages = {
            stage: {"seconds": round(spent[0], 6), "times": spent[1]}
            for stage in STAGES
            if (spent := self.spent.get(stage))
        }
        return {
            "limit": self.limit,
            "stall": round(self.stall, 4),
            "busy": round(self.busy, 4),
            "threads": self.threads,
            "cores": self.cores,
            "stages": stages,
            "verdict": self.verdict(),
        }

    def verdict(self) -> str:
        """Say on a few lines what the limit is and which option to change."""
        if not self.spent.get("wait"):
            return "no batch has been taken yet: there is nothing to say about waiting"
        clock = self.seconds("wait") + self.seconds("step")
        lines = [
            f"training waits for its loader {self.stall:.1%} of the time: "
            f"{self.seconds('wait'):.1f} of {clock:.1f} s"
        ]
        lines += [self._line(stage) for stage in WORK if stage in self.spent]
        return "\n".join([*lines, f"limit: {self._limit()}", f"change: {self._advice()}"])

    def _line(self, stage: str) -> str:
        seconds, times = self.spent[stage]
        share = seconds / (sum(map(self.seconds, WORK)) or 1)
        each = f"  {1e3 * seconds / times:8.3f} ms a pair" if times else ""
        return f"  {stage:8}{seconds:9.1f} s  {share:4.0%}{each}"

    def _limit(self) -> str:
        used = f"{self.busy:.0%} of the time of {self.threads} thread(s) is used"
        found = {
            "step": "the training step; the loader keeps up",
            "threads": "loading and training take turns, as workers=0 asks",
            "handover": f"batches are asked for too late; {used}",
        }
        return found.get(self.limit) or f"{_DOING[self.limit]}; {used}"

    def _advice(self) -> str:
        more = f"workers={min(2 * self.threads, self.cores)} (there are {self.cores} cores), or "
        more = more if self.threads < self.cores else ""
        advice = {
            "step": "nothing in the loader",
            "threads": f"workers={max(1, self.cores // 2)}",
            "handover": "process=True, so that Python's turns are not shared with training; or a "
            "larger batch_pairs",
            "fetch": f"workers={2 * self.threads}, so that more reads are on their way, or keep "
            "the folder on a disk of this machine",
            "decode": f"{more}a folder built with pictures nearer to image_px",
            "collate": f"{more}a smaller context_length",
            "copy": "cache_bytes=0: decoding again may be quicker than copying",
        }
        return advice[self.limit]
