"""Draw a world as a pool of links with planted defects.

Captions and kinds are decided first, in one process; the pictures are then drawn in parallel.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from breadth.loaders.errors import Refused
from breadth.loaders.world import World, caption, picture, scene

from .candidates import (
    COPIES,
    REPEATED_CAPTION,
    Candidate,
    Defects,
    Planted,
    finished,
    jpeg,
    link,
    placeholder,
    write_pool,
)
from .foreign import LANGUAGES, foreign_caption
from .servers import PLACEHOLDER, free_port

# Scenes of wrong captions are other scenes than any that is drawn.
_ELSEWHERE = 10_000_000


@dataclass(frozen=True)
class _Drawing:
    """A file to write: what is drawn and how it is damaged."""

    file: Path
    scene: int
    kind: str


def plant(
    world: World,
    n_pairs: int,
    seed: int,
    folder: Path,
    addresses: Sequence[str],
    *,
    defects: Defects | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Planted:
    """Write a pool of ``n_pairs`` candidates; a finished one of the same settings is taken as is.

    ``progress`` is told how many pictures are drawn, and of how many. Raises OutputError where the
    folder holds a pool of other settings. Cost: about 3 ms of one core per picture.
    """
    defects = defects or Defects()
    settings = {
        "world": asdict(world),
        "pairs": n_pairs,
        "seed": seed,
        "addresses": list(addresses),
        "defects": asdict(defects),
    }
    done = finished(folder, settings)
    if done:
        return done
    planted = Planted(folder, tuple(addresses), free_port(addresses))
    for address in addresses:
        (planted.pictures / address).mkdir(parents=True, exist_ok=True)
    rows, drawings = _decide(world, n_pairs, np.random.default_rng([seed, 3]), planted, defects)
    _draw_all(world, drawings, workers, progress)
    for address in addresses:
        (planted.pictures / address / PLACEHOLDER).write_bytes(placeholder())
    write_pool(planted, rows, settings)
    return planted


def counts(n_pairs: int, defects: Defects) -> dict[str, int]:
    """Return how many candidates there are of each kind; raises Refused where they do not fit."""
    numbers = {f.name: round(getattr(defects, f.name) * n_pairs) for f in fields(Defects)}
    clean = n_pairs - sum(numbers.values())
    needed = sum(numbers[kind] for kind in COPIES) + numbers["repeated_candidate"]
    if clean < max(needed, 1):
        raise Refused(f"{n_pairs} candidates are too few for these defects: {clean} would be clean")
    return {"clean": clean, **numbers}


def _decide(
    world: World, n_pairs: int, rng: np.random.Generator, planted: Planted, defects: Defects
) -> tuple[list[Candidate], list[_Drawing]]:
    """Choose every row of the pool, in shuffled order, and the files behind it."""
    numbers = counts(n_pairs, defects)
    kinds = [kind for kind, n in numbers.items() for _ in range(n)]
    names = rng.permutation(len(kinds))  # so that a link's number tells nothing of its kind
    originals = iter(rng.permutation(numbers["clean"]).tolist())  # clean rows come first
    rows: list[Candidate] = []
    drawings: list[_Drawing] = []
    for number, (kind, name) in enumerate(zip(kinds, names.tolist(), strict=True)):
        if kind == "repeated_candidate":
            first = rows[next(originals)]
            rows.append(Candidate(first.url, first.caption, kind, first.scene, first.url))
            continue
        host = int(rng.integers(len(planted.addresses)))
        original = rows[next(originals)] if kind in COPIES else None
        shown = original.scene if original else number
        file = f"{name:06d}.jpg"
        url = link(planted, host, kind, file)
        words = original.caption if original else _words(world, kind, number, rng)
        rows.append(Candidate(url, words, kind, shown, original.url if original else ""))
        if kind not in ("http_404", "placeholder"):
            drawings.append(_Drawing(planted.file(host, kind, file), shown, kind))
    return [rows[i] for i in rng.permutation(len(rows))], drawings


def _words(world: World, kind: str, number: int, rng: np.random.Generator) -> str:
    own = scene(world, number)
    if kind == "foreign_caption":
        return foreign_caption(own, str(rng.choice(LANGUAGES)))
    if kind == "repeated_caption":
        return REPEATED_CAPTION
    if kind != "wrong_caption":
        return caption(own)
    while True:
        other = scene(world, _ELSEWHERE + int(rng.integers(_ELSEWHERE)))
        if other.labels["colour_shape"] != own.labels["colour_shape"]:
            return caption(other)


def _draw_all(
    world: World,
    drawings: Sequence[_Drawing],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Draw in parallel processes; they are spawned, as forking beside OpenCV's threads may hang."""
    chunks = [drawings[i : i + 100] for i in range(0, len(drawings), 100)]
    done = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for n_drawn in pool.map(_draw, [world] * len(chunks), chunks):
            done += n_drawn
            if progress:
                progress(done, len(drawings))


def _draw(world: World, drawings: Sequence[_Drawing]) -> int:
    cv2.setNumThreads(1)  # one process a core already
    for drawing in drawings:
        drawing.file.write_bytes(_encoded(world, drawing))
    return len(drawings)


def _encoded(world: World, drawing: _Drawing) -> bytes:
    """Return the bytes of one file. Its size hangs on the scene, so copies agree with originals."""
    index, kind = drawing.scene, drawing.kind
    if kind == "tiny":
        return jpeg(picture(scene(world, index), 40 + index * 37 % 120))
    if kind == "broken":
        return _broken(world, index)
    drawn = picture(scene(world, index), 228 + index * 37 % 61)
    if kind == "near_duplicate_reencoded":
        return jpeg(drawn, quality=(50, 60, 70)[index % 3])
    if kind == "near_duplicate_resized":
        factor = (0.9, 1.15, 1.3)[index % 3]  # never below 200 px, where a size rule would drop it
        drawn = cv2.resize(drawn, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return jpeg(drawn)


def _broken(world: World, index: int) -> bytes:
    """Return what hosts send in place of a picture, or a picture that lost its beginning or end."""
    whole = jpeg(picture(scene(world, index), 228))
    page = b"<html><body>This picture has moved.</body></html>"
    return (b"", page, whole[:200], b"\0" * 512 + whole[512:])[index % 4]
