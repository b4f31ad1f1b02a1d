"""Count the ledger's columns, part by part, for the report: histograms, categories, accounts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .schema import VERDICT

BINS = 32
SAMPLED_PARTS = 64
LOG_RATIO = 100  # a column that spans more than this is drawn on a log axis
MOST_CATEGORIES = 400  # a text column with more values is free text
NO_CATEGORY = {"uid", "url", "caption", "key", "exif", *VERDICT}


@dataclass
class Histogram:
    """A column's values in bins, kept and dropped pairs apart; values outside go to end bins."""

    edges: np.ndarray
    kept: np.ndarray
    dropped: np.ndarray
    values: int = 0
    missing: int = 0
    total: float = 0.0
    least: float = np.inf
    most: float = -np.inf

    def add(self, values: np.ndarray, kept: np.ndarray) -> None:
        """Count one part; ``values`` float64 with NaN where missing, ``kept`` bool."""
        there = np.isfinite(values)
        self.missing += int((~there).sum())
        values, kept = values[there], kept[there]
        if not len(values):
            return
        self.values += len(values)
        self.total += float(values.sum())
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))
        bins = np.searchsorted(self.edges, values, side="right") - 1
        bins = np.clip(bins, 0, len(self.kept) - 1)
        self.kept += np.bincount(bins[kept], minlength=len(self.kept))
        self.dropped += np.bincount(bins[~kept], minlength=len(self.kept))

    def figures(self) -> dict[str, Any]:
        """Return what report.json says of the column."""
        known = self.values > 0
        return {
            "values": self.values,
            "missing": self.missing,
            "min": self.least if known else None,
            "mean": self.total / self.values if known else None,
            "max": self.most if known else None,
            "edges": [float(edge) for edge in self.edges],
            "kept": [int(count) for count in self.kept],
            "dropped": [int(count) for count in self.dropped],
        }


@dataclass
class Categories:
    """A text or boolean column's values and how often they come."""

    kept: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)

    def add(self, values: list[Any], kept: np.ndarray) -> None:
        """Count one part; a value of None is not counted."""
        for value, stays in zip(values, kept, strict=True):
            if value is not None:
                (self.kept if stays else self.dropped)[str(value)] += 1

    @property
    def is_free_text(self) -> bool:
        """Whether the column has too many values, or too few repeats, to be categories."""
        distinct = len(self.kept.keys() | self.dropped.keys())
        values = self.kept.total() + self.dropped.total()
        return distinct > MOST_CATEGORIES or distinct > max(20, values / 4)

    def figures(self) -> list[dict[str, Any]]:
        """Return value, kept and dropped, the most frequent value first."""
        both = self.kept + self.dropped
        return [
            {"value": value, "kept": self.kept[value], "dropped": self.dropped[value]}
            for value, _ in sorted(both.items(), key=lambda item: (-item[1], item[0]))
        ]


def ledger_accounts(files: Sequence[Path]) -> dict[str, Any]:
    """Count the ledger's rows: ``rows``, ``kept``, and ``dropped`` by stage and reason.

    A row without a reason has its stage's name as reason.
    """
    dropped: dict[str, Counter] = {}
    rows = kept = 0
    for file in files:
        table = pq.read_table(file, columns=["kept", "dropped_by", "reason"])
        rows += len(table)
        groups = table.group_by(["kept", "dropped_by", "reason"]).aggregate([([], "count_all")])
        for group in groups.to_pylist():
            if group["kept"]:
                kept += group["count_all"]
                continue
            stage = group["dropped_by"] or "unknown"
            reasons = dropped.setdefault(stage, Counter())
            reasons[group["reason"] or stage] += group["count_all"]
    ordered = {stage: dict(sorted(dropped[stage].items())) for stage in sorted(dropped)}
    return {"rows": rows, "kept": kept, "dropped": ordered}


def column_histograms(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the histogram of every numeric column, in the ledger's order.

    Bins are set from the 0.5 and 99.5 percentiles of at most 64 parts, so that one wild value does
    not flatten the rest. Cost: reads those columns twice; one part in memory at a time.
    """
    names = _columns(files, _is_measure)
    samples = _read(_spread(files, SAMPLED_PARTS), names)
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    whole = _columns(files, pa.types.is_integer)
    for table in samples:
        for name in names:
            values[name].append(_floats(table, name))
    histograms = {name: _empty(np.concatenate(values[name]), name in whole) for name in names}
    for table in _read(files, names):
        for name, histogram in histograms.items():
            histogram.add(_floats(table, name), _kept(table))
    return {name: histogram.figures() for name, histogram in histograms.items()}


def column_categories(files: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Return the values and counts of every text and boolean column that is not free text."""
    names = _columns(files, lambda kind: pa.types.is_string(kind) or pa.types.is_boolean(kind))
    counts = {name: Categories() for name in names}
    for table in _read(files, names):
        for name in list(counts):
            counts[name].add(table[name].to_pylist(), _kept(table))
            if counts[name].is_free_text:  # at once, so that a part's values are the most held
                del counts[name]
    return {name: figures for name in counts if (figures := counts[name].figures())}


def _is_measure(kind: pa.DataType) -> bool:
    # uint64 columns are hashes: they have no order that means anything
    return (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and kind != pa.uint64()


def _columns(files: Sequence[Path], wanted: Any) -> list[str]:
    if not files:
        return []
    schema = pq.read_schema(files[0])
    return [
        column.name
        for column in schema
        if wanted(column.type)
        and column.name not in NO_CATEGORY
        and not column.name.endswith(("hash", "sha256"))
    ]


def _read(files: Sequence[Path], names: list[str]) -> Any:
    for file in files:
        has_verdict = "kept" in pq.read_schema(file).names
        yield pq.read_table(file, columns=[*names, "kept"] if has_verdict else names)


def _kept(table: pa.Table) -> np.ndarray:
    if "kept" not in table.column_names:  # the columns beside shards, where all pairs are kept
        return np.ones(len(table), dtype=bool)
    return table["kept"].to_numpy()


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return table[name].cast(pa.float64(), safe=False).to_numpy()


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    step = max(1, -(-len(files) // most))
    return list(files[::step])


def _empty(sample: np.ndarray, whole: bool) -> Histogram:
    sample = sample[np.isfinite(sample)]
    low, high = np.quantile(sample, [0.005, 0.995]) if len(sample) else (0.0, 1.0)
    if low > 0 and high / low > LOG_RATIO:
        edges = np.geomspace(low, high, BINS + 1)
    elif whole:  # bins of equally many whole numbers, else some would hold one more
        low, high = np.floor(low), np.floor(high)
        step = max(1.0, np.ceil((high - low + 1) / BINS))
        edges = np.arange(low, high + step + 1, step)
    else:
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    zeros = np.zeros(len(edges) - 1, dtype=np.int64)
    return Histogram(edges, zeros, zeros.copy())
