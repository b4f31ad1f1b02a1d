"""Decoding: any picture becomes the square that it should."""

import io

import numpy as np
import pytest
from PIL import Image

from breadth.loaders.decode import DecodeError, decode


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Encode a picture with Pillow."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def palette(transparent: bool) -> bytes:
    """Encode a picture whose only colour is number 3 of its palette."""
    picture = Image.new("P", (9, 9), 3)
    picture.putpalette([value for i in range(256) for value in (i, 255 - i, 0)])
    return encoded(picture, **({"transparency": 3} if transparent else {}))


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
