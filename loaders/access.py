"""Choose how the pairs of a subset are fetched, by what each way would cost."""

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from .arrow_arrays import integers

if TYPE_CHECKING:
    from .folder import Folder


# What one node gets of an object store in its region. Only the ratios of the three decide.
BYTES_PER_S = 500e6
LATENCY_S = 0.03
REQUESTS = 64  # in flight at once

GAP_BYTES = 1 << 16  # pictures that are no further apart are fetched as one extent
EXTENT_BYTES = 1 << 23
CLEARLY = 0.9  # whole shards are read in long runs, so ranged reads must cost less than this share
WORTH = 2  # writing a subset out is advised where it saves this factor, not for a few per cent

Kind = Literal["stream", "ranged", "materialise"]


class Access(NamedTuple):
    """How to fetch a subset; ``why`` is one line for people. Bytes and requests are an epoch's.

    ``stream`` reads whole shards and skips what is not kept, ``ranged`` reads what is kept alone,
    ``materialise`` is the advice to write the subset out as shards of its own first.
    """

    kind: Kind
    why: str
    kept_bytes: int
    read_bytes: int
    requests: int


class Cost(NamedTuple):
    """What one way of fetching takes in an epoch."""

    bytes: int
    requests: int

    @property
    def seconds(self) -> float:
        """The time on one node, bound by its bandwidth or by the requests in flight."""
        return max(self.bytes / BYTES_PER_S, self.requests * LATENCY_S / REQUESTS)


def choose_access(
    folder: "Folder",
    rows: np.ndarray,
    *,
    remote: bool,
    epochs: float = 1.0,
    cache_bytes: int = 0,
) -> Access:
    """Choose how to fetch some rows (ascending) ``epochs`` times, by time on one node.

    A local folder is mapped into memory, so there reading only what is kept is best at any share.
    A remote one is fetched again in every epoch unless ``cache_bytes`` hold what is read. Cost: a
    few ns a pair.
    """
    ends = _ends(folder)
    lengths = integers(folder.pieces["image_length"])[rows].astype(np.int64)
    kept = int(lengths.sum())
    share = f"{len(rows):,} pairs ({100 * len(rows) / len(folder):.3g} %, {_size(kept)})"
    if not remote:
        why = f"ranged reads of {share}: the folder is local, only what is kept is read"
        return Access("ranged", why, kept, kept, 0)
    ranged = _ranged(folder.shard_of[rows], ends[rows] - lengths, ends[rows])
    stream = _stream(folder.shard_of, ends, np.unique(folder.shard_of[rows]))
    kind: Kind = "ranged" if ranged.seconds < CLEARLY * stream.seconds else "stream"
    best, name, other = (
        (ranged, "ranged reads", f"whole shards {_text(stream)}")
        if kind == "ranged"
        else (stream, "whole shards", f"ranged reads {_text(ranged)}")
    )
    why = f"{name} of {share}: {_text(best)} an epoch; {other}"
    rereads = 1 if best.bytes <= cache_bytes else epochs
    written = Cost(kept, -(-kept // EXTENT_BYTES)).seconds
    if best.seconds * rereads > WORTH * (best.seconds + (1 + epochs) * written):
        kind = "materialise"
        why += f"; for {epochs:.3g} epochs write the subset out as shards of its own first"
    return Access(kind, why, kept, best.bytes, best.requests)


def _ends(folder: "Folder") -> np.ndarray:
    """Return where every row's picture ends in its shard: int64 [pairs]."""
    offset, length = (integers(folder.pieces[f"image_{what}"]) for what in ("offset", "length"))
    return offset.astype(np.int64) + length


def _ranged(shard_of: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> Cost:
    """Return what the extents of some pictures take: near ones together, long ones cut."""
    if not len(begins):
        return Cost(0, 0)
    order = np.lexsort((begins, shard_of))
    shards, begins, ends = shard_of[order], begins[order], ends[order]
    apart = (shards[1:] != shards[:-1]) | (begins[1:] - ends[:-1] > GAP_BYTES)
    firsts = np.flatnonzero(np.append(True, apart))
    spans = ends[np.append(firsts[1:], len(ends)) - 1] - begins[firsts]
    return Cost(int(spans.sum()), int((-(-spans // EXTENT_BYTES)).sum()))


def _stream(shard_of: np.ndarray, ends: np.ndarray, shards: np.ndarray) -> Cost:
    """Return what some whole shards take, up to the end of each one's last picture."""
    last = np.zeros(int(shard_of.max()) + 1, np.int64)
    np.maximum.at(last, shard_of, ends)
    return Cost(int(last[shards].sum()), int((-(-last[shards] // EXTENT_BYTES)).sum()))


def _text(cost: Cost) -> str:
    return f"{_size(cost.bytes)} in {cost.requests:,} requests, about {cost.seconds:,.3g} s"


def _size(count: int) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} kB"
