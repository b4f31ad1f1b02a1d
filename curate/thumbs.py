"""Small pictures of kept and dropped pairs, so that a report can show what was decided."""

import hashlib
import io
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from breadth.loaders.whole_file import replaced

from .contact_sheet import is_withheld
from .legs import Leg
from .pictures import Pictures
from .workspace import Workspace

SIDE_PX = 96


def choose(ledger: Sequence[Path], seed: int, per_reason: int) -> list[list[int]]:
    """Choose the rows of each part to show: at most so many per stage and reason, and witnesses.

    The choice is by hash of uid and seed, so it depends on neither order nor parts.
    """
    shown: dict[tuple[str, str], list[tuple[bytes, int, int]]] = defaultdict(list)
    where: dict[str, tuple[int, int]] = {}
    witness: dict[tuple[int, int], str] = {}
    for part, file in enumerate(ledger):
        table = pq.read_table(file, columns=["uid", "kept", "dropped_by", "reason", "witness"])
        for row, pair in enumerate(table.to_pylist()):
            group = pair["dropped_by"] or "", pair["reason"] or ""
            if group[0] != "pool" and not is_withheld(group):
                draw = hashlib.blake2b(f"{seed}/{pair['uid']}".encode(), digest_size=8).digest()
                shown[group].append((draw, part, row))
            if pair["kept"]:
                where[pair["uid"]] = (part, row)
            if pair["witness"]:
                witness[part, row] = pair["witness"]
    chosen = {(p, r) for group in shown.values() for _, p, r in sorted(group)[:per_reason]}
    chosen |= {where[witness[place]] for place in chosen if place in witness}
    return [sorted(row for part, row in chosen if part == p) for p in range(len(ledger))]


@dataclass(frozen=True)
class ThumbsTask:
    """Write the thumbnails of one part; a pair without a picture has none."""

    workspace: Workspace
    legs: tuple[Leg, ...]
    part: int
    rows: tuple[int, ...]

    def __call__(self) -> int:
        """Return how many thumbnails were written."""
        candidates = self.workspace.candidates(self.part)
        stored = tuple(leg.folder for leg in self.legs if leg.writes_pictures)
        pictures = Pictures(self.workspace.out, self.part, candidates, stored)
        have = [row for row in self.rows if pictures.place(row) is not None]
        uids = candidates["uid"].take(pa.array(have, pa.int64())).to_pylist()
        small = {uid: thumbnail(pictures.read(row)) for uid, row in zip(uids, have, strict=True)}
        pictures.close()
        file = self.workspace.thumbs_file(self.part)
        file.parent.mkdir(exist_ok=True)
        with (
            replaced(file) as sink,
            tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for uid, jpeg in small.items():
                if jpeg:
                    info = tarfile.TarInfo(f"{uid}.jpg")
                    info.size = len(jpeg)
                    tar.addfile(info, io.BytesIO(jpeg))
        return len(small)


def thumbnail(encoded: bytes) -> bytes:
    """Return a JPEG with a longer side of at most 96 px; empty where the picture is unreadable."""
    picture: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        return b""
    scale = min(1.0, SIDE_PX / max(picture.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])
