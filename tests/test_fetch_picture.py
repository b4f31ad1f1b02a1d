"""The picture that is kept: img2dataset's to the byte, or nearly so and faster."""

import io
import os
import random
from math import inf

import numpy as np
import pytest

from breadth.curate.fetch.failures import FAILURES
from breadth.curate.fetch.picture import Picture, Shape, header_of, process, risky

from .made_pictures import chunk, jpeg, photo, pixels_of, psnr, saved, turned

MODES = ("no", "border", "keep_ratio", "keep_ratio_largest", "center_crop")
FORMS = ("jpg", "progressive", "grey", "png", "palette", "alpha", "grey and alpha", "webp")


def body_of(form: str, pixels: np.ndarray) -> bytes:
    if form == "alpha":
        rgba = np.dstack([pixels[:, :, ::-1], pixels[:, :, 1]])
        return saved_array(rgba)
    if form == "grey and alpha":
        return saved_array(pixels[:, :, :2])
    kinds = {
        "jpg": ("JPEG", "RGB", {"quality": 85}),
        "progressive": ("JPEG", "RGB", {"progressive": True}),
        "grey": ("JPEG", "L", {}),
        "png": ("PNG", "RGB", {}),
        "palette": ("PNG", "P", {}),
        "webp": ("WEBP", "RGB", {"quality": 80}),
    }
    kind, mode, options = kinds[form]
    return saved(pixels, kind, mode, **options)


def saved_array(pixels: np.ndarray) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(sink, "PNG")
    return sink.getvalue()


def sizes(picture: Picture) -> tuple[int | None, ...]:
    return (picture.width, picture.height, picture.original_width, picture.original_height)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
def test_exact_is_img2dataset_to_the_byte(mode: str, form: str) -> None:
    """Bytes, sizes and messages are its own, for any size, format and option."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset.resizer import Resizer

    draw = random.Random(f"{mode} {form}")
    for _ in range(6):
        width, height = draw.choice([(1, 700), (700, 700), (260, 260)])
        width, height = draw.randint(width // 3 + 1, 700), draw.randint(1, height)
        options = {
            "image_size": draw.choice([64, 224, 256, draw.randint(1, 400)]),
            "resize_mode": mode,
            "resize_only_if_bigger": draw.random() < 0.6,
            "encode_format": draw.choice(["jpg", "jpg", "webp"]),
            "skip_reencode": draw.random() < 0.4,
            "min_image_size": draw.choice([0, 0, 50]),
            "max_image_area": draw.choice([inf, 100_000]),
            "max_aspect_ratio": draw.choice([inf, 3]),
            "downscale_interpolation": draw.choice(["area", "cubic"]),
        }
        body = body_of(form, photo(700, 700, seed=draw.randint(0, 3))[:height, :width])
        theirs = Resizer(**options)(io.BytesIO(body))
        ours = process(body, Shape(resize_quality="exact", **options))  # type: ignore[arg-type]
        assert (ours.image, *sizes(ours), ours.message) == theirs, options
        fast = process(body, Shape(**options))  # type: ignore[arg-type]
        assert (*sizes(fast), fast.message) == theirs[1:], options


@pytest.mark.parametrize("mode", ["border", "keep_ratio", "center_crop"])
@pytest.mark.parametrize("size", [(640, 480), (641, 427), (1503, 1001), (427, 640), (2600, 1800)])
def test_fast_pixels_are_nearly_the_exact_ones(mode: str, size: tuple[int, int]) -> None:
    """At least 35 dB lie between fast and exact, where JPEG itself is content with 36."""
    body = jpeg(photo(*size), 85)
    made = [
        process(body, Shape(resize_mode=mode, resize_quality=quality, encode_format="png"))
        for quality in ("fast", "exact")
    ]
    fast, exact = (pixels_of(picture.image) for picture in made)
    assert sizes(made[0]) == sizes(made[1])
    assert 35 < psnr(fast, exact) < 99, "and fast is indeed another way"


def test_a_reduced_decode_does_not_shift_the_picture() -> None:
    """Sides that are no multiple of the reduction leave half a pixel over, which is heeded."""
    for width, height in ((641, 481), (1503, 1001), (3007, 2003)):
        body = jpeg(photo(width, height), 95)
        shape = {"resize_mode": "keep_ratio_largest", "encode_format": "png"}
        fast = process(body, Shape(**shape))  # type: ignore[arg-type]
        exact = process(body, Shape(resize_quality="exact", **shape))  # type: ignore[arg-type]
        assert psnr(pixels_of(fast.image), pixels_of(exact.image)) > 39


@pytest.mark.parametrize("quality", ["fast", "exact"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_pictures_stand_upright(kind: str, orientation: int, quality: str) -> None:
    """Each of Exif's eight orientations is undone, and the sizes are the upright picture's."""
    from PIL import Image, ImageOps

    body = saved(photo(400, 300), kind, exif=turned(orientation))
    picture = process(body, Shape(96, "keep_ratio_largest", resize_quality=quality))
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(body)).convert("RGB"))
    assert (picture.original_width, picture.original_height) == wanted.size
    small = np.asarray(wanted.resize((picture.width, picture.height), Image.Resampling.BOX))  # type: ignore[arg-type]
    assert psnr(pixels_of(picture.image), small[:, :, ::-1]) > 28


@pytest.mark.parametrize("size", [(32768, 20), (20, 65500)])
def test_extreme_sides_are_made_or_refused(size: tuple[int, int]) -> None:
    """A line of pixels is resized in its shape; enlarged beyond max_pixels it is refused."""
    body = jpeg(np.full((size[1], size[0], 3), 77, np.uint8))
    made = process(body, Shape(resize_mode="keep_ratio_largest"))
    assert (made.width, made.height) in ((256, 1), (1, 256))
    assert made.image is not None
    huge = process(body, Shape(resize_mode="keep_ratio", resize_only_if_bigger=False))
    assert (huge.failure, huge.image) == ("too_many_pixels", None)
    webp = process(body, Shape(resize_mode="no", encode_format="webp"))
    assert webp.failure == "unsupported"


def test_small_pictures_keep_their_bytes_where_nothing_is_to_be_changed() -> None:
    """skip_reencode keeps what is upright, sRGB, opaque and of the wanted format."""
    pixels = photo(200, 150)
    shape = Shape(skip_reencode=True)
    plain = jpeg(pixels)
    assert process(plain, shape).image == plain
    assert process(plain, Shape()).image != plain
    for other in (
        saved(pixels, "JPEG", exif=turned(6)),
        saved(pixels, "JPEG", "CMYK"),
        saved(pixels, "PNG"),
        jpeg(photo(400, 300)),
    ):
        made = process(other, shape)
        assert made.failure is None and made.image != other
    webp = process(saved(pixels, "WEBP"), Shape(skip_reencode=True, encode_format="webp"))
    assert webp.image == saved(pixels, "WEBP")


def test_without_any_reencoding_the_bytes_are_what_came() -> None:
    """Only a picture that shards can hold, whole and of a wanted size, is kept as it came."""
    shape = Shape(disable_all_reencoding=True, min_image_size=100)
    for kind in ("JPEG", "PNG", "WEBP"):
        body = saved(photo(600, 400), kind, exif=turned(6))
        kept = process(body, shape)
        assert (kept.image, kept.width, kept.height) == (body, 600, 400)
        assert process(body[: len(body) // 2], shape).failure == "broken_picture"
    assert process(saved(photo(600, 400), "GIF"), shape).failure == "unsupported"
    assert process(jpeg(photo(99, 400)), shape).failure == "too_small"


@pytest.mark.parametrize(
    ("failure", "body"),
    [
        ("not_a_picture", b""),
        ("not_a_picture", b"\n <!DOCTYPE html><html><body>404</body></html>"),
        ("not_a_picture", b'{"error": "gone"}'),
        ("not_a_picture", b"\xff\xd8 but no JPEG"),
        ("not_a_picture", b"%PDF-1.7"),
        ("broken_picture", b"\xff\xd8\xff\xe0\x00\x10JFIF"),
        ("broken_picture", b"\x89PNG\r\n\x1a\n"),
        ("broken_picture", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13))),
        ("broken_picture", b"GIF89a\x00"),
        ("broken_picture", b"GIF89a\x00\x00\x00\x00;"),
        ("broken_picture", b"RIFF\x00\x00\x00\x00WEBPVP8 "),
        ("broken_picture", b"\x00\x00\x00\x18ftypavif"),
        ("broken_picture", b"II*\x00\x08\x00\x00\x00"),
        ("broken_picture", b"BM" + bytes(12)),
        ("unsupported", b"\x00\x00\x00\x18ftypheic" + bytes(16)),
        ("unsupported", b"\xff\x0a" + bytes(20)),
        ("unsupported", b"8BPS\x00\x01"),
    ],
)
def test_what_is_no_whole_picture_has_a_typed_failure(failure: str, body: bytes) -> None:
    """Pages, texts and stumps are told apart, in words without anything that may differ."""
    picture = process(body, Shape())
    assert (picture.failure, picture.image) == (failure, None)
    assert picture.failure in FAILURES
    assert picture.message and "0x" not in picture.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF"])
def test_cut_off_pictures_are_broken(kind: str) -> None:
    """No decoder fills up with grey what did not come."""
    body = saved(photo(300, 200), kind)
    for part in (0.2, 0.5, 0.9):
        assert process(body[: int(len(body) * part)], Shape()).failure == "broken_picture"


def test_a_jpeg_without_its_last_two_bytes_has_all_its_pixels() -> None:
    """Browsers show it whole, and so do we; with ten bytes less, pixels are missing."""
    body = jpeg(photo(300, 200))
    whole = process(body, Shape(64, resize_quality="exact"))
    assert process(body[:-2], Shape(64, resize_quality="exact")).image == whole.image
    assert process(body[:-12], Shape(64)).failure == "broken_picture"


def test_the_same_bytes_make_the_same_picture() -> None:
    """Eight threads at once change nothing."""
    from concurrent.futures import ThreadPoolExecutor

    bodies = [body_of(form, photo(300, 200)) for form in FORMS] * 4
    alone = [process(body, Shape(64)).image for body in bodies]
    with ThreadPoolExecutor(8) as threads:
        assert [p.image for p in threads.map(lambda b: process(b, Shape(64)), bodies)] == alone


def test_what_may_hang_or_grow_is_called_risky() -> None:
    """SVG, TIFF and huge pictures are; a photograph and a page are not."""

    def is_risky(body: bytes) -> bool:
        header = header_of(body)
        assert header is not None
        return risky(header)

    assert is_risky(b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert is_risky(saved(photo(40, 30), "TIFF"))
    huge = chunk(b"IHDR", (30_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00")
    assert is_risky(b"\x89PNG\r\n\x1a\n" + huge)
    assert not is_risky(jpeg(photo(640, 480)))
    assert header_of(b"<html>") is None
