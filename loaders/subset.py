"""Choose some pairs of a folder: by a list of uids, an expression over columns or a bitmap."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import PoolError
from .predicate import parse, rows_where
from .whole_file import replaced

if TYPE_CHECKING:
    from .folder import Folder

Subset: TypeAlias = str | Path | Iterable[str] | pa.Array | np.ndarray
"""A file's path, an expression, uids, or a bitmap: bool [pairs of the folder]."""

LISTS = (".parquet", ".npy", ".txt")
BITMAP_TYPES = (np.bool_, np.uint8)
UID_PATTERN = "^[0-9a-f]{32}$"
NPY_TYPE = np.dtype("u8,u8")
"""DataComp's type of a uid: its high and its low 64 bits."""


def resolve_subset(folder: "Folder", subset: Subset | None) -> np.ndarray:
    """Return the rows of a folder that a subset names: int64, ascending; None names them all.

    A text that ends in .parquet, .npy or .txt is a file, any other an expression. An ``.npy`` of
    type u8,u8 is a uid list; one of bool, or of uint8 as ``np.packbits`` makes it, is a bitmap of
    the folder's rows. Unknown uids name no row. Raises PoolError where it can be neither.
    """
    if subset is None:
        return np.arange(len(folder))
    if isinstance(subset, str) and Path(subset).suffix not in LISTS:
        return _by_expression(folder, subset)
    chosen = read_subset(subset) if isinstance(subset, str | Path) else subset
    if isinstance(chosen, np.ndarray) and chosen.dtype in BITMAP_TYPES:
        return _by_bitmap(folder, chosen)
    return folder.rows_of(chosen)


def read_subset(path: str | Path) -> pa.Array | np.ndarray:
    """Read a file of uids as ``read_uids`` does, or the bits of a bitmap as they are stored."""
    bits = _bits_of(Path(path))
    return read_uids(path) if bits is None else bits


def read_uids(path: str | Path) -> pa.Array:
    """Read a list of uids: parquet (column ``uid``), DataComp's ``.npy``, or text, one a line.

    Raises PoolError where the file is missing, of another kind, empty or holds something else.
    """
    path = Path(path)
    readers = {".parquet": _from_parquet, ".npy": _from_npy, ".txt": _from_text}
    if not path.is_file():
        raise PoolError(f"there is no uid list {path}: check the path")
    if path.suffix not in readers:
        raise PoolError(f"{path} is no uid list: give a .parquet, .npy or .txt file")
    try:
        uids = readers[path.suffix](path)
    except (ValueError, pa.ArrowException) as error:
        raise PoolError(f"{path} cannot be read as a uid list: {error}") from error
    if not len(uids):
        raise PoolError(f"{path} holds no uid: give at least one")
    is_right = pc.fill_null(pc.match_substring_regex(uids, UID_PATTERN), False)
    place = pc.index(is_right, False).as_py()
    if place >= 0:
        wrong = uids[place].as_py()
        raise PoolError(f"{path} holds {wrong!r}: a uid is 32 lower-case hex characters")
    return uids


def write_npy(path: Path, uids: Iterable[str]) -> None:
    """Write uids as DataComp does: sorted, each as two uint64."""
    digits = "".join(sorted(uids))
    halves = np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, 2)
    packed = np.empty(len(halves), NPY_TYPE)
    packed["f0"], packed["f1"] = halves[:, 0], halves[:, 1]
    with replaced(path) as file:
        np.save(file, packed, allow_pickle=False)


def _from_parquet(path: Path) -> pa.Array:
    if "uid" not in pq.read_schema(path).names:
        raise ValueError("it has no column 'uid'")
    column = pq.read_table(path, columns=["uid"])["uid"]
    return column.cast(pa.string()).combine_chunks()


def _from_npy(path: Path) -> pa.Array:
    packed = np.load(path, allow_pickle=False)
    if packed.dtype != NPY_TYPE:
        raise ValueError(f"its type is {packed.dtype}, not u8,u8")
    digits = np.stack([packed["f0"], packed["f1"]], 1).astype(">u8").tobytes().hex().encode()
    ends = np.arange(0, len(digits) + 1, 32, dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(packed), buffers).cast(pa.string())


def _from_text(path: Path) -> pa.Array:
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    return pa.array([line for line in lines if line], pa.string())


def _by_expression(folder: "Folder", text: str) -> np.ndarray:
    try:
        predicate = parse(text)
    except PoolError as error:
        raise PoolError(f"{error}; a file of uids is a .parquet, .npy or .txt") from error
    return rows_where(folder, predicate)


def _by_bitmap(folder: "Folder", bits: np.ndarray) -> np.ndarray:
    """Return the rows whose bit is set; raises PoolError for a bitmap of another folder."""
    pairs = len(folder)
    packed = bits.dtype == np.uint8
    if bits.shape != (-(-pairs // 8) if packed else pairs,):
        kind = "packed bits" if packed else "bool"
        raise PoolError(
            f"a bitmap of {bits.size:,} {'bytes of ' if packed else ''}{kind} is not of a folder "
            f"of {pairs:,} pairs: make it anew for this one"
        )
    if packed and np.unpackbits(bits[-1:])[(pairs - 1) % 8 + 1 :].any():
        raise PoolError(f"a bitmap has bits after its {pairs:,} pairs: make it anew for this one")
    return np.flatnonzero(np.unpackbits(bits, count=pairs) if packed else bits)


def _bits_of(path: Path) -> np.ndarray | None:
    """Read an .npy of bits; None where the file is something else."""
    if path.suffix != ".npy" or not path.is_file():
        return None
    try:
        bits = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise PoolError(f"{path} cannot be read as a uid list or bitmap: {error}") from error
    return np.asarray(bits) if bits.dtype in BITMAP_TYPES else None
