"""Decode a body whose header was read: the plain ones fast, all others with Pillow."""

import io
import warnings
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import AvifImagePlugin, Image

from .colour import over_white
from .exif import UPRIGHT, orientation
from .refused import Refused
from .sniff import Header

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the workers are processes, one for each core
_TOLERATED = (
    "Premature end of JPEG file",  # Pillow then says whether pixels are missing, or just the end
    "before marker 0xd9",
    "Invalid SOS parameters",
    "Inconsistent progression",
    "Unknown Adobe color transform",
    "unknown JFIF revision",
)
"""What libjpeg warns of though all pixels are there; every other warning is a broken picture."""


class Decoded(NamedTuple):
    """Pixels uint8: [h, w] grey, [h, w, 3] BGR, [h, w, 4] CMYK; what is to be done with them."""

    pixels: np.ndarray
    width: int  # of the picture as stored, which a reduced decode has fewer pixels than
    height: int
    reduction: int = 1
    orientation: int = UPRIGHT
    profile: bytes = b""
    flattened: bool = False  # it had transparent pixels, or more than 8 bits


def decode(body: bytes, header: Header, width: int = 0, height: int = 0) -> Decoded:
    """Decode a body; raises Refused. A JPEG may be reduced to 1/2, 1/4 or 1/8 while it is decoded.

    With ``width`` and ``height``, it is reduced as long as it stays at least so large.
    """
    if header.kind == "webp" and body[12:16] == b"VP8 ":
        return Decoded(_plain_webp(body), header.width, header.height)
    if header.kind != "jpeg":
        return _with_pillow(body, header.kind)
    turn = orientation(header.exif) if header.exif else UPRIGHT
    size = (header.width, header.height)
    if header.channels == 4:
        return Decoded(_pillow_jpeg(body), *size, 1, turn, header.profile)
    reduction = _reduction(header, width, height) if width else 1
    pixels, reduction = _jpeg(body, header, reduction)
    return Decoded(pixels, *size, reduction, turn, header.profile)


def _jpeg(body: bytes, header: Header, reduction: int) -> tuple[np.ndarray, int]:
    try:
        pixels = simplejpeg.decode_jpeg(
            body,
            "BGR" if header.channels == 3 else "GRAY",
            min_width=-(-header.width // reduction) if reduction > 1 else 0,
            min_height=-(-header.height // reduction) if reduction > 1 else 0,
        )
    except ValueError as error:
        if any(words in str(error) for words in _TOLERATED):
            return _pillow_jpeg(body), 1
        raise Refused("broken_picture", str(error)[:100]) from error
    return (pixels[:, :, 0] if header.channels == 1 else pixels), reduction


def _reduction(header: Header, width: int, height: int) -> int:
    """Return the strongest of the quick reductions (8, 4, 2) that leaves at least a size."""
    for by in (8, 4, 2):
        if header.width >= width * by and header.height >= height * by:
            return by
    return 1


def _pillow_jpeg(body: bytes) -> np.ndarray:
    with _opened(body, "jpeg") as picture:
        return np.asarray(picture) if picture.mode == "CMYK" else _bgr(np.asarray(picture))


def _bgr(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)


def _plain_webp(body: bytes) -> np.ndarray:
    """Decode a WebP of one frame without alpha or tags: a quarter faster than Pillow does."""
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise Refused("broken_picture", "it is cut off or damaged")
    return pixels


def _opened(body: bytes, kind: str) -> Image.Image:
    """Decode the first frame with one of Pillow's readers; raises Refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage to what is no pixel
            picture = Image.open(io.BytesIO(body), formats=(kind.upper(),))
            picture.load()
    except MemoryError:
        raise
    except Exception as error:  # its readers raise many kinds for damaged files
        raise Refused("broken_picture", str(error)[:100]) from error
    return picture


def _with_pillow(body: bytes, kind: str) -> Decoded:
    with _opened(body, kind) as picture:
        profile = picture.info.get("icc_profile") or b""
        turn = picture.getexif().get(0x0112, UPRIGHT)
        pixels, flattened = _pixels(picture)
        turn = turn if turn in range(1, 9) else UPRIGHT
        return Decoded(pixels, *picture.size, 1, turn, profile, flattened)


def _pixels(picture: Image.Image) -> tuple[np.ndarray, bool]:
    """Bring any of Pillow's modes to grey, BGR or CMYK of 8 bits, on white."""
    mode = picture.mode
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        return over_white(np.asarray(picture.convert("RGBA"))), True
    if mode.startswith("I;16"):
        deep = np.asarray(picture).astype(np.uint32)
        return ((deep + 128) // 257).astype(np.uint8), True
    if mode in ("I", "F"):
        raise Refused("unsupported", "more than 16 bits a channel")
    if mode in ("L", "RGB", "CMYK"):
        pixels = np.asarray(picture)
        return (pixels if mode == "CMYK" else _bgr(pixels)), False
    return _bgr(np.asarray(picture.convert("L" if mode == "1" else "RGB"))), False
