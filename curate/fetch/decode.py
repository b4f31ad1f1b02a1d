"""Decode a body whose header was read: the plain ones fast, all others with Pillow."""

import io
import warnings
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from breadth.loaders.decode import TOLERATED, over_white
from breadth.loaders.jpeg_header import UPRIGHT, tiff_orientation

from .refused import Refused
from .sniff import Header

warnings.filterwarnings("ignore", module="PIL")  # of damage to what is no pixel
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the workers are processes, one for each core
_END = b"\xff\xd9"


class Decoded(NamedTuple):
    """Pixels uint8: [h, w] grey, [h, w, 3] BGR, [h, w, 4] CMYK; what is to be done with them."""

    pixels: np.ndarray
    width: int  # of the picture as stored, which a reduced decode has fewer pixels than
    height: int
    reduction: int = 1
    orientation: int = UPRIGHT
    profile: bytes = b""
    flattened: bool = False  # the file has transparent pixels, more than 8 bits or more frames


def decode(
    body: bytes, header: Header, most_pixels: int, least: tuple[int, int] | None = None
) -> Decoded:
    """Decode a body; raises Refused, also for more than ``most_pixels``.

    With ``least``, a width and a height, a JPEG is reduced to 1/2, 1/4 or 1/8 while it is decoded,
    as long as it stays at least so large.
    """
    if header.kind == "webp" and body[12:16] == b"VP8 ":
        return Decoded(_plain_webp(body), header.width, header.height)
    if header.kind != "jpeg":
        return _with_pillow(body, header, most_pixels)
    turn = tiff_orientation(header.exif) if header.exif else UPRIGHT
    size = (header.width, header.height)
    if header.channels == 4:
        return Decoded(_pillow_jpeg(body, header), *size, 1, turn, header.profile)
    pixels, reduction = _jpeg(body, header, _reduction(header, *least) if least else 1)
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
        if "Premature end of JPEG file" in str(error) and not body.endswith(_END):
            return _jpeg(body + _END, header, reduction)  # says whether pixels are missing too
        if any(words in str(error) for words in TOLERATED):
            return _pillow_jpeg(body, header), 1
        raise Refused("broken_picture", str(error)[:100]) from error
    return (pixels[:, :, 0] if header.channels == 1 else pixels), reduction


def _reduction(header: Header, width: int, height: int) -> int:
    """Return the strongest of the quick reductions (8, 4, 2) that leaves at least a size."""
    for by in (8, 4, 2):
        if header.width >= width * by and header.height >= height * by:
            return by
    return 1


def _pillow_jpeg(body: bytes, header: Header) -> np.ndarray:
    with _opened(body, "jpeg", header.width * header.height) as picture:
        return np.asarray(picture) if picture.mode == "CMYK" else _bgr(np.asarray(picture))


def _bgr(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)


def _plain_webp(body: bytes) -> np.ndarray:
    """Decode a WebP of one frame without alpha or tags: a quarter faster than Pillow does."""
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise Refused("broken_picture", "it is cut off or damaged")
    return pixels


def _opened(body: bytes, kind: str, most_pixels: int) -> Image.Image:
    """Decode the first frame with one of Pillow's readers; raises Refused."""
    try:
        picture = Image.open(io.BytesIO(body), formats=(kind.upper(),))
        if picture.width * picture.height > most_pixels:  # a GIF's frame may outgrow its header
            raise Refused("too_many_pixels", "more pixels than max_pixels")
        picture.load()
    except (MemoryError, Refused):
        raise
    except Image.DecompressionBombError as error:  # its own limit
        raise Refused("too_many_pixels", "more pixels than max_pixels") from error
    except UnidentifiedImageError as error:  # its message names an address in memory
        raise Refused("broken_picture", "its header is not in order") from error
    except Exception as error:  # its readers raise many kinds for damaged files
        raise Refused("broken_picture", str(error)[:100]) from error
    return picture


def _with_pillow(body: bytes, header: Header, most_pixels: int) -> Decoded:
    with _opened(body, header.kind, most_pixels) as picture:
        turn = _turn(picture) if header.kind != "webp" else tiff_orientation(header.exif)
        frames = getattr(picture, "n_frames", 1) if header.kind in ("png", "webp") else 1
        pixels, flattened = _pixels(picture)
        profile = picture.info.get("icc_profile") or b""
        return Decoded(pixels, *picture.size, 1, turn, profile, flattened or frames > 1)


def _turn(picture: Image.Image) -> int:
    try:
        turn = int(picture.getexif().get(0x0112, UPRIGHT))
    except Exception:  # a damaged Exif block says nothing
        return UPRIGHT
    return turn if turn in range(1, 9) else UPRIGHT


def _pixels(picture: Image.Image) -> tuple[np.ndarray, bool]:
    """Bring any of Pillow's modes to grey, BGR or CMYK of 8 bits, on white."""
    mode = picture.mode
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA"))
        return over_white(cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA)), True
    if mode.startswith("I;16"):
        deep = np.asarray(picture).astype(np.uint32)
        return ((deep + 128) // 257).astype(np.uint8), True
    if mode in ("I", "F"):
        raise Refused("unsupported", "more than 16 bits a channel")
    if mode in ("L", "RGB", "CMYK"):
        pixels = np.asarray(picture)
        return (pixels if mode == "CMYK" else _bgr(pixels)), False
    return _bgr(np.asarray(picture.convert("L" if mode == "1" else "RGB"))), False
