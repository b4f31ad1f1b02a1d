"""Choose pairs to look at, per drop reason, and find their thumbnails; none of opt-outs."""

import heapq
import re
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CELLS = 12  # per drop reason
KEPT_CELLS = 24
WITHHELD = re.compile(r"opt.?out|opted.?out|robots|noai|unsafe|nsfw|csam|forget|takedown", re.I)
"""Stages and reasons whose pairs are counted and never shown."""

Group = tuple[str, str]
"""A stage and a reason; ("", "") for kept pairs."""
KEPT: Group = ("", "")


@dataclass(frozen=True)
class Cell:
    """A pair on a contact sheet."""

    uid: str
    part: str
    caption: str
    url: str
    distance: float | None = None
    witness_uid: str | None = None
    picture: bytes | None = field(default=None, repr=False)
    witness: "Cell | None" = None


def is_withheld(group: Group) -> bool:
    """Say whether pairs dropped for this reason must never be shown."""
    return any(WITHHELD.search(word) for word in group)


def contact_sheets(folder: Path, files: Sequence[Path], seed: int) -> dict[Group, list[Cell]]:
    """Return some pairs of each group with their thumbnails, withheld groups left out.

    Pairs that have a thumbnail come first, then the most distant from their witness (where a
    wrong match would show), then by hash of uid and the build's seed, as thumbnails are drawn.
    ``files`` is the ledger of the build ``folder``.
    Cost: reads captions and verdicts twice and lists every thumbnail tar.
    """
    chosen = _choose(folder, files, seed)
    wanted = {uid for cells in chosen.values() for cell in cells for uid in _uids(cell)}
    found, withheld = _look_up(files, wanted)
    pictures = _thumbnails(folder, found.values(), withheld)
    return {
        group: [_complete(cell, found, pictures, withheld) for cell in cells]
        for group, cells in sorted(chosen.items())
    }


def _choose(folder: Path, files: Sequence[Path], seed: int) -> dict[Group, list[Cell]]:
    best: dict[Group, list[tuple[Any, Cell]]] = {}
    for file in files:
        pictured = set(_names(folder, file.stem))
        fresh: dict[Group, list[tuple[Any, Cell]]] = {}
        for row in _rows(file):
            group = _group(row)
            if not is_withheld(group):
                ranked = (_rank(row, row["uid"] in pictured, seed), _cell(row, file.stem))
                fresh.setdefault(group, []).append(ranked)
        for group, ranked_cells in fresh.items():
            most = KEPT_CELLS if group == KEPT else CELLS
            both = best.get(group, []) + ranked_cells
            best[group] = heapq.nsmallest(most, both, key=lambda ranked: ranked[0])
    return {group: [cell for _, cell in ranked] for group, ranked in best.items()}


def _rank(row: dict[str, Any], has_picture: bool, seed: int) -> tuple[bool, float, bytes]:
    distance = row.get("distance")
    # as thumbnails are drawn: by another hash, witnesses would crowd the kept pairs
    return not has_picture, 0.0 if distance is None else -distance, draw(row["uid"], seed)


def draw(uid: str, seed: int) -> bytes:
    """Return the hash by which pairs are drawn to be shown: the smallest are."""
    return blake2b(f"{seed}/{uid}".encode(), digest_size=8).digest()


def _rows(file: Path) -> list[dict[str, Any]]:
    names = ("uid", "url", "caption", "kept", "dropped_by", "reason", "witness", "distance")
    there = set(pq.read_schema(file).names)
    return pq.read_table(file, columns=[name for name in names if name in there]).to_pylist()


def _group(row: dict[str, Any]) -> Group:
    if row["kept"]:
        return KEPT
    stage = row["dropped_by"] or "unknown"
    return stage, row["reason"] or stage


def _cell(row: dict[str, Any], part: str) -> Cell:
    return Cell(
        uid=row["uid"],
        part=part,
        caption=row.get("caption") or "",
        url=row.get("url") or "",
        distance=row.get("distance"),
        witness_uid=row.get("witness"),
    )


def _uids(cell: Cell) -> list[str]:
    return [cell.uid] + ([cell.witness_uid] if cell.witness_uid else [])


def _look_up(files: Sequence[Path], wanted: Collection[str]) -> tuple[dict[str, Cell], set[str]]:
    """Find the kept row of each uid (else any), and the uids that a withheld row also has."""
    found: dict[str, Cell] = {}
    withheld: set[str] = set()
    values = pa.array(sorted(wanted), pa.string())
    for file in files:
        uids = pq.read_table(file, columns=["uid"])["uid"]
        if not pc.any(pc.is_in(uids, value_set=values)).as_py():
            continue
        for row in _rows(file):
            if row["uid"] not in wanted:
                continue
            if is_withheld(_group(row)):
                withheld.add(row["uid"])
            elif row["kept"] or row["uid"] not in found:
                found[row["uid"]] = _cell(row, file.stem)
    return found, withheld


def _thumbnails(
    folder: Path, cells: Collection[Cell], withheld: Collection[str]
) -> dict[str, bytes]:
    by_part: dict[str, set[str]] = {}
    for cell in cells:
        if cell.uid not in withheld:
            by_part.setdefault(cell.part, set()).add(cell.uid)
    pictures: dict[str, bytes] = {}
    for part, uids in sorted(by_part.items()):
        for uid, body in _members(folder, part):
            if uid in uids:
                pictures[uid] = body()
    return pictures


def _names(folder: Path, part: str) -> Iterator[str]:
    return (uid for uid, _ in _members(folder, part))


def _members(folder: Path, part: str) -> Iterator[tuple[str, Any]]:
    path = folder / "thumbs" / f"{part}.tar"
    if not path.is_file():
        return
    with tarfile.open(path) as tar:
        for member in tar:
            yield Path(member.name).stem, lambda member=member: _body(tar, member)


def _body(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _complete(
    cell: Cell, found: dict[str, Cell], pictures: dict[str, bytes], withheld: Collection[str]
) -> Cell:
    witness = found.get(cell.witness_uid or "")
    if witness and witness.uid not in withheld:
        witness = replace(witness, picture=pictures.get(witness.uid))
    return replace(cell, picture=pictures.get(cell.uid), witness=witness)
