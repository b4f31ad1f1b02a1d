"""Decoding: any picture becomes the square that it should."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from breadth.loaders import decode as decoding
from breadth.loaders.crop import Box
from breadth.loaders.decode import DecodeError, decode, decode_into

from .hostile_bombs import jpeg_header_bomb, jpeg_scan_bomb
from .made_pictures import exif_block, jpeg, photo, psnr, saved, turned


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Encode a picture with Pillow."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def palette(transparent: bool) -> bytes:
    """Encode a picture whose only colour is number 3 of its palette."""
    picture = Image.new("P", (9, 9), 3)
    picture.putpalette([value for i in range(256) for value in (i, 255 - i, 0)])
    options: dict[str, Any] = {"transparency": 3} if transparent else {}
    return encoded(picture, **options)


@pytest.mark.parametrize(
    ("body", "colour"),
    [
        (encoded(Image.new("RGB", (9, 9), (10, 120, 250))), (10, 120, 250)),
        (encoded(Image.new("RGB", (9, 9), (10, 120, 250)), "WEBP", lossless=True), (10, 120, 250)),
        (encoded(Image.new("RGB", (16, 16), (250, 20, 20)), "JPEG", quality=95), (250, 20, 20)),
        (encoded(Image.new("L", (9, 9), 77)), (77, 77, 77)),
        (encoded(Image.new("1", (9, 9), 1)), (255, 255, 255)),
        (encoded(Image.new("I;16", (9, 9), 77 * 256)), (77, 77, 77)),
        (encoded(Image.new("LA", (9, 9), (0, 0))), (255, 255, 255)),
        (encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 51))), (255, 204, 204)),
        (encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "WEBP"), (255, 255, 255)),
        (encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
        (palette(transparent=False), (3, 252, 0)),
        (palette(transparent=True), (255, 255, 255)),
    ],
    ids=["rgb", "webp", "jpeg", "grey", "bit", "16", "la", "rgba", "webp-a", "cmyk", "p", "clear"],
)
def test_every_kind_of_picture_becomes_rgb_on_white(body: bytes, colour: tuple[int, ...]) -> None:
    """Grey, palette, alpha, 16-bit and CMYK pictures have the colour that they show on white."""
    square = decode(body, 8)
    assert square.shape == (8, 8, 3)
    assert square.dtype == np.uint8
    assert np.abs(square.astype(int) - colour).max() <= 2


def test_shrinking_averages_the_central_square() -> None:
    """A wide picture loses its sides and each pixel is the mean of the area that it covers."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    centre = pixels[:, 4:16].reshape(4, 3, 4, 3, 3).mean((1, 3))
    assert np.abs(decode(encoded(Image.fromarray(pixels)), 4) - centre).max() <= 0.51
    tall = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    assert (decode(encoded(Image.fromarray(tall)), 12) == tall[4:16]).all()


def test_enlarging_interpolates() -> None:
    """A small picture is enlarged smoothly: between black and white there is grey."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[:, 1] = 255
    row = decode(encoded(Image.fromarray(pixels)), 8)[0, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert len(set(row.tolist())) > 2


def test_what_cannot_be_decoded_is_an_error() -> None:
    """Nothing, noise and a picture cut short raise DecodeError, never a grey picture."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "WEBP"):
        body = encoded(noise, kind)
        for bad in (b"", b"not a picture", body[: len(body) // 2], body[:60]):
            with pytest.raises(DecodeError):
                decode(bad, 8)


@pytest.mark.parametrize("size", [(256, 256), (301, 217), (40, 64), (9, 9), (300, 7)])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"mode": "L"}]
)
def test_the_middle_of_a_jpeg_is_what_opencv_makes_of_it(
    size: tuple[int, int], options: dict[str, Any]
) -> None:
    """The central square is OpenCV's decoding and exact areas of it, to the bit."""
    body = saved(photo(*size), "JPEG", **options)
    found = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    pixels = np.asarray(found)[:, :, ::-1]
    side = min(size)
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    square = pixels[top : top + side, left : left + side]
    for px in (8, 64, 224):
        method = cv2.INTER_AREA if side > px else cv2.INTER_LINEAR
        assert (decode(body, px) == cv2.resize(square, (px, px), interpolation=method)).all()
    whole = np.empty((size[1], size[0], 3), np.uint8)
    decode_into(body, whole, lambda width, height: Box(0, 0, width, height))
    assert (whole == pixels).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    """What a camera held sideways has stored is cut and shown as a viewer shows it."""
    body = saved(photo(60, 40), kind, exif=turned(orientation), lossless=True)  # if WebP
    seen = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
    upright = np.asarray(seen)
    side, top, left = 40, (seen.height - 40) // 2, (seen.width - 40) // 2
    assert (decode(body, side) == upright[top : top + side, left : left + side]).all()
    whole = np.empty_like(upright)
    decode_into(body, whole, lambda width, height: Box(0, 0, width, height))
    assert (whole == upright).all()
    piece = np.empty((12, 24, 3), np.uint8)
    decode_into(body, piece, lambda width, height: Box(width - 25, height - 13, 24, 12))
    assert (piece == upright[-13:-1, -25:-1]).all()
    shrunk, box = np.empty((9, 15, 3), np.uint8), Box(2, 1, 36, 36)
    decode_into(body, shrunk, lambda width, height: box)
    expected = cv2.resize(upright[1:37, 2:38], (15, 18), interpolation=cv2.INTER_AREA)
    assert psnr(shrunk, cv2.resize(expected, (15, 9), interpolation=cv2.INTER_AREA)) > 24


@pytest.mark.parametrize(
    "block", [b"", b"XX*\0", exif_block((0x0112, 3, 1, 9 << 16)), exif_block()[:9]]
)
def test_a_damaged_exif_block_says_nothing(block: bytes) -> None:
    """A picture whose tags cannot be read is shown as it is stored."""
    pixels = photo(16, 16)
    body = saved(pixels, "JPEG", exif=b"Exif\0\0" + block)
    assert (decode(body, 16) == decode(saved(pixels, "JPEG"), 16)).all()


@pytest.mark.parametrize(
    "box", [Box(0, 0, 1000, 700), Box(333, 101, 480, 500), Box(7, 5, 900, 240)]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_crop_is_shrunk_the_quick_way_to_the_same_picture(kind: str, box: Box) -> None:
    """A crop that is reduced while decoding or by halves is the exact one, but for fine detail."""
    body = saved(photo(1003, 701), kind)
    out = np.empty((60, 60, 3), np.uint8)
    decode_into(memoryview(body), out, lambda width, height: box)
    left, top, width, height = box
    piece = np.asarray(Image.open(io.BytesIO(body)))[top : top + height, left : left + width]
    exact = cv2.resize(piece, (60, 60), interpolation=cv2.INTER_AREA)
    assert psnr(out, exact) > 28
    assert abs(out.mean() - exact.mean()) < 0.5


def test_a_picture_is_decoded_into_its_place_in_a_batch() -> None:
    """Pixels go to the memory that is given, and to nothing beside it."""
    batch = np.full((3, 32, 32, 3), 99, np.uint8)
    for body in (jpeg(photo(32, 32)), jpeg(photo(50, 40)), saved(photo(32, 32), "PNG")):
        batch[1] = 99
        decode_into(memoryview(body).toreadonly(), batch[1])
        assert (batch[1] == decode(body, 32)).all()
        assert (batch[[0, 2]] == 99).all()


def test_a_jpeg_with_a_harmless_flaw_is_decoded() -> None:
    """Bytes too many before a JPEG's end mark cost no pixel."""
    body = saved(photo(48, 48), "JPEG", progressive=True)
    flawed = body[:-2] + b"\x12\x34\x56" + body[-2:]
    with pytest.raises(ValueError, match="before marker 0xd9"):
        simplejpeg.decode_jpeg(flawed)
    assert (decode(flawed, 48) == decode(body, 48)).all()


def test_a_jpeg_with_damaged_pixels_is_an_error() -> None:
    """A hole in a JPEG's pixels is found, where libjpeg would paint it grey and warn."""
    body = jpeg(photo(96, 96))
    middle = len(body) // 2
    with pytest.raises(DecodeError):
        decode(body[:middle] + b"\xff\xd9" + body[middle:], 8)


def test_the_first_frame_of_a_gif_is_decoded() -> None:
    """An animation is its first picture."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((200, 10, 30), (0, 250, 0))]
    body = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(body, 8) == (200, 10, 30)).all()


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "AVIF", "PPM"])
def test_formats_beside_ours_are_refused(kind: str) -> None:
    """No reader opens a format that shards do not hold, whatever a picture is called."""
    with pytest.raises(DecodeError, match="none of JPEG, PNG, WEBP, GIF"):
        decode(saved(photo(16, 16), kind), 8)


def test_pictures_too_large_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes, pixels and passes have limits, which the header is held against."""
    many_scans = jpeg_scan_bomb(2000)
    with pytest.raises(DecodeError, match="65500 x 65500 pixels"):
        decode(jpeg_header_bomb(), 8)
    with pytest.raises(DecodeError, match="scans are more than the 500"):
        decode(many_scans, 8)
    with pytest.raises(DecodeError, match="scans are more than the 500"):
        decode(many_scans[:2] + b"\xff\xe1\0\x0cExif\0\0II*\0" + many_scans[2:], 8)
    small = photo(20, 20)
    monkeypatch.setattr(decoding, "MOST_PIXELS", 399)
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        with pytest.raises(DecodeError, match="20 x 20 pixels"):
            decode(saved(small, kind), 8)
    monkeypatch.setattr(decoding, "MOST_BYTES", 100)
    with pytest.raises(DecodeError, match="bytes are more than the 100"):
        decode(saved(small, "PNG"), 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_damage_is_a_picture_or_an_error_of_ours(kind: str) -> None:
    """Whatever bytes are changed or lost, there is a picture or DecodeError, and nothing else."""
    rng = np.random.default_rng(0)
    whole = np.frombuffer(saved(photo(40, 30), kind, exif=turned(6)), np.uint8)
    refused = 0
    for _ in range(300):
        body = whole.copy()
        body[rng.integers(len(body), size=3)] = rng.integers(256, size=3)
        try:
            assert decode(body[: rng.integers(len(body) // 2, 2 * len(body))].tobytes(), 8).any()
        except DecodeError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 50 < refused < 300
