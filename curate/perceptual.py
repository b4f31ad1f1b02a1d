"""What a picture looks like: its decoded pixels, a 64-bit DCT hash and four mean colours."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

_SIDE = 32  # px the grey picture is brought to
_LOW = 8  # lowest frequencies in each direction: 64 bits
_ENOUGH_PX = 64  # shorter side above which more resolution does not change the hash

# The unnormalised DCT-II of imagehash.phash, rows 0 to 7.
_DCT = 2 * np.cos(np.pi * np.outer(np.arange(_LOW), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE))


class Look(NamedTuple):
    """A picture's 64-bit hash and the mean colour of its quarters.

    The colours are RRGGBB: top left, top right, bottom left, bottom right; 24 hex digits.
    """

    dct_hash: int
    quarter_colours: str


def _header(encoded: bytes) -> tuple[int, bool] | None:
    """Return the shorter side in px and whether there is transparency, without decoding."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            clear = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            return min(image.size), clear
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _on_white(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    opaque = pixels[:, :, 3:].astype(np.uint16)
    blend = (pixels[:, :, :3] * opaque + 255 * (255 - opaque) + 127) // 255
    return np.ascontiguousarray(blend[:, :, ::-1].astype(np.uint8))


def decode_pixels(encoded: bytes | None, enough_px: int | None = None) -> np.ndarray | None:
    """Decode a picture to RGB, transparency on white: uint8 [height, width, 3].

    Returns None where the bytes are no picture. With ``enough_px`` the picture may come back at
    half, a quarter or an eighth of its size, its shorter side no less than that.
    """
    header = _header(encoded) if encoded else None
    if encoded is None or header is None:
        return None
    side, clear = header
    flag = cv2.IMREAD_UNCHANGED if clear else cv2.IMREAD_COLOR
    if enough_px and not clear:
        for factor in (8, 4, 2):
            if side >= factor * enough_px:
                flag = getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")
                break
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
    except cv2.error:  # more pixels than OpenCV accepts
        return None
    return None if pixels is None else _on_white(pixels)


def dct_bits(grey: np.ndarray) -> np.ndarray:
    """Hash grey pictures: float32 [n, 32, 32] to uint64 [n].

    A bit says whether a low frequency is above the median of the 64; the first is the highest bit.
    Source: the definition of imagehash.phash.
    """
    low = (_DCT @ grey.astype(np.float64) @ _DCT.T).reshape(len(grey), -1)
    # In whole units a flat picture has no frequencies at all, instead of the signs of its noise.
    low = np.rint(low)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def look_at(encoded: list[bytes | None]) -> list[Look | None]:
    """Hash encoded pictures; None where one cannot be decoded."""
    greys, colours, rows = [], [], []
    for row, one in enumerate(encoded):
        pixels = decode_pixels(one, _ENOUGH_PX)
        if pixels is None:
            continue
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
        greys.append(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
        colours.append(cv2.resize(pixels, (2, 2), interpolation=cv2.INTER_AREA).tobytes().hex())
        rows.append(row)
    looks: list[Look | None] = [None] * len(encoded)
    if rows:
        hashes = dct_bits(np.stack(greys)).tolist()
        for row, value, colour in zip(rows, hashes, colours, strict=True):
            looks[row] = Look(value, colour)
    return looks
