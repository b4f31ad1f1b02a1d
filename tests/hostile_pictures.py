"""Pictures for the hostile server: sound ones of each kind, and odd ones."""

import io
import struct
import zlib
from functools import cache

import cv2
import numpy as np
from PIL import Image

SIZE = (64, 48)


def pixels(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """Return a smooth RGB gradient, uint8 (height, width, 3)."""
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
    planes = [across + 0 * down, down + 0 * across, (across + down) / 2]
    return np.stack(planes, -1).astype(np.uint8)


@cache
def pillow(kind: str, mode: str = "RGB", size: tuple[int, int] = SIZE, **options: object) -> bytes:
    """Encode the gradient with Pillow, in ``mode``."""
    sink = io.BytesIO()
    Image.fromarray(pixels(*size)).convert(mode).save(sink, kind, **options)
    return sink.getvalue()


def jpeg(**options: object) -> bytes:
    """Return the picture that most cases serve: a JPEG of 64 x 48."""
    return pillow("JPEG", **options)


def turned(orientation: int) -> bytes:
    """Return a JPEG whose EXIF says that it lies on its side (5 to 8) or is flipped (2 to 4)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(exif=exif.tobytes())


def animated(kind: str, frames: int, size: tuple[int, int] = SIZE) -> bytes:
    """Return an animation in which every frame differs."""
    images = [Image.new("RGB", size, (n * 7 % 256, n // 37 % 256, 90)) for n in range(frames)]
    sink = io.BytesIO()
    images[0].save(sink, kind, save_all=True, append_images=images[1:], duration=40)
    return sink.getvalue()


def deep_png() -> bytes:
    """Return a PNG with 16 bits a channel."""
    return cv2.imencode(".png", pixels().astype(np.uint16) * 257)[1].tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk with the sum it should have."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, data: bytes, *extra: bytes) -> bytes:
    """Return a grey PNG made by hand: ``data`` is its compressed picture, as it is."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    body = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body


def exif_loop() -> bytes:
    """Return a JPEG whose EXIF directory says that it comes after itself."""
    entry = struct.pack("<HHII", 0x0112, 3, 1, 1)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)
    data = b"Exif\0\0" + tiff
    whole = jpeg()
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + whole[2:]


def exif_crowd() -> bytes:
    """Return a JPEG whose EXIF promises 65,535 entries of 4 GB each."""
    entries = struct.pack("<HHII", 0x8769, 2, 0xFFFFFFFF, 8) * 5_000
    data = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 0xFFFF) + entries
    whole = jpeg()
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + whole[2:]


def svg(body: str = '<rect width="64" height="48" fill="#0a0"/>', head: str = "") -> bytes:
    """Return an SVG document of 64 x 48."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'{head}<svg {names} width="64" height="48" viewBox="0 0 64 48">{body}</svg>'.encode()


def heic() -> bytes:
    """Return the beginning of a HEIC picture, which nothing here reads."""
    brands = b"heic\0\0\0\0mif1heic"
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(64)
