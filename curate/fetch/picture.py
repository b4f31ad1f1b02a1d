"""Make the picture that is kept out of the bytes that were fetched; nothing else decodes them."""

from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import NamedTuple

import numpy as np

from breadth.loaders.jpeg_header import UPRIGHT, tiff_orientation
from breadth.loaders.upright import upright

from .colour import is_srgb, to_srgb
from .decode import Decoded, decode
from .encode import KINDS, encoded
from .exif import exif_json
from .refused import Refused
from .resize import INTERPOLATIONS, Plan, framed, plan, scaled, shrunk
from .sniff import Header, ends_properly, sniff
from .svg import render_svg

RISKY_PIXELS = 8_000_000
RISKY_JPEG_PIXELS = 24_000_000  # it is decoded straight to the few pixels that are needed
RISKY_SCANS = 40


@dataclass(frozen=True)
class Shape:
    """What a picture is made to; the names are those of img2dataset where it has them."""

    image_size: int = 256
    resize_mode: str = "keep_ratio"
    resize_only_if_bigger: bool = True
    resize_quality: str = "fast"
    encode_format: str = "jpg"
    encode_quality: int = 95
    skip_reencode: bool = False
    disable_all_reencoding: bool = False
    min_image_size: int = 0
    max_image_area: float = inf
    max_aspect_ratio: float = inf
    max_pixels: int = 64_000_000
    svg_side_px: int = 512
    extract_exif: bool = True
    upscale_interpolation: str = "lanczos"
    downscale_interpolation: str = "area"


class Picture(NamedTuple):
    """An encoded picture with its sizes in pixels, or the failure; seconds by phase."""

    image: bytes | None = None
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    exif: str | None = None
    failure: str | None = None
    message: str | None = None
    decode_s: float = 0.0
    resize_s: float = 0.0
    encode_s: float = 0.0


def process(body: bytes, shape: Shape, known: Header | None = None) -> Picture:
    """Turn a body into the picture that is kept, or say why not; never raises for its content.

    The size is judged by the header, before anything is decoded. Orientation and colour profile
    are applied to the resized pixels, which are fewer. ``known`` is the header where it was read
    before. Cost: about a millisecond for a JPEG of 640 x 480.
    """
    start = perf_counter()
    try:
        header = known or sniff(body)
        if shape.disable_all_reencoding:
            return _untouched(body, header, shape)
        if header.kind == "svg":
            source = render_svg(body, shape.svg_side_px)
            return _made(source, sniff(source), shape, start, body)
        return _made(body, header, shape, start, body)
    except Refused as refused:
        seconds = perf_counter() - start
        return Picture(failure=refused.failure, message=str(refused), decode_s=seconds)


def header_of(body: bytes) -> Header | None:
    """Return what the first bytes promise, None where they are of no picture that is read."""
    try:
        return sniff(body)
    except Refused:
        return None


def risky(header: Header) -> bool:
    """Say whether to decode a body in a process that may be killed: it may be slow or large."""
    most = RISKY_JPEG_PIXELS if header.kind == "jpeg" else RISKY_PIXELS
    large = header.width * header.height > most
    return header.kind in ("svg", "tiff", "avif") or large or header.scans > RISKY_SCANS


def _made(source: bytes, header: Header, shape: Shape, start: float, body: bytes) -> Picture:
    found, wanted = _decoded(source, header, shape)
    decoded = perf_counter()
    width, height = _turned(found.width, found.height, found.orientation)
    exif = _exif(body, header, shape)
    if wanted is None and source is body and _may_stay(header, found, shape):
        return Picture(body, width, height, width, height, exif, decode_s=decoded - start)
    pixels = _resized(found, shape, wanted)
    resized = perf_counter()
    image = encoded(pixels, shape.encode_format, shape.encode_quality)
    made, end = pixels.shape, perf_counter()
    spent = (decoded - start, resized - decoded, end - resized)
    return Picture(image, made[1], made[0], width, height, exif, None, None, *spent)


def _decoded(body: bytes, header: Header, shape: Shape) -> tuple[Decoded, Plan | None]:
    """Decode what is of a wanted size, by its header and again by its pixels."""
    wanted = _judged(header.width, header.height, shape)
    least = wanted and (wanted.width, wanted.height) if shape.resize_quality == "fast" else None
    found = decode(body, header, shape.max_pixels, least)
    if (found.width, found.height) != (header.width, header.height):
        wanted = _judged(found.width, found.height, shape)
    return found, wanted


def _exif(body: bytes, header: Header, shape: Shape) -> str | None:
    if not shape.extract_exif:
        return None
    return exif_json(body) if header.exif else "{}"


def _resized(found: Decoded, shape: Shape, wanted: Plan | None) -> np.ndarray:
    pixels = found.pixels
    if wanted is not None:
        if wanted.smaller and shape.resize_quality == "fast":
            extent = found.width / found.reduction, found.height / found.reduction
            pixels = shrunk(pixels, wanted.width, wanted.height, extent)
        else:
            name = shape.downscale_interpolation if wanted.smaller else shape.upscale_interpolation
            pixels = scaled(pixels, wanted.width, wanted.height, INTERPOLATIONS[name])
    if found.profile or (pixels.ndim == 3 and pixels.shape[2] == 4):
        pixels = to_srgb(pixels, found.profile)
    if found.orientation != UPRIGHT:
        pixels = np.ascontiguousarray(upright(pixels, found.orientation))
    return pixels if wanted is None else framed(pixels, shape.image_size, shape.resize_mode)


def _may_stay(header: Header, found: Decoded, shape: Shape) -> bool:
    """Say whether the bytes that came can be kept: nothing about them needed a change."""
    return (
        shape.skip_reencode
        and header.kind == KINDS[shape.encode_format]
        and found.orientation == UPRIGHT
        and not found.flattened
        and is_srgb(found.pixels, found.profile)
    )


def _judged(width: int, height: int, shape: Shape) -> Plan | None:
    """Plan the size; raises Refused where the picture's is not wanted, in img2dataset's words."""
    if width * height > shape.max_pixels:
        raise Refused("too_many_pixels", "more pixels than max_pixels")
    if min(width, height) < shape.min_image_size:
        raise Refused("too_small", "image too small")
    if width * height > shape.max_image_area:
        raise Refused("area", "image area too large")
    if max(width, height) / min(width, height) > shape.max_aspect_ratio:
        raise Refused("aspect_ratio", "aspect ratio too large")
    only = shape.resize_only_if_bigger
    wanted = plan(width, height, shape.image_size, shape.resize_mode, only)
    if wanted is not None and wanted.width * wanted.height > shape.max_pixels:
        raise Refused("too_many_pixels", "enlarged, more pixels than max_pixels")
    return wanted


def _turned(width: int, height: int, turn: int) -> tuple[int, int]:
    return (height, width) if turn >= 5 else (width, height)


def _untouched(body: bytes, header: Header, shape: Shape) -> Picture:
    """Keep the bytes as they came, where shards can hold them and they are whole."""
    if header.kind not in KINDS.values():
        raise Refused("unsupported", f"{header.kind} cannot be kept as it is")
    if not ends_properly(body, header.kind):
        raise Refused("broken_picture", "it does not end as a picture does")
    _judged(header.width, header.height, shape)
    original = _turned(header.width, header.height, tiff_orientation(header.exif))
    return Picture(body, header.width, header.height, *original, _exif(body, header, shape))
