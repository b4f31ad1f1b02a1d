"""Make the folders that loaders read: tars as img2dataset writes them, plain ones, and many pairs.

A folder of a million pairs is a hundred names of one tar, so that it takes no time and no disk.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import webdataset

from breadth.curate.ustar import TarWriter
from breadth.scripts.index import index_folder

from .pictures import draw
from .readers.task import TAR_PAIRS

SMALL_PX, SMALL_QUALITY = 256, 95  # as img2dataset stores them
TINY_PX = 16
TINY_PAIRS = 10_000  # of a tar that has many names
KEEP_EVERY = 10

Members = tuple[str, dict[str, bytes]]
"""A pair's key and its files by extension."""


def make_folders(root: Path, count: int) -> None:
    """Draw ``count`` pairs and write ``large``, ``small`` and ``plain`` below ``root``, indexed.

    ``keys`` and ``uids`` there are of every tenth pair. Cost: 15 ms a pair and core.
    """
    (root / "drawn").mkdir(parents=True)
    files = draw(root / "drawn", count)
    large = [_members(number, file.read_bytes()) for number, file in enumerate(files)]
    small = [(key, members | {"jpg": _reduced(members["jpg"])}) for key, members in large]
    _write_with_times(root / "large", large)
    _write_with_times(root / "small", small)
    _write_plain(root / "plain", small)
    for name in ("large", "small", "plain"):
        index_folder(root / name)
    kept = range(0, count, KEEP_EVERY)
    (root / "keys").write_text("\n".join(_key(number) for number in kept))
    (root / "uids").write_text("\n".join(_uid(number) for number in kept))


def make_many(folder: Path, pairs: int) -> None:
    """Write tiny pairs, under enough names of one tar, indexed."""
    folder.mkdir(parents=True)
    grey = np.full((TINY_PX, TINY_PX, 3), 128, np.uint8)
    picture = simplejpeg.encode_jpeg(grey, quality=SMALL_QUALITY, colorspace="RGB")
    members = {"jpg": picture, "txt": b"a caption"}
    first = folder / f"{0:05d}.tar"
    _write_tar(first, ((_key(number), members) for number in range(TINY_PAIRS)))
    for number in range(1, pairs // TINY_PAIRS):
        os.link(first, folder / f"{number:05d}.tar")
    index_folder(folder)


def _members(number: int, picture: bytes) -> Members:
    """Make a pair with what img2dataset says of each."""
    caption = f"picture {number} of a benchmark, with a caption of usual length"
    described = {
        "uid": _uid(number),
        "url": f"https://example.org/{number}.jpg",
        "caption": caption,
        "key": _key(number),
        "status": "success",
        "error_message": None,
        "width": 640,
        "height": 480,
        "original_width": 640,
        "original_height": 480,
        "exif": "{}",
        "sha256": blake2b(picture, digest_size=32).hexdigest(),
    }
    return _key(number), {
        "jpg": picture,
        "json": json.dumps(described, indent=4).encode(),
        "txt": caption.encode(),
    }


def _key(number: int) -> str:
    return f"{number:09d}"


def _uid(number: int) -> str:
    return blake2b(_key(number).encode(), digest_size=16).hexdigest()


def _reduced(picture: bytes) -> bytes:
    """Return the central square, 256 pixels wide."""
    pixels = simplejpeg.decode_jpeg(picture, "RGB")
    height, width = pixels.shape[:2]
    left = (width - height) // 2
    square = pixels[:, left : left + height]
    sized = cv2.resize(square, (SMALL_PX, SMALL_PX), interpolation=cv2.INTER_AREA)
    return simplejpeg.encode_jpeg(
        sized, quality=SMALL_QUALITY, colorspace="RGB", colorsubsampling="420"
    )


def _write_with_times(folder: Path, pairs: Sequence[Members]) -> None:
    """Write tars with img2dataset's writer, whose fractions of seconds take a PAX header each."""
    folder.mkdir()
    for number, tar_pairs in enumerate(_cut(pairs)):
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar")) as tar:
            for key, members in tar_pairs:
                tar.write({"__key__": key, **members})


def _write_plain(folder: Path, pairs: Sequence[Members]) -> None:
    folder.mkdir()
    for number, tar_pairs in enumerate(_cut(pairs)):
        _write_tar(folder / f"{number:05d}.tar", tar_pairs)


def _write_tar(path: Path, pairs: Iterable[Members]) -> None:
    with path.open("wb") as file:
        tar = TarWriter(file)
        for key, members in pairs:
            for extension, body in members.items():
                tar.add(f"{key}.{extension}", body)
        tar.finish()


def _cut(pairs: Sequence[Members]) -> Iterator[Sequence[Members]]:
    for start in range(0, len(pairs), TAR_PAIRS):
        yield pairs[start : start + TAR_PAIRS]
