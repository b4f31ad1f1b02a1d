"""Drop pictures that stand in for others: one file under many captions on unrelated sites."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..fetch.urls import parse, registrable_domain
from ..options import check_whole
from ..radix import uid_hash
from ..stage import Selector

_COUNTING_LOOKS = 4
_FIRST_BITS = 16  # of a file's hash, counted by the first look
_CELLS = 1 << 18  # of a later look's sketch: 2 MB
_SUSPECTS = 1024  # groups of files, the most frequent, that the next look tells apart


@dataclass(frozen=True)
class PlaceholderImages(Selector, name="placeholder_images"):
    """Drop every pair of a file that has many captions and lies on several sites.

    Sites answer for pictures that are gone with one of their own ("image not available"), and
    status 200. A file goes where more than ``most_captions`` different captions and more than
    ``most_hosts`` registrable domains have it; 0 hosts asks for captions alone. Files are equal
    where their ``sha256`` is. Stand it before exact_duplicates, which would leave one pair of each.
    Cost: five looks at hash, caption and host, each a sketch of at most 2 MB a part. The 1,024
    most frequent files are suspects; among n pairs that is every file with more than about
    ``most_captions + n**0.5 / 50`` pairs. Counts are right to a few in a hundred, and exact where
    few files are suspect.
    Source: Recap-DataComp-1B's duplicates (arXiv 2406.08478), and ALIGN's rule for captions of
    many pictures (arXiv 2102.05918, section 3) turned round.
    """

    most_captions: int = 10  # ALIGN's limit for the pictures of a caption
    most_hosts: int = 2  # a site and the network that delivers its pictures

    passes = _COUNTING_LOOKS + 1
    thresholds = ("most_captions", "most_hosts")
    example: ClassVar[Mapping[str, Any]] = {"most_captions": 0, "most_hosts": 0}

    def __post_init__(self) -> None:
        check_whole(self, "most_captions", 0, 1000)
        check_whole(self, "most_hosts", 0, 1000)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Name the file's hash, what is said of it, and where it lies if that is asked."""
        return ("sha256", "caption", *(("url",) if self.most_hosts else ()))

    def sketch(self, pairs: pa.Table, states: tuple[np.ndarray, ...]) -> np.ndarray:
        """Count files by more and more of their hash, then captions and hosts of the suspects."""
        known, files = _files(pairs)
        if not states:
            return np.bincount(files >> np.uint64(64 - _FIRST_BITS), minlength=1 << _FIRST_BITS)
        suspects = self._suspects(states[:_COUNTING_LOOKS])
        if not len(suspects.groups):
            return np.zeros(1, np.int64)
        group, row = suspects.of(files)
        if len(states) == _COUNTING_LOOKS:
            return self._distinct(pairs.take(pa.array(known[row])), group, len(suspects.groups))
        cell = group << suspects.more | suspects.next_bits(files[row])
        return np.bincount(cell, minlength=len(suspects.groups) << suspects.more)

    def keep(self, pairs: pa.Table, states: tuple[np.ndarray, ...]) -> pa.BooleanArray:
        """Keep what is no placeholder, and every pair whose file's hash is not known."""
        keep = np.ones(len(pairs), bool)
        suspects = self._suspects(states[:_COUNTING_LOOKS])
        if len(suspects.groups):
            known, files = _files(pairs)
            group, row = suspects.of(files)
            keep[known[row]] = ~self._placeholders(states[-1], len(suspects.groups))[group]
        return pa.array(keep)

    def _suspects(self, states: tuple[np.ndarray, ...]) -> "_Suspects":
        """Follow the looks: the groups of files with pairs enough, the most frequent of them."""
        least = 4 * (self.most_captions + self.most_hosts + 2)  # see _cells
        most = min(_SUSPECTS, _CELLS // least)
        found = _Suspects(np.zeros(1, np.uint64), 0, _FIRST_BITS)
        for counts in states:
            enough = np.flatnonzero(counts > self.most_captions)
            frequent = enough[np.argsort(-counts[enough], kind="stable")][:most]
            found = found.narrowed(np.sort(frequent))
            if not len(found.groups):
                break
        return found

    def _cells(self, suspects: int) -> tuple[int, int]:
        """Return the cells of a suspect's captions and of its hosts: the fewer, the more."""
        share = _CELLS // suspects
        captions = max(share * 3 // 4, 4 * (self.most_captions + 1))
        return captions, max(share // 4, 4 * (self.most_hosts + 1)) if self.most_hosts else 0

    def _distinct(self, pairs: pa.Table, group: np.ndarray, suspects: int) -> np.ndarray:
        """Mark a cell for each caption and each host of a suspect: int64, flat."""
        cells = self._cells(suspects)
        values = [pairs["caption"], _hosts(pairs["url"])] if cells[1] else [pairs["caption"]]
        marks = []
        for column, width in zip(values, cells, strict=False):
            there = np.flatnonzero(column.is_valid().to_numpy())
            cell = uid_hash(column.take(pa.array(there))) % np.uint64(width)
            place = group[there] * width + cell.astype(np.int64)
            marks.append(np.bincount(place, minlength=suspects * width))
        return np.concatenate(marks)

    def _placeholders(self, marks: np.ndarray, suspects: int) -> np.ndarray:
        """Return bool [suspects]: whether captions and hosts are more than there may be."""
        captions, hosts = self._cells(suspects)
        many = _estimate(marks[: suspects * captions], captions) > self.most_captions + 0.5
        if hosts:
            many &= _estimate(marks[suspects * captions :], hosts) > self.most_hosts + 0.5
        return many


@dataclass(frozen=True)
class _Suspects:
    """Groups of files by the first ``bits`` of their hash, sorted, and ``more`` to look at next."""

    groups: np.ndarray
    bits: int
    more: int

    def narrowed(self, cells: np.ndarray) -> "_Suspects":
        """Return the groups that counted ``cells`` stand for; all are told apart once few."""
        more = np.uint64(self.more)
        first = self.groups[cells >> self.more] << more
        groups = first | (cells & ((1 << self.more) - 1)).astype(np.uint64)
        bits = self.bits + self.more
        room = (_CELLS // max(len(groups), 1)).bit_length() - 1
        return _Suspects(groups, bits, min(room, _FIRST_BITS, 64 - bits))

    def of(self, files: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows whose file is in a group, and before them the number of the group."""
        prefix = files >> np.uint64(64 - self.bits)
        place = np.searchsorted(self.groups, prefix)
        place[place == len(self.groups)] = 0
        row = np.flatnonzero(self.groups[place] == prefix)
        return place[row], row

    def next_bits(self, files: np.ndarray) -> np.ndarray:
        """Return the bits that tell the files of a group apart: int64 [n]."""
        shift = np.uint64(64 - self.bits - self.more)
        return (files >> shift & np.uint64((1 << self.more) - 1)).astype(np.int64)


def _files(pairs: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows whose file's hash is known, and 64 bits of it: uint64."""
    known = np.flatnonzero(pairs["sha256"].is_valid().to_numpy())
    return known, uid_hash(pairs["sha256"].take(pa.array(known)))


def _hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the registrable domain of each URL; null where it has none."""
    links = [parse(url) if url else None for url in urls.to_pylist()]
    return pa.chunked_array(
        [pa.array([link and registrable_domain(link.host) for link in links], pa.string())]
    )


def _estimate(marks: np.ndarray, width: int) -> np.ndarray:
    """Return how many different values marked the ``width`` cells of each suspect: float [n].

    Source: Whang et al., A linear-time probabilistic counting algorithm, TODS 1990.
    """
    empty = np.count_nonzero(marks.reshape(-1, width) == 0, axis=1)
    return width * np.log(width / np.maximum(empty, 0.5))
