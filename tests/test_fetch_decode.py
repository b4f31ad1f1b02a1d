"""Decoding what the web holds: colours, depths, frames and profiles, and what is made to harm."""

import io
import resource
import struct
import time
import zlib
from functools import cache

import exifread
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from breadth.curate.fetch.exif import exif_json
from breadth.curate.fetch.failures import FAILURES
from breadth.curate.fetch.picture import Picture, Shape, process

from .made_pictures import (
    chunk,
    cmyk_profile,
    exif_block,
    jpeg,
    photo,
    pixels_of,
    psnr,
    rgb_profile,
    saved,
    turned,
)

EXACT = Shape(resize_mode="no", resize_quality="exact", encode_format="png", encode_quality=1)
P3 = np.array(
    [[0.51512, 0.29198, 0.1571], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
"""Display P3's primaries under D50: XYZ in columns."""
LEVELS = np.linspace(0, 1, 1024)
SRGB_LIGHT = np.where(LEVELS <= 0.04045, LEVELS / 12.92, ((LEVELS + 0.055) / 1.055) ** 2.4)
WIDE = rgb_profile(P3, LEVELS**2.2)
SRGB = np.array(
    [[0.43607, 0.38515, 0.14308], [0.22249, 0.71687, 0.06061], [0.01392, 0.0971, 0.71410]]
)


def made(body: bytes, shape: Shape = EXACT) -> np.ndarray:
    picture = process(body, shape)
    assert picture.failure is None, picture.message
    return pixels_of(picture.image)


def kept(array: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    sink = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(array))
    (picture.convert(mode) if mode else picture).save(sink, kind, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "least_db"),  # one pixel in six lies on an edge: lossy formats suffer
    [
        ("JPEG", "RGB", 28),
        ("PNG", "RGB", 99),
        ("PNG", "P", 20),
        ("WEBP", "RGB", 30),
        ("WEBP", "RGBA", 30),
        ("GIF", "RGB", 20),
        ("AVIF", "RGB", 30),
        ("BMP", "RGB", 99),
        ("TIFF", "RGB", 99),
        ("TIFF", "CMYK", 99),
        ("JPEG", "CMYK", 33),
    ],
)
def test_every_format_is_read(kind: str, mode: str, least_db: float) -> None:
    """The pixels are those that were saved, as near as the format keeps them."""
    pixels = photo(203, 149)
    assert psnr(made(saved(pixels, kind, mode)), pixels) >= least_db


@pytest.mark.parametrize("mode", ["1", "L"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP"])
def test_grey_and_black_and_white_are_read(kind: str, mode: str) -> None:
    """One channel, of 8 bits or of one, gives the greys that Pillow shows."""
    body = saved(photo(120, 90), kind, mode)
    seen = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))[:, :, 1]
    found = made(body)
    assert np.array_equal(found if found.ndim == 2 else found[:, :, 1], seen)


def test_sixteen_bits_become_eight() -> None:
    """Grey and colours of 16 bits are scaled; img2dataset turns them white."""
    greys = np.linspace(0, 65535, 256 * 8).reshape(8, 256).astype(np.uint16)
    found = made(kept(greys))
    assert np.abs(found - greys / 257).max() <= 0.51
    deep = np.stack([greys, greys[::-1], greys.T.reshape(8, 256)], -1).astype(">u2")
    rows = b"".join(b"\x00" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 256, 8, 16, 2, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    found = made(body + chunk(b"IEND", b""))
    assert np.abs(found[:, :, ::-1] - deep / 257).max() <= 1.0


def test_transparency_is_laid_over_white() -> None:
    """Full, half and no opacity, in a channel, in a palette and as one colour that is clear."""
    colour = np.zeros((3, 4, 4), np.uint8)
    colour[..., 0] = 200
    colour[:, :, 3] = np.array([0, 128, 255])[:, None]
    wanted = np.array([[255, 255, 255], [227, 127, 127], [200, 0, 0]])
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(made(kept(colour, kind))[:, 0, ::-1], wanted)
    webp = made(kept(colour.repeat(8, 0).repeat(8, 1), "WEBP", lossless=True, exact=True))
    assert np.array_equal(webp[::8, 0, ::-1], wanted)
    index = np.array([[0, 1]] * 2, np.uint8)
    palette = Image.fromarray(index, "P")
    palette.putpalette([9, 9, 9, 80, 90, 100])
    for kind in ("PNG", "GIF"):
        sink = io.BytesIO()
        palette.save(sink, kind, transparency=0)
        assert made(sink.getvalue())[0, :, ::-1].tolist() == [[255] * 3, [80, 90, 100]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    """Also where small bytes could stay: an animation is not kept as a picture."""
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue", "green")]
    sink = io.BytesIO()
    frames[0].save(sink, kind, save_all=True, append_images=frames[1:])
    body = sink.getvalue()
    assert np.abs(made(body)[24, 32].astype(int) - [0, 0, 255]).max() <= 3
    if kind in ("PNG", "WEBP"):
        form = kind.lower()
        shape = Shape(skip_reencode=True, encode_format=form, encode_quality=9)
        assert process(body, shape).image != body


def srgb_of(colour: np.ndarray) -> np.ndarray:
    """Bring P3 colours (gamma 2.2) to sRGB by the definition: uint8 [..., 3]."""
    light = np.clip(np.linalg.solve(SRGB, P3 @ ((colour / 255.0) ** 2.2).T), 0, 1)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(int).T


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_colours_come_to_srgb_by_their_profile(kind: str) -> None:
    """A patch in Display P3 has in sRGB the colour that the two definitions say."""
    patches = np.array([[180, 90, 60], [60, 160, 90], [70, 80, 200], [128, 128, 128]])
    wanted = srgb_of(patches)
    assert np.abs(wanted - patches).max() > 10, "the profile matters"
    pixels = patches.astype(np.uint8).repeat(32, 0)[None].repeat(32, 0)
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100}
    body = saved(pixels[:, :, ::-1], kind, icc_profile=WIDE, **options)
    found = made(body)[16, 16::32, ::-1]
    assert np.abs(found.astype(int) - wanted).max() <= 4


def test_the_profile_of_srgb_changes_nothing() -> None:
    """Tagged with sRGB, or with a damaged profile or one for other channels: as untagged."""
    pixels = photo(200, 150)
    plain = process(jpeg_by_pillow(pixels), Shape(64)).image
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    coarse = rgb_profile(SRGB, SRGB_LIGHT)  # as cameras carry it: a table, and rounded primaries
    for profile in (srgb, coarse, WIDE[:200], b"junk", cmyk_profile((9, 9, 9))):
        assert process(jpeg_by_pillow(pixels, profile), Shape(64)).image == plain
    body = saved(pixels, "JPEG", icc_profile=srgb)
    assert process(body, Shape(skip_reencode=True)).image == body
    assert process(saved(pixels, "JPEG", "L", icc_profile=srgb), Shape()).failure is None
    other = saved(pixels, "JPEG", icc_profile=WIDE)
    assert process(other, Shape(skip_reencode=True)).image != other


def jpeg_by_pillow(pixels: np.ndarray, profile: bytes = b"") -> bytes:
    return saved(pixels, "JPEG", quality=90, **({"icc_profile": profile} if profile else {}))


def test_inks_are_mixed_by_their_profile() -> None:
    """CMYK has the colour of its press; without a profile each ink takes its part of the light."""
    inks = np.array([[[255, 0, 0, 0], [0, 0, 255, 128]]], np.uint8).repeat(16, 0).repeat(16, 1)
    picture = Image.frombytes("CMYK", (32, 16), inks.tobytes())
    violet = (160, 178, 90)  # L 62.7, a 50, b -38, which is 212, 115, 221 in sRGB
    for profile, wanted in (
        (cmyk_profile(violet), [[212, 115, 221]]),
        (b"", [[0, 255, 255], [127, 127, 0]]),
    ):
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=100, subsampling=0, icc_profile=profile)
        found = made(sink.getvalue())[8, ::24, ::-1].astype(int)
        assert np.abs(found[: len(wanted)] - wanted).max() <= 3


@cache
def bombs() -> dict[str, bytes]:
    side = (30_000).to_bytes(4, "big")
    header = chunk(b"IHDR", side * 2 + b"\x01\x00\x00\x00\x00")
    pixels = chunk(b"IDAT", zlib.compress(bytes(30_000 * 3751), 9))
    icc = chunk(b"iCCP", b"x\x00\x00" + zlib.compress(bytes(200_000_000), 9))
    small = chunk(b"IHDR", (64).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00")
    avif = saved(photo(64, 64), "AVIF")
    at = avif.index(b"ispe") + 8
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + b"\x00\x08\x02\x4c\x01\x00;"
    scans = jpeg(photo(64, 64), 90)
    return {
        "png": b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""),
        "png profile": b"\x89PNG\r\n\x1a\n" + small + icc,
        "gif": b"GIF89a" + struct.pack("<HHBBB", 65_000, 65_000, 0x80, 0, 0) + bytes(6) + b";",
        "gif frame": b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame,
        "webp": b"RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00"
        + b"\x02\x00\x00\x00"
        + b"\xfe\xff\xff" * 2,
        "avif": avif[:at] + side * 2 + avif[at + 8 :],
        "bmp": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 30_000, -30_000, 1, 24) + bytes(40),
        "tiff": b"MM\x00*" + exif_block((256, 4, 1, 30_000), (257, 4, 1, 30_000))[4:],
        "jpeg": scans[:163] + scans[163:].replace(b"\x00\x40\x00\x40", b"\xff\xdc\xff\xdc", 1),
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_quickly_and_in_little_memory(name: str) -> None:
    """What promises more pixels than it has bytes for is refused before it is unpacked."""
    body = bombs()[name]
    process(saved(photo(64, 64), "PNG"), Shape())  # Pillow loads its readers once
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    picture = process(body, Shape())
    assert picture.failure in ("too_many_pixels", "broken_picture")
    assert time.process_time() - start < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KB
    if name in ("png", "gif", "webp", "avif", "bmp", "tiff", "jpeg", "gif frame"):
        assert picture.failure == "too_many_pixels"


def test_sizes_are_judged_before_anything_is_decoded() -> None:
    """A header is enough to refuse by area, shorter side and ratio."""
    header = struct.pack(">IIBBBBB", 5000, 900, 8, 2, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)  # there is nothing behind it
    assert process(body, Shape(min_image_size=901)).failure == "too_small"
    assert process(body, Shape(max_image_area=4_499_999)).failure == "area"
    assert process(body, Shape(max_aspect_ratio=5.5)).failure == "aspect_ratio"
    assert process(body, Shape(max_aspect_ratio=5.6)).failure == "broken_picture"


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Each scan of a progressive JPEG is a pass over all pixels; nobody needs 500."""
    body = saved(photo(64, 64), "JPEG", progressive=True)
    scan = body[body.rindex(b"\xff\xda") : -2]
    assert process(body[:-2] + scan * 600 + b"\xff\xd9", Shape()).failure == "unsupported"


FUZZED = {
    kind: saved(
        photo(48, 40), kind, **({"exif": turned(6)} if kind != "GIF" and kind != "BMP" else {})
    )
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
} | {
    "CMYK": saved(photo(48, 40), "JPEG", "CMYK", icc_profile=cmyk_profile((1, 2, 3))),
    "progressive": saved(photo(48, 40), "JPEG", progressive=True, icc_profile=WIDE),
}


@pytest.mark.parametrize("kind", FUZZED)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_never_raises(kind: str, data: st.DataObject) -> None:
    """Bytes cut, flipped, doubled or overwritten give a picture or a typed failure."""
    body = bytearray(FUZZED[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                del body[at + 1 :]
            case 1:
                body[at] ^= 1 << data.draw(st.integers(0, 7))
            case 2:
                body[at:at] = body[at : at + 40]
            case _:
                body[at : at + 4] = data.draw(
                    st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
                )
    shape = data.draw(st.sampled_from([Shape(32), Shape(32, "border", resize_quality="exact")]))
    picture = process(bytes(body), shape)
    assert isinstance(picture, Picture)
    if picture.failure is None:
        assert pixels_of(picture.image).shape[:2] == (picture.height, picture.width)
    else:
        assert picture.failure in FAILURES and picture.image is None


def test_a_damaged_exif_block_leaves_the_picture_as_it_stands() -> None:
    """Whatever a PNG's Exif chunk holds, with its checksum right, the pixels are had."""
    body = saved(photo(64, 48), "PNG")
    at = body.index(b"IDAT") - 4
    for block in (b"", b"M", b"junk of some kind", exif_block((0x0112, 3, 1, 6 << 16))[:17]):
        tagged = body[:at] + chunk(b"eXIf", block) + body[at:]
        assert process(tagged, Shape()).image == process(body, Shape()).image


def test_exif_is_written_as_img2dataset_writes_it() -> None:
    """The same JSON that exifread gives for these bytes, and {} where there is no Exif block."""
    import json

    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker ", "Model", 6
    exif.get_ifd(0x8769)[0x829A] = (1, 60)
    for kind in ("JPEG", "WEBP", "TIFF"):
        body = saved(photo(64, 48), kind, exif=exif.tobytes())
        tags = exifread.process_file(io.BytesIO(body), details=False)
        wanted = json.dumps({k: str(v).strip() for k, v in tags.items() if v is not None})
        assert process(body, Shape()).exif == wanted
        assert "Maker" in wanted
        assert process(body, Shape(extract_exif=False)).exif is None
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        assert process(saved(photo(64, 48), kind), Shape()).exif == "{}"


@pytest.mark.parametrize(
    "block",
    [
        exif_block(*[(0x8769, 4, 1, 8)] * 400),
        exif_block(*[(0xA302, 1, 999, 0)] * 5000),
        exif_block(*[(0x010E, 2, 0x7FFFFFFF, 70_000)] * 5000),
        exif_block((0x0112, 3, 1, 6 << 16), next_at=0xFFFFFFF0),
        b"MM\x00*\xff\xff\xff\xff",
        b"MM\x00*",
    ],
    ids=["itself", "long lists", "long words", "no next", "nowhere", "cut"],
)
def test_hostile_exif_is_given_up(block: bytes) -> None:
    """Directories that lead to themselves or are endless cost moments, and never the picture."""
    body = saved(photo(64, 48), "JPEG", exif=b"Exif\x00\x00" + block) + b"a" * 4_000_000
    start = time.process_time()
    assert process(body, Shape()).failure is None
    exif_json(body)
    assert time.process_time() - start < 1
