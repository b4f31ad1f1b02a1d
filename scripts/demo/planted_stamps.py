"""Serve real stamps as a pool with planted defects, and keep some out of it for evaluation.

Stamps have no classes, so only retrieval can be measured on them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from breadth.curate.shard_writer import PairToWrite, write_folder
from breadth.loaders.manifest import MANIFEST_NAME, Manifest

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
from .servers import PLACEHOLDER, free_port
from .stamps import PACKAGE, Stamp

DEFECTS = Defects(
    wrong_caption=0.10,
    foreign_caption=0.08,
    exact_duplicate=0.04,
    near_duplicate_reencoded=0.04,
    near_duplicate_resized=0.04,
    repeated_caption=0.02,
    tiny=0.02,
    broken=0.02,
    http_404=0.03,
    redirect=0.03,
    slow_ok=0.01,
    timeout=0.003,
    placeholder=0.02,
    repeated_candidate=0.02,
)
_BEFALLING = ("wrong_caption", "foreign_caption", "repeated_caption", "redirect", "slow_ok")
_REDRAWN = ("near_duplicate_reencoded", "near_duplicate_resized", "tiny")
_REPEATING = (*COPIES, "repeated_candidate")


def plant_stamps(
    stamps: Sequence[Stamp],
    seed: int,
    folder: Path,
    addresses: Sequence[str],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Planted:
    """Write the stamps as a pool with planted defects; a finished one is taken as is.

    Defects of caption and host befall stamps themselves, copies and lost links come on top.
    """
    settings: dict[str, object] = {
        "source": PACKAGE,
        "stamps": len(stamps),
        "seed": seed,
        "addresses": list(addresses),
        "defects": asdict(DEFECTS),
    }
    done = finished(folder, settings)
    if done:
        return done
    planted = Planted(folder, tuple(addresses), free_port(addresses))
    for address in addresses:
        (planted.pictures / address).mkdir(parents=True, exist_ok=True)
        (planted.pictures / address / PLACEHOLDER).write_bytes(placeholder())
    rng = np.random.default_rng([seed, 4])
    rows = list(_rows(planted, stamps, rng, progress))
    write_pool(planted, [rows[i] for i in rng.permutation(len(rows))], settings)
    return planted


def _rows(
    planted: Planted,
    stamps: Sequence[Stamp],
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Candidate]:
    """Write every file and yield every row, the stamps' own first."""
    own, extra = _kinds(stamps, rng)
    total = len(own) + len(extra)
    names = rng.permutation(total).tolist()
    rows: list[Candidate] = []
    fit = [i for i, kind in enumerate(own) if kind == "clean" and _may_be_redrawn(stamps[i])]
    originals = iter(rng.permutation(fit).tolist())
    for number, kind in enumerate(own + extra):
        if number < len(own):
            which = number
        else:
            which = next(originals) if kind in _REPEATING else int(rng.choice(fit))
        first = rows[which] if kind in _REPEATING else None
        if first and kind == "repeated_candidate":
            yield Candidate(first.url, first.caption, kind, which, first.url)
            continue
        host = int(rng.integers(len(planted.addresses)))
        name = f"{names[number]:06d}{_suffix(kind, stamps[which])}"
        words = first.caption if first else _words(stamps, which, kind, rng)
        url, partner = link(planted, host, kind, name), first.url if first else ""
        rows.append(Candidate(url, words, kind, which, partner))
        if kind not in ("http_404", "placeholder"):
            planted.file(host, kind, name).write_bytes(_encoded(stamps[which], kind, number))
        yield rows[-1]
        if progress:
            progress(number + 1, total)


def _kinds(stamps: Sequence[Stamp], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return the kind of each stamp and the kinds of the rows that come on top."""
    numbers = {f.name: round(getattr(DEFECTS, f.name) * len(stamps)) for f in fields(DEFECTS)}
    befalling = [kind for kind in _BEFALLING for _ in range(numbers[kind])]
    own = ["clean"] * len(stamps)
    for i, kind in zip(rng.permutation(len(stamps)).tolist(), befalling, strict=False):
        if kind != "foreign_caption" or stamps[i].foreign:
            own[i] = kind
    return own, [kind for kind, n in numbers.items() if kind not in _BEFALLING for _ in range(n)]


def _may_be_redrawn(stamp: Stamp) -> bool:
    """Whether it is a raster picture that no copy makes too small."""
    if stamp.file.suffix != ".png":
        return False
    with Image.open(stamp.file) as opened:
        return min(opened.size) >= 80


def _words(stamps: Sequence[Stamp], which: int, kind: str, rng: np.random.Generator) -> str:
    if kind == "foreign_caption":
        return str(rng.choice(sorted(stamps[which].foreign.values())))
    if kind == "repeated_caption":
        return REPEATED_CAPTION
    own = stamps[which].caption
    if kind == "wrong_caption":
        return str(rng.choice(sorted({s.caption for s in stamps} - {own})))
    return own


def _suffix(kind: str, stamp: Stamp) -> str:
    return ".jpg" if kind in (*_REDRAWN, "placeholder") else stamp.file.suffix


def _encoded(stamp: Stamp, kind: str, number: int) -> bytes:
    """Return the bytes of one file: the stamp's own unless its kind says otherwise."""
    if kind == "broken":
        return (b"", b"<html>moved</html>", stamp.file.read_bytes()[:40])[number % 3]
    if kind not in _REDRAWN:
        return stamp.file.read_bytes()
    drawn = _on_white(stamp)
    if kind == "near_duplicate_reencoded":
        return jpeg(drawn, quality=(60, 70, 80)[number % 3])
    if kind == "near_duplicate_resized":
        factor = (0.85, 1.25)[number % 2]
        return jpeg(cv2.resize(drawn, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    return jpeg(cv2.resize(drawn, (32, 32), interpolation=cv2.INTER_AREA))


def _on_white(stamp: Stamp) -> np.ndarray:
    """Return a PNG stamp on white, uint8 [h, w, 3], RGB."""
    with Image.open(stamp.file) as opened:
        picture = opened.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))


def write_heldout_stamps(stamps: Sequence[Stamp], folder: Path, px: int = 64) -> Manifest:
    """Write stamps that the pool leaves out as a shard folder, on white and ``px`` on a side."""
    if (folder / MANIFEST_NAME).is_file():
        return Manifest.read(folder)
    return write_folder(folder, _heldout(stamps, px), name="heldout stamps")


def _heldout(stamps: Sequence[Stamp], px: int) -> Iterator[PairToWrite]:
    for stamp in stamps:
        drawn = _on_white(stamp)
        factor = px / min(drawn.shape[:2])
        drawn = cv2.resize(drawn, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        uid = blake2b(stamp.file.name.encode() + jpeg(drawn), digest_size=16).hexdigest()
        yield {"uid": uid, "caption": stamp.caption}, jpeg(drawn), "jpg"
