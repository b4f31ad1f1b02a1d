"""A pool of links with planted defects: its rows, its files and what is true of each row.

The pool (``pool.parquet``: url, caption) tells nothing of the defects; ``truth.parquet`` names for
every row its kind, its scene and, for copies, the link of the original.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from breadth.loaders.errors import OutputError
from breadth.loaders.whole_file import replaced

REPEATED_CAPTION = "click here to see the picture in its full size"
_SETTINGS = "planted.json"  # written last: a folder that has it is complete

COPIES = ("exact_duplicate", "near_duplicate_reencoded", "near_duplicate_resized")
_BEHAVIOUR = {"redirect": "redirect/", "slow_ok": "slow/", "timeout": "hang/"}
_BEHAVIOUR["placeholder"] = "placeholder/"


@dataclass(frozen=True)
class Defects:
    """Which part of the candidates is of each kind; the rest is clean."""

    wrong_caption: float = 0.10
    foreign_caption: float = 0.03
    exact_duplicate: float = 0.02
    near_duplicate_reencoded: float = 0.02
    near_duplicate_resized: float = 0.02
    repeated_caption: float = 0.008
    tiny: float = 0.02
    broken: float = 0.01
    http_404: float = 0.02
    redirect: float = 0.02
    slow_ok: float = 0.005
    timeout: float = 0.001  # each costs a fetching thread its whole patience
    placeholder: float = 0.01
    repeated_candidate: float = 0.01


@dataclass(frozen=True)
class Candidate:
    """One row of the pool and what is true of it; ``partner`` is the link of a copy's original."""

    url: str
    caption: str
    kind: str
    scene: int
    partner: str = ""


@dataclass(frozen=True)
class Planted:
    """A planted pool: where it lies and which servers its links name."""

    folder: Path
    addresses: tuple[str, ...]
    port: int

    @property
    def pool(self) -> Path:
        """The candidates as a crawler would have them."""
        return self.folder / "pool.parquet"

    @property
    def truth(self) -> Path:
        """The same rows with kind, scene and partner."""
        return self.folder / "truth.parquet"

    @property
    def pictures(self) -> Path:
        """What the servers serve."""
        return self.folder / "pictures"

    def file(self, host: int, kind: str, name: str) -> Path:
        """Return where the file behind a link lies; a redirected one is on the next host."""
        serving = (host + (kind == "redirect")) % len(self.addresses)
        return self.pictures / self.addresses[serving] / name


def link(planted: Planted, host: int, kind: str, name: str) -> str:
    """Return the link of a file on a host that behaves as its kind says."""
    address = planted.addresses[host]
    return f"http://{address}:{planted.port}/{_BEHAVIOUR.get(kind, '')}{name}"


def finished(folder: Path, settings: dict[str, object]) -> Planted | None:
    """Return the pool of ``folder`` where it is complete, None where there is none yet."""
    path = folder / _SETTINGS
    if not path.is_file():
        return None
    stored = json.loads(path.read_bytes())
    port = stored.pop("port")
    if stored != json.loads(json.dumps(settings)):
        raise OutputError(f"{folder} holds a pool of other settings: give another --out")
    return Planted(folder, tuple(stored["addresses"]), port)


def write_pool(planted: Planted, rows: Sequence[Candidate], settings: dict[str, object]) -> None:
    """Write truth, pool and, last, the settings."""
    truth = pa.table({f.name: [getattr(row, f.name) for row in rows] for f in fields(Candidate)})
    for path, table in ((planted.truth, truth), (planted.pool, truth.select(["url", "caption"]))):
        with replaced(path) as file:
            pq.write_table(table, file)
    with replaced(planted.folder / _SETTINGS) as file:
        file.write(json.dumps(settings | {"port": planted.port}, indent=1).encode())


def jpeg(drawn: np.ndarray, quality: int = 92) -> bytes:
    """Encode uint8 [h, w, 3], RGB."""
    encoded = cv2.imencode(".jpg", drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return encoded.tobytes()


def placeholder(px: int = 256) -> bytes:
    """Draw the picture that says there is no picture."""
    drawn = np.full((px, px, 3), 200, np.uint8)
    cv2.rectangle(drawn, (40, 60), (px - 40, px - 60), (150, 150, 150), 4)
    cv2.putText(drawn, "no picture", (52, 138), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (90, 90, 90), 2)
    return jpeg(drawn)
