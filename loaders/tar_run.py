"""Read many plain headers of a tar at once."""

import mmap
from struct import Struct
from typing import NamedTuple

import numpy as np

from .tar_header import BLOCK, OCTAL, ONLY_TIME, after_member

_SIZE_AND_KIND = Struct("11sx20xc")
_DIGITS = 8 ** np.arange(5, -1, -1)


class Run(NamedTuple):
    """Files that follow each other in a tar, and the position after the last."""

    names: list[str]
    begins: list[int]
    lengths: list[int]
    after: int


def plain_run(tar: mmap.mmap, position: int, most: int) -> Run:
    """Return up to ``most`` members from ``position`` on whose headers have nothing odd about them.

    Headers are followed first and checked together then: 1.1 microseconds each.
    """
    heads, lengths = [position], []
    for _ in range(most):
        head = heads[-1]
        length = _plain_length(tar, head) if head + BLOCK <= len(tar) else None
        if length is None or (after := after_member(head, length)) > len(tar):
            break
        heads.append(after)
        lengths.append(length)
    if not lengths:
        return Run([], [], [], position)
    blocks = np.frombuffer(tar, np.uint8, count=len(tar) // BLOCK * BLOCK).reshape(-1, BLOCK)
    headers = blocks[np.array(heads[:-1]) // BLOCK]
    is_good = _are_plain(headers)
    good = len(lengths) if is_good.all() else int(is_good.argmin())
    files = np.flatnonzero(headers[:good, 156] == ord("0")).tolist()
    names = np.ascontiguousarray(headers[:good, :100]).view("S100")[:, 0].tolist()
    return Run(
        [str(names[i], "utf-8", "replace").partition("\0")[0] for i in files],
        [heads[i] + BLOCK for i in files],
        [lengths[i] for i in files],
        heads[good],
    )


def _plain_length(tar: mmap.mmap, position: int) -> int | None:
    """Return the length of a plain file, or of a PAX header that says nothing but a time."""
    size, kind = _SIZE_AND_KIND.unpack_from(tar, position + 124)
    if not OCTAL.fullmatch(size):
        return None
    length = int(size, 8)
    begin = position + BLOCK
    is_time = kind == b"x" and ONLY_TIME.fullmatch(tar, begin, begin + length)
    return length if kind == b"0" or is_time else None


def _are_plain(headers: np.ndarray) -> np.ndarray:
    """Say which headers have a right checksum and a name without a folder: bool [headers]."""
    sums = headers.sum(1, dtype=np.int32) - headers[:, 148:156].sum(1, dtype=np.int32)
    digits = headers[:, 148:154] - np.uint8(ord("0"))
    stated = digits.astype(np.int32) @ _DIGITS
    is_sum = (digits < 8).all(1) & (headers[:, 154] | 32 == 32) & (stated == sums + 8 * ord(" "))
    return is_sum & (headers[:, 135] | 32 == 32) & (headers[:, 345] == 0)
