"""Turn encoded bytes into pixels of the size asked for; the only door to decoders of pictures.

What is not square is cut, not squeezed, so that shapes keep their proportions. Pictures are turned
upright by their EXIF orientation. JPEG goes to libjpeg-turbo, all else to a few Pillow readers.
"""

import io
from typing import TypeAlias

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from .crop import Box, Crop, central_square
from .errors import BreadthError
from .jpeg_header import ORIENTATION_TAG, UPRIGHT, jpeg_orientation_and_scans
from .upright import LYING, as_stored, upright

MOST_BYTES = 64 << 20
MOST_PIXELS = 64_000_000
MOST_SCANS = 500
"""Each scan of a progressive JPEG is a pass over all pixels; real ones have about ten."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
TOLERATED = (
    "before marker 0xd9",
    "Invalid SOS parameters",
    "Inconsistent progression",
    "Unknown Adobe color transform",
    "unknown JFIF revision",
)
"""What libjpeg warns of though all pixels are there; every other warning is a broken picture."""
HARMLESS = ("Premature end of JPEG file", *TOLERATED)
"""Pillow says of the first whether pixels are missing, or just the end."""

_BAND = 16  # rows
_JPEG = b"\xff\xd8\xff"

Encoded: TypeAlias = bytes | memoryview

cv2.setNumThreads(1)  # pictures are decoded side by side: threads inside each would only fight


class DecodeError(BreadthError):
    """Some bytes are not a picture that can be decoded."""


def decode(encoded: Encoded, px: int) -> np.ndarray:
    """Decode a picture and bring its central square to ``px`` pixels: uint8 [px, px, 3], RGB.

    Grey, palette and CMYK pictures become RGB, and what is transparent becomes white. Raises
    DecodeError. Cost: half a millisecond for a JPEG of 256 pixels.
    """
    out = np.empty((px, px, 3), np.uint8)
    decode_into(encoded, out)
    return out


def decode_into(encoded: Encoded, out: np.ndarray, crop: Crop | None = None) -> None:
    """Decode a picture and bring its central square, or what ``crop`` chooses, to ``out``.

    ``out`` is uint8 [H, W, 3], RGB, contiguous; after an error it holds anything. The central
    square is shrunk by exact areas, so that embeddings can be repeated to the bit; a chosen crop
    is shrunk five times as fast, by halves and then linearly, about as near to a bicubic filter.

    Raises DecodeError, also above MOST_BYTES, MOST_PIXELS and MOST_SCANS. Cost: for a crop of
    640 x 480 to 224 pixels 0.8 ms, of which decoding takes 0.65; Python takes 6 microseconds and
    holds its lock for no longer.
    """
    if len(encoded) > MOST_BYTES:
        raise DecodeError(f"its {len(encoded)} bytes are more than the {MOST_BYTES} we read")
    if bytes(encoded[:3]) != _JPEG:
        _pillow(encoded, out, crop)
        return
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        turn, scans = jpeg_orientation_and_scans(encoded)
        _check_size(width, height, scans)
        if colours not in ("CMYK", "YCCK"):  # of which TurboJPEG makes no RGB
            _jpeg(encoded, out, crop, (width, height), turn)
            return
    except ValueError as error:
        if not any(words in str(error) for words in HARMLESS):
            raise DecodeError(str(error)[:100]) from error
    _pillow(encoded, out, crop)


def _check_size(width: int, height: int, scans: int = 1) -> None:
    if width * height > MOST_PIXELS:
        raise DecodeError(f"its {width} x {height} pixels are more than the {MOST_PIXELS} we read")
    if scans > MOST_SCANS:
        raise DecodeError(f"its {scans} scans are more than the {MOST_SCANS} we read")


def _jpeg(
    encoded: Encoded, out: np.ndarray, crop: Crop | None, size: tuple[int, int], turn: int
) -> None:
    width, height = size
    box = _box(width, height, turn, crop)
    if out.shape[:2] == (height, width) and turn == UPRIGHT and box[2:] == (width, height):
        simplejpeg.decode_jpeg(encoded, "RGB", buffer=out)
        return
    by = _reduction(box, out) if crop else 1
    least = {"min_width": -(-width // by), "min_height": -(-height // by)} if by > 1 else {}
    pixels = simplejpeg.decode_jpeg(encoded, "RGB", **least)
    if by > 1:
        box = _reduced(box, by)
    _place(upright(pixels, turn), box, turn, out, crop is not None)


def _box(width: int, height: int, turn: int, crop: Crop | None) -> Box:
    """Choose the box in the upright picture, from its size as stored."""
    size = (width, height) if turn < LYING else (height, width)
    return (crop or central_square)(*size)


def _reduction(box: Box, out: np.ndarray) -> int:
    """Return by how much a JPEG may be reduced while it is decoded, of what is quick for that."""
    for by in (8, 4, 2):
        if box.width >= out.shape[1] * by and box.height >= out.shape[0] * by:
            return by
    return 1


def _reduced(box: Box, by: int) -> Box:
    """Return the box in a reduced picture whose borders are the nearest."""
    left, top, right, bottom = (
        (border + by // 2) // by
        for border in (box.left, box.top, box.left + box.width, box.top + box.height)
    )
    return Box(left, top, right - left, bottom - top)


def _place(turned: np.ndarray, box: Box, turn: int, out: np.ndarray, quick: bool) -> None:
    """Bring a box of an upright view of stored pixels to the size of ``out``."""
    left, top, width, height = box
    piece = turned[top : top + height, left : left + width]
    if turn == UPRIGHT:
        _resize(piece, out, quick)
        return
    piece = as_stored(piece, turn)  # OpenCV wants pixels in the order in which they lie
    across = out if turn < LYING else out.swapaxes(0, 1)
    sized = np.empty(across.shape, np.uint8)
    _resize(piece, sized, quick)
    out[:] = upright(sized, turn)


def _resize(piece: np.ndarray, out: np.ndarray, quick: bool) -> None:
    height, width = out.shape[:2]
    if piece.shape == out.shape:
        out[:] = piece
        return
    while quick and piece.shape[1] >= 2 * width and piece.shape[0] >= 2 * height:
        half = (piece.shape[1] // 2, piece.shape[0] // 2)
        piece = cv2.resize(piece, half, interpolation=cv2.INTER_AREA)
    # Averaging areas is right for shrinking only: enlarging, it repeats pixels.
    shrinks = not quick and piece.shape[1] > width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    cv2.resize(piece, (width, height), dst=out, interpolation=method)


def _pillow(encoded: Encoded, out: np.ndarray, crop: Crop | None) -> None:
    """Decode the first frame with one of Pillow's readers."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
            _check_size(*picture.size)
            turn = _pillow_orientation(picture)
            picture.load()
            box = _box(*picture.size, turn, crop)
            _place(upright(_rgb(picture), turn), box, turn, out, crop is not None)
    except (MemoryError, DecodeError):
        raise
    except UnidentifiedImageError as error:  # its message names an address in memory
        raise DecodeError(f"it is none of {', '.join(FORMATS)}, or cut short") from error
    except Exception as error:  # its readers raise many kinds for damaged files
        raise DecodeError(str(error)[:100]) from error


def _pillow_orientation(picture: Image.Image) -> int:
    try:
        turn = int(picture.getexif().get(ORIENTATION_TAG, UPRIGHT))
    except Exception:  # a damaged Exif block says nothing, whatever Pillow raises for it
        return UPRIGHT
    return turn if turn in range(1, 9) else UPRIGHT


def _rgb(picture: Image.Image) -> np.ndarray:
    """Bring any of Pillow's modes to RGB of 8 bits, on white where transparent."""
    mode = picture.mode
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        return over_white(np.asarray(picture.convert("RGBA")))
    if mode.startswith("I;16"):
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("I", "F"):
        raise DecodeError("it has more than 16 bits a channel")
    return np.asarray(picture.convert("RGB"))


def over_white(rgba: np.ndarray) -> np.ndarray:
    """Lay uint8 [h, w, 4] over white: uint8 [h, w, 3], with the colours in their order.

    It is rounded as img2dataset rounds.
    """
    flat = np.empty((*rgba.shape[:2], 3), np.uint8)
    for top in range(0, len(rgba), _BAND):  # a band at a time: it stays in the processor's cache
        band = rgba[top : top + _BAND].astype(np.uint16)
        colour, alpha = band[:, :, :3], band[:, :, 3:]
        flat[top : top + _BAND] = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    return flat
