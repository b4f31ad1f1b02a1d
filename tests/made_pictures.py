"""Pictures for the decoder's tests: like photographs, in every format, and with colour profiles."""

import io
import struct
import zlib
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return a picture like a photograph: uint8 [h, w, 3] BGR."""
    return _drawn(width, height, seed).copy()


@lru_cache(maxsize=16)
def _drawn(width: int, height: int, seed: int) -> np.ndarray:
    """Draw noise with a photograph's 1/f spectrum, and shapes with hard edges."""
    rng = np.random.default_rng(seed)
    across, down = np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None]
    decay = np.maximum(np.hypot(across, down), 1 / (width + height)) ** -1.5
    layers = []
    for _ in range(3):
        waves = decay * np.exp(2j * np.pi * rng.random(decay.shape))
        field = np.fft.irfft2(waves, s=(height, width))
        layers.append((field - field.mean()) / (field.std() + 1e-9))
    layers = [128 + 45 * layers[0] + 12 * layer for layer in layers]  # colours go together
    drawn = np.clip(np.stack(layers, -1), 0, 255).astype(np.uint8)
    for _ in range(8):
        corners = (rng.random((4, 2)) * (width, height)).astype(np.int32)
        cv2.fillPoly(drawn, [corners], rng.integers(0, 255, 3).tolist(), lineType=cv2.LINE_AA)
    return drawn


def saved(pixels: np.ndarray, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """Encode BGR pixels with Pillow, in one of its formats and modes."""
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).convert(mode)
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()


def jpeg(pixels: np.ndarray, quality: int = 90, *more: int) -> bytes:
    """Encode grey or BGR pixels as JPEG, 4:2:0."""
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, *more])[1])


def pixels_of(encoded: bytes | None) -> np.ndarray:
    """Decode to grey or BGR."""
    assert encoded is not None
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the likeness of two pictures in dB; 99 where they are equal."""
    error = float(np.mean((a.astype(float) - b) ** 2))
    return 10 * np.log10(255**2 / error) if error else 99.0


def chunk(name: bytes, body: bytes) -> bytes:
    """Write one chunk of a PNG."""
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def exif_block(*entries: tuple[int, int, int, int], next_at: int = 0) -> bytes:
    """Write a big-endian TIFF block of one directory: (tag, type, count, value) each."""
    written = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return b"MM\x00*" + struct.pack(">IH", 8, len(entries)) + written + struct.pack(">I", next_at)


def turned(orientation: int) -> bytes:
    """Return an Exif block that says no more than the orientation."""
    return b"Exif\x00\x00" + exif_block((0x0112, 3, 1, orientation << 16))


def _profile(space: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Write an ICC profile, version 2."""
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name + struct.pack(">II", at + len(body), len(value))
        body += padded
    size = at + len(body)
    header = struct.pack(">I4xI4s4s4s", size, 0x02400000, kind, space, _pcs(space))
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)  # D50
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body


def _pcs(space: bytes) -> bytes:
    return b"Lab " if space == b"CMYK" else b"XYZ "


def _fixed(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def rgb_profile(columns: np.ndarray, light: np.ndarray) -> bytes:
    """Return the profile of a screen: its primaries' XYZ under D50, its light for each level."""
    samples = np.rint(np.asarray(light) * 65535).astype(">u2")
    curve = b"curv" + bytes(4) + struct.pack(">I", len(samples)) + samples.tobytes()
    tags = {b"wtpt": _fixed(0.9642, 1.0, 0.8249)}
    for index, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = _fixed(*columns[:, index])
        tags[name + b"TRC"] = curve
    return _profile(b"RGB ", b"mntr", tags)


def cmyk_profile(ink: tuple[int, int, int]) -> bytes:
    """Return the profile of a press on which all inks but black have one colour: Lab, 8 bits."""
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity
    paper, black = b"\xff\x80\x80", b"\x00\x80\x80"
    corners = (paper, black, *(black if mix % 2 else bytes(ink) for mix in range(2, 16)))
    lut += ramp * 4 + b"".join(corners) + ramp * 3
    return _profile(b"CMYK", b"prtr", {b"wtpt": _fixed(0.9642, 1.0, 0.8249), b"A2B0": lut})
