"""Where the time of a build went: what its parts have written down, added up."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NETWORK = {
    "polite": "turns that politeness grants",
    "dns": "addresses of hosts",
    "connect": "connections",
    "first_byte": "answers to begin",
    "body": "bodies to arrive",
}
"""What a fetch waits for, by phase; any other phase is work of the processor."""

BUSY = 0.6
"""Share of a fetch's time from which on the processor counts as the limit."""


def time_spent(out: Path) -> dict[str, Any] | None:
    """Return the seconds of all parts by stage and by phase, and what limits the fetch.

    They are of everything that was measured in the folder, by earlier recipes too; parts run side
    by side, so that they are more than the clock's. Returns None where no part says anything.
    """
    files = sorted(out.glob("parts/*/*/timings.json"))
    stages: Counter[str] = Counter()
    phases: Counter[str] = Counter()
    pairs, fetching_s = 0, 0.0
    for timings in (json.loads(file.read_bytes()) for file in files):
        stages.update(timings["seconds"])
        own = timings.get("phases", {})
        if NETWORK.keys() & own.keys():
            pairs += timings["pairs"]
            fetching_s += sum(timings["seconds"].values())
            phases.update(own)
    if not files:
        return None
    by_cost = sorted(stages.items(), key=lambda item: (-item[1], item[0]))
    return {
        "parts": len(files),
        "stages": [{"stage": name, "seconds": seconds} for name, seconds in by_cost],
        "fetching": _fetching(pairs, fetching_s, phases) if pairs else None,
    }


def _fetching(pairs: int, seconds: float, phases: Mapping[str, float]) -> dict[str, Any]:
    waiting = {name: phases[name] for name in NETWORK if name in phases}
    work = {name: phases[name] for name in sorted(phases.keys() - NETWORK.keys())}
    busy = min(1.0, sum(work.values()) / seconds) if seconds else 0.0
    limit = "processor" if busy >= BUSY else "network"
    if limit == "network" and max(waiting, key=lambda name: waiting[name]) == "polite":
        limit = "politeness"
    return {
        "pairs": pairs,
        "seconds": seconds,
        "waiting": waiting,
        "work": work,
        "busy": busy,
        "limit": limit,
        "verdict": _verdict(limit, busy, waiting),
    }


def _verdict(limit: str, busy: float, waiting: Mapping[str, float]) -> str:
    share = f"{100 * busy:.0f} %"
    if limit == "processor":
        return (
            f"The processor is the limit: it worked on pictures for {share} of the time in which "
            "parts were fetched, so more cores would make it faster."
        )
    most = NETWORK[max(waiting, key=lambda name: waiting[name])]
    who, what = {
        "politeness": ("Politeness", "only more domains or higher limits"),
        "network": ("The network", "more connections or more workers"),
    }[limit]
    return (
        f"{who} is the limit: the processor worked on pictures for {share} of the time in which "
        f"parts were fetched, and most of the waiting was for {most}, so {what} would make it "
        "faster."
    )
