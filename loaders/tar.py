"""Walk the headers of a tar, go on after damage, and account for every byte.

``tarfile`` takes a damaged header for the end of the archive and says nothing, and costs twenty
times as much.
"""

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .errors import ShardError
from .tar_damage import RECORD, after_zeros, cut_member_ends_at, goes_on_at
from .tar_header import (
    BLOCK,
    FILES,
    OCTAL,
    PASSED_OVER,
    PREFIX_BYTES,
    PREFIXES,
    Records,
    after_member,
    read_header,
    read_records,
)
from .tar_run import Run, plain_run

MEMBERS = 10_000_000
"""Shards with more members are refused."""

_RUN = 4096  # headers that are checked together
_DISGUISES = {
    b"\x1f\x8b": "gunzip",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"PK\3\4": "unzip, then tar",
}


class Gap(NamedTuple):
    """Bytes ``[begin, end)`` of a tar that are no whole member, and why; ``name`` may be lost.

    ``place`` is the number of members before it.
    """

    begin: int
    end: int
    why: str
    name: str
    place: int


@dataclass
class Walk:
    """The regular files of a tar in order (name, first byte, length), and its gaps."""

    names: list[str] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    resumed: set[int] = field(default_factory=set)
    """Where a header was sought and found after damage."""
    has_long_names: bool = False

    def lose(self, begin: int, end: int, why: str, name: str = "") -> int:
        """Note a gap and return its end."""
        self.gaps.append(Gap(begin, end, why, name, len(self.names)))
        return end

    def resume(self, begin: int, end: int, why: str, name: str = "") -> int:
        """Note a gap after which a header was sought and found, and return its end."""
        self.resumed.add(end)
        return self.lose(begin, end, why, name)

    def extend(self, run: Run) -> None:
        """Note the members of a run."""
        self.names += run.names
        self.begins += run.begins
        self.lengths += run.lengths

    def add(self, name: str, begin: int, length: int) -> None:
        """Note a member."""
        self.names.append(name)
        self.begins.append(begin)
        self.lengths.append(length)


def map_tar(path: Path) -> mmap.mmap:
    """Map a tar into memory; raises ShardError where it is missing or empty."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise ShardError(
            f"shard {path} is missing: put it back or build the folder again"
        ) from error
    except ValueError as error:
        raise ShardError(f"shard {path} is empty: build or fetch it again") from error


def walk(path: Path, tar: mmap.mmap) -> Walk:
    """Find every regular file of a tar, and the gaps that damage left.

    Raises ShardError for what is no tar of plain files: compressed, links, devices, sparse files,
    names that lead out of it. Cost: a microsecond a member.
    """
    if read_header(tar, 0) is None:
        _refuse_disguise(path, tar[:8])
    found = Walk()
    position, most = 0, 1
    while (beyond := _end_or_damage(found, tar, position)) < len(tar):
        if beyond > position:
            position = beyond
            continue
        run = plain_run(tar, position, most)
        found.extend(run)
        if run.after > position:
            position, most = run.after, min(2 * most, _RUN)
        else:
            position, most = _step(path, found, tar, position), 1
        if len(found.names) > MEMBERS:
            raise ShardError(f"shard {path} has over {MEMBERS:,} members: write smaller shards")
    if found.gaps and not any(found.names) and not any(gap.name for gap in found.gaps):
        raise ShardError(
            f"shard {path} is no tar, or all of it is damaged: build or fetch it again"
        )
    _refuse_names(path, [*found.names, *(gap.name for gap in found.gaps)])
    _distrust_cut_names(found)
    return found


def _end_or_damage(found: Walk, tar: mmap.mmap, position: int) -> int:
    """Return where the next header should be: beyond an empty one that is not the end mark."""
    if position + BLOCK > len(tar):
        if found.gaps and found.gaps[-1].end == len(tar):
            return len(tar)
        return found.lose(min(position, len(tar)), len(tar), "cut short")
    if any(tar[position : position + BLOCK]):
        return position
    if after_zeros(tar, position) < len(tar):
        return _damage(found, tar, position, position, "an empty header")
    if len(tar) - position < 2 * BLOCK:
        found.lose(position, len(tar), "half an end mark")
    if len(tar) - position > RECORD + 2 * BLOCK:  # more than any writer's end mark
        found.lose(position, len(tar), "nothing but zeros")
    return len(tar)


def _step(path: Path, found: Walk, tar: mmap.mmap, start: int) -> int:
    """Take one member with the headers that belong to it, or a gap; returns the position after."""
    position, records, spoilt = start, Records(), False
    while (header := read_header(tar, position)) and header[0] in PREFIXES:
        length, begin = header[2], position + BLOCK
        if length > PREFIX_BYTES:
            return _damage(found, tar, start, position)
        more = read_records(header[0], tar[begin : begin + length])
        _refuse_sparse(path, more or {})
        spoilt |= more is None
        records |= more or {}
        position = after_member(position, length)
    if header is None:
        return _damage(found, tar, start, position)
    found.has_long_names |= "path" in records
    kind, name, length = header
    name, length = records.get("path", name), int(records.get("size", length))
    after = after_member(position, length)
    if kind not in PASSED_OVER + FILES:
        raise ShardError(f"shard {path} holds a link or device: write it with plain files only")
    if position + BLOCK + length > len(tar):
        return _overlong(found, tar, start, position, "" if spoilt else name)
    if kind in PASSED_OVER:
        return after
    if spoilt:
        return found.lose(start, after, "a damaged PAX header")
    found.add(name, position + BLOCK, length)
    return after


def _overlong(found: Walk, tar: mmap.mmap, start: int, position: int, name: str) -> int:
    """Note a member that is longer than the tar: either is cut, or its length is wrong."""
    if any(tar[len(tar) - 2 * BLOCK :]):
        return found.lose(start, len(tar), "cut short", name)
    after = goes_on_at(tar, position + BLOCK)
    return found.resume(start, after, "a length that cannot be", name)


def _damage(
    found: Walk, tar: mmap.mmap, start: int, position: int, why: str = "a damaged header"
) -> int:
    """Note that no header is at ``position``; what belongs to it begins at ``start``."""
    if found.begins and after_member(found.begins[-1] - BLOCK, found.lengths[-1]) == start:
        after = cut_member_ends_at(tar, found.begins[-1], start)
        if after is not None:
            begin, _ = found.begins.pop(), found.lengths.pop()
            return found.resume(begin - BLOCK, after, "blocks that are gone", found.names.pop())
    size = tar[position + 124 : position + 135]
    sought = after_member(position, int(size, 8)) if OCTAL.fullmatch(size) else None
    return found.resume(start, goes_on_at(tar, position + BLOCK, sought), why)


def _refuse_disguise(path: Path, start: bytes) -> None:
    for magic, remedy in _DISGUISES.items():
        if start.startswith(magic):
            raise ShardError(f"shard {path} is compressed: decompress it first ({remedy})")


def _refuse_sparse(path: Path, records: Records) -> None:
    if any(key.startswith("GNU.sparse") for key in records):
        raise ShardError(f"shard {path} holds a sparse file: write it with plain files only")


def _refuse_names(path: Path, names: list[str]) -> None:
    text = "\n".join(["", *names])
    if "\n/" not in text and ".." not in text:
        return
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise ShardError(f"shard {path} holds {name!r}, outside itself: write plain names")


def _distrust_cut_names(found: Walk) -> None:
    """Take their names from members whose long name may have been in the damage before them."""
    for place in {gap.place for gap in found.gaps if gap.place < len(found.names)}:
        name, head = found.names[place], found.begins[place] - BLOCK
        if head in found.resumed and (found.has_long_names or len(name.encode()) >= 100):
            end = after_member(head, found.lengths[place])
            found.gaps.append(Gap(head, end, "a name that may be cut", "", place))
            found.names[place] = ""
