"""Read and write lists of uids that choose some pairs of a folder."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import PoolError
from .index import is_uid
from .whole_file import replaced

NPY_TYPE = np.dtype("u8,u8")
"""DataComp's type of a uid: its high and its low 64 bits."""


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
    except (ValueError, pa.ArrowInvalid) as error:
        raise PoolError(f"{path} cannot be read as a uid list: {error}") from error
    if not uids:
        raise PoolError(f"{path} holds no uid: give at least one")
    wrong = next((uid for uid in uids if not is_uid(uid)), None)
    if wrong is not None:
        raise PoolError(f"{path} holds {wrong!r}: a uid is 32 lower-case hex characters")
    return pa.array(uids, pa.string())


def write_npy(path: Path, uids: Iterable[str]) -> None:
    """Write uids as DataComp does: sorted, each as two uint64."""
    digits = "".join(sorted(uids))
    halves = np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, 2)
    packed = np.empty(len(halves), NPY_TYPE)
    packed["f0"], packed["f1"] = halves[:, 0], halves[:, 1]
    with replaced(path) as file:
        np.save(file, packed, allow_pickle=False)


def _from_parquet(path: Path) -> list[str]:
    if "uid" not in pq.read_schema(path).names:
        raise ValueError("it has no column 'uid'")
    return pq.read_table(path, columns=["uid"])["uid"].to_pylist()


def _from_npy(path: Path) -> list[str]:
    packed = np.load(path, allow_pickle=False)
    if packed.dtype != NPY_TYPE:
        raise ValueError(f"its type is {packed.dtype}, not u8,u8")
    halves = np.stack([packed["f0"], packed["f1"]], 1).astype(">u8")
    return [row.tobytes().hex() for row in halves]


def _from_text(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
