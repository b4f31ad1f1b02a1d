"""Find where a damaged tar goes on."""

import mmap
from collections.abc import Iterator

import numpy as np

from .tar_header import BLOCK, FILES, PASSED_OVER, PREFIXES, after_member, read_header

RECORD = 20 * BLOCK  # tar programs pad archives to a multiple of this
_SCAN_BLOCKS = 4096
_KNOWN = FILES + PREFIXES + PASSED_OVER


def goes_on_at(tar: mmap.mmap, begin: int, sought: int | None = None) -> int:
    """Return the first header from ``begin`` on that leads to another or to the end mark.

    A header whose chain ends in an end mark of its own, with a header right after it, is that of a
    tar inside a member, and passed over. ``sought`` is tried first. Where there is none, returns
    where the end mark is, or the tar's length. Cost: reads what is passed over, and the headers up
    to the next damage.
    """
    if sought is not None and sought >= begin and _leads_on(tar, sought, list(_chain(tar, sought))):
        return sought
    for position in _candidates(tar, begin):
        if position < begin:
            continue
        chain = list(_chain(tar, position))
        beyond = _beyond_inner_tar(tar, position, chain[-1]) if chain else 0
        if beyond:
            begin = beyond
        elif _leads_on(tar, position, chain):
            return position
    end_mark = _zeros_at_end(tar, begin)
    return end_mark if len(tar) - end_mark >= 2 * BLOCK else len(tar)


def cut_member_ends_at(tar: mmap.mmap, begin: int, end: int) -> int | None:
    """Return where in a member's stated body the next header is, if the body lost some blocks.

    ``end`` is where the body should end and no header is. A chain of headers from inside the body
    past its end is not that of a tar inside the member, which ends before.
    """
    for position in _candidates(tar, begin, end):
        if position < begin:
            continue
        chain = list(_chain(tar, position))
        if chain and chain[-1][0] > end:
            return position
        begin = chain[-1][1] if chain else begin
    return None


def after_zeros(tar: mmap.mmap, position: int) -> int:
    """Return the first block from ``position`` on that is not empty, or the tar's length."""
    while piece := tar[position : position + _SCAN_BLOCKS * BLOCK]:
        if piece.count(0) < len(piece):
            at = int(np.flatnonzero(np.frombuffer(piece, np.uint8))[0])
            return position + at // BLOCK * BLOCK
        position += len(piece)
    return len(tar)


def _zeros_at_end(tar: mmap.mmap, begin: int) -> int:
    """Return the first block from ``begin`` on after which all is empty."""
    end = len(tar)
    while end > begin:
        start = max(begin, end - _SCAN_BLOCKS * BLOCK)
        full = np.flatnonzero(np.frombuffer(tar[start:end], np.uint8))
        if len(full):
            return start + (int(full[-1]) // BLOCK + 1) * BLOCK
        end = start
    return begin


def _candidates(tar: mmap.mmap, begin: int, end: int | None = None) -> Iterator[int]:
    """Yield every block of a range that is a header with a right checksum."""
    end = len(tar) if end is None else end
    for start in range(begin, end, _SCAN_BLOCKS * BLOCK):
        piece = tar[start : min(end, start + _SCAN_BLOCKS * BLOCK)]
        blocks = np.frombuffer(piece, np.uint8)[: len(piece) // BLOCK * BLOCK].reshape(-1, BLOCK)
        has_magic = (blocks[:, 257:262] == np.frombuffer(b"ustar", np.uint8)).all(1)
        for block in np.flatnonzero(has_magic).tolist():
            if read_header(tar, start + block * BLOCK):
                yield start + block * BLOCK


def _chain(tar: mmap.mmap, position: int) -> Iterator[tuple[int, int]]:
    """Yield the headers that each lead to the next: position, and where its member ends."""
    while header := read_header(tar, position):
        kind, _, length = header
        after = after_member(position, length)
        if kind not in _KNOWN or after > len(tar):
            return
        yield position, after
        position = after


def _leads_on(tar: mmap.mmap, position: int, chain: list[tuple[int, int]]) -> bool:
    if not chain:
        return False
    return len(chain) > 1 or after_zeros(tar, chain[0][1]) == len(tar)


def _beyond_inner_tar(tar: mmap.mmap, begin: int, last: tuple[int, int]) -> int:
    """Return where the tar that holds another goes on after that, or 0 if there is none inside."""
    beyond = after_zeros(tar, last[1])
    is_marked = beyond - last[1] >= 2 * BLOCK and (beyond - begin) % RECORD == 0
    return beyond if is_marked and read_header(tar, beyond) else 0
