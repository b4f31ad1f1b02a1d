"""Small pictures of kept and dropped pairs, so that a report can show what was decided."""

import io
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from breadth.loaders.whole_file import replaced

from .contact_sheet import draw, is_withheld
from .legs import Leg, picture_legs
from .pictures import Pictures
from .workspace import Workspace

SIDE_PX = 96


def choose(ledger: Sequence[Path], seed: int, per_reason: int) -> list[list[int]]:
    """Choose the rows of each part to show: at most so many per stage and reason, and witnesses.

    The choice is by hash of uid and seed, so it depends on neither order nor parts. A witness can
    itself have been dropped by a later stage; what is withheld is never chosen.
    """
    shown: dict[tuple[str, str], list[tuple[bytes, int, int, str]]] = defaultdict(list)
    for part, file in enumerate(ledger):
        for row, pair in _rows_to_show(file):
            drawn = draw(pair["uid"], seed)
            shown[_group(pair)].append((drawn, part, row, pair["witness"] or ""))
        for group, rows in shown.items():
            shown[group] = sorted(rows)[:per_reason]
    first = [row for group in shown.values() for row in group]
    chosen = {(part, row) for _, part, row, _ in first}
    witnesses = {witness for *_, witness in first if witness}
    if witnesses:
        for part, file in enumerate(ledger):
            pairs = _rows_to_show(file)
            chosen |= {(part, row) for row, pair in pairs if pair["uid"] in witnesses}
    return [sorted(row for part, row in chosen if part == p) for p in range(len(ledger))]


def _rows_to_show(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    table = pq.read_table(file, columns=["uid", "dropped_by", "reason", "witness"])
    for row, pair in enumerate(table.to_pylist()):
        if pair["dropped_by"] != "pool" and not is_withheld(_group(pair)):
            yield row, pair


def _group(pair: Mapping[str, Any]) -> tuple[str, str]:
    return pair["dropped_by"] or "", pair["reason"] or ""


@dataclass(frozen=True)
class ThumbsTask:
    """Write the thumbnails of one part; a pair without a picture has none.

    A thumbnail that is there stays where its picture has been freed since.
    """

    workspace: Workspace
    legs: tuple[Leg, ...]
    part: int
    rows: tuple[int, ...]

    def __call__(self) -> int:
        """Return how many thumbnails there are."""
        file = self.workspace.thumbs_file(self.part)
        small = {uid: jpeg for uid, jpeg in self._small(_stored(file)) if jpeg}
        file.parent.mkdir(exist_ok=True)
        with (
            replaced(file) as sink,
            tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for uid, jpeg in small.items():
                info = tarfile.TarInfo(f"{uid}.jpg")
                info.size = len(jpeg)
                tar.addfile(info, io.BytesIO(jpeg))
        return len(small)

    def _small(self, before: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        candidates = self.workspace.candidates(self.part)
        uids = candidates["uid"].take(pa.array(self.rows, pa.int64())).to_pylist()
        pictures = Pictures(self.workspace.out, self.part, candidates, picture_legs(self.legs))
        with closing(pictures):
            for row, uid in zip(self.rows, uids, strict=True):
                there = pictures.place(row) is not None
                yield uid, thumbnail(pictures.read(row)) if there else before.get(uid, b"")


def _stored(file: Path) -> dict[str, bytes]:
    if not file.is_file():
        return {}
    with tarfile.open(file) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar]
        return {Path(name).stem: body.read() for name, body in members if body}


def thumbnail(encoded: bytes) -> bytes:
    """Return a JPEG with a longer side of at most 96 px; empty where the picture is unreadable."""
    picture: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        return b""
    scale = min(1.0, SIDE_PX / max(picture.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])
