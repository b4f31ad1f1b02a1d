"""Say how a build is getting on: step by step, and once a second while parts fetch."""

import json
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .engine import Progress

OnLive = Callable[[Mapping[str, Any]], None]
"""Called about once a second with what ``LiveFigures.read`` returns."""

EVERY_S = 1.0
RATE_OVER_S = 15.0
HOSTS = 5


def ended(live: Path) -> None:
    """Mark a part's figures as those of a part that is written."""
    if live.is_file():  # a stage need not write any
        live.replace(live.with_suffix(".ended"))


class LiveFigures:
    """The figures of the running step, summed over its parts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.begin_step(0)

    def begin_step(self, tasks: int) -> None:
        """Forget the parts of the step before; none of this one's runs yet."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._parts: dict[str, tuple[int, dict[str, Any]]] = {}  # by number: time of file, figures
        self._history: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self.tasks, self.done = tasks, 0

    def read(self) -> tuple[bool, dict[str, Any] | None]:
        """Return whether pairs have come since the last look, and the figures; None without parts.

        The figures are pairs, done, ok, bytes, failures, slowest, pairs_per_s and left_s, among
        others: numbers add up over parts; ``slowest`` holds at most five (host, seconds);
        ``left_s`` is None while nothing comes.
        """
        running = self._refresh()
        if not self._parts:
            return False, None
        parts = [figures for _, figures in self._parts.values()]
        total = _total(parts)
        changed = total["done"] != self._history[-1][1]
        rate = self._rate(total["done"])
        waiting = max(0, self.tasks - self.done - running)
        left = total["pairs"] - total["done"] + waiting * total["pairs"] / len(parts)
        total["pairs_per_s"] = round(rate, 1)
        total["left_s"] = round(left / rate, 1) if rate else None
        return changed, total

    def _refresh(self) -> int:
        """Read what has changed, and return how many parts are at work."""
        running = 0
        files = sorted(self._folder.glob("[0-9]*"))  # 7.ended before 7.json, which is newer
        for file in files:
            running += file.suffix == ".json"
            try:
                changed = file.stat().st_mtime_ns
                if self._parts.get(file.stem, (0,))[0] != changed:
                    self._parts[file.stem] = changed, json.loads(file.read_bytes())
            except FileNotFoundError:
                continue  # it has just ended: the next look finds its new name
        return running

    def _rate(self, done: int) -> float:
        """Return pairs/s over the last seconds."""
        now = time.monotonic()
        self._history.append((now, done))
        while len(self._history) > 2 and now - self._history[0][0] > RATE_OVER_S:
            self._history.popleft()
        since, before = self._history[0]
        return max(0, done - before) / max(now - since, 1e-9)


def _total(parts: list[dict[str, Any]]) -> dict[str, Any]:
    numbers: Counter[str] = Counter({"pairs": 0, "done": 0, "ok": 0, "bytes": 0})
    failures: Counter[str] = Counter()
    slowest: dict[str, float] = {}
    for figures in parts:
        numbers.update({k: v for k, v in figures.items() if isinstance(v, int | float)})
        failures.update(figures.get("failures", {}))
        for host, seconds in figures.get("slowest", ()):
            slowest[host] = max(seconds, slowest.get(host, 0.0))
    worst = sorted(slowest.items(), key=lambda item: (-item[1], item[0]))[:HOSTS]
    by_count = sorted(failures.items(), key=lambda item: (-item[1], item[0]))
    return {**numbers, "failures": dict(by_count), "slowest": worst}


@contextmanager
def progress_file(
    out: Path, live: Path, progress: Progress | None, on_live: OnLive | None
) -> Iterator[Progress]:
    """Pass progress and live figures on, and append them as JSON lines to ``progress.jsonl``."""
    with (out / "progress.jsonl").open("a", encoding="utf-8") as lines:
        figures, lock = LiveFigures(live), threading.Lock()

        def say(event: Mapping[str, Any]) -> None:
            lines.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")
            lines.flush()

        def look() -> None:
            with lock:
                changed, now = figures.read()
                if changed:
                    say({"live": now})
            if now is not None and on_live is not None:
                on_live(now)

        def report(label: str, done: int, tasks: int) -> None:
            with lock:
                if done == 0:
                    figures.begin_step(tasks)
                figures.done = done
                say({"label": label, "done": done, "tasks": tasks})
            if done == tasks:
                look()  # the last figures of the step
            if progress is not None:
                progress(label, done, tasks)

        with _every_second(look):
            yield report


@contextmanager
def _every_second(look: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(EVERY_S):
            look()

    watcher = threading.Thread(target=watch, name="live figures", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
