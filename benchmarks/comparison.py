"""Rows of a comparison: medians of several rounds, as a table and as JSON."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

LESS_IS_BETTER = ("ms", "MB", "s")


@dataclass(frozen=True)
class Row:
    """One figure of the peer and of ours, round by round."""

    name: str
    peer: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratio(self) -> float:
        """How many times better ours is, by the medians."""
        return self._better(median(self.ours), median(self.theirs))

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest ratio of a round."""
        ratios = [self._better(o, t) for o, t in zip(self.ours, self.theirs, strict=True)]
        return min(ratios), max(ratios)

    def _better(self, ours: float, theirs: float) -> float:
        return theirs / ours if self.unit.split()[0] in LESS_IS_BETTER else ours / theirs


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | unit | peer | ours | ratio | of rounds |", "|---|---|--:|--:|--:|--:|"]
    for row in rows:
        figures = " | ".join(_figure(median(values)) for values in (row.theirs, row.ours))
        low, high = row.spread
        lines.append(
            f"| {row.name} | {row.unit} | {figures} | {row.ratio:.2f} | {low:.2f}-{high:.2f} |"
        )
    return "\n".join(lines)


def write_json(rows: Iterable[Row], file: Path) -> None:
    """Write the medians; a ratio above 1 says that ours is better."""
    records = [
        {
            "name": row.name,
            "peer": row.peer,
            "ours": round(median(row.ours), 4),
            "theirs": round(median(row.theirs), 4),
            "unit": row.unit,
            "ratio": round(row.ratio, 3),
        }
        for row in rows
    ]
    file.write_text(json.dumps(records, indent=1) + "\n")


def machine() -> str:
    """Describe this machine and how busy it is, in one line."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{os.cpu_count()} x {names[0] if names else platform.machine()}, {memory_gb:.0f} GB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} before"
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
