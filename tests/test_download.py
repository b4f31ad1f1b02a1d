"""The download stage: img2dataset's engine, with every pair accounted for."""

import io

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from breadth.curate.stages.download import Download, is_svg, render_svg

from .conftest import Site, encode

SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20">'
    b'<rect width="20" height="20" fill="red"/></svg>'
)


def fetched(site: Site, *paths: str, **options: object) -> list[dict[str, object]]:
    links = [path if "://" in path or not path else site.link(path) for path in paths]
    stage = Download(timeout_s=5, **options)  # type: ignore[arg-type]
    table = pa.table(stage.annotate(pa.table({"url": links})))
    verdicts = stage.keep(table).to_pylist()
    return [row | {"kept": kept} for row, kept in zip(table.to_pylist(), verdicts, strict=True)]


def test_rows_come_back_in_the_order_they_went_in(
    site: Site, drawn: list[tuple[bytes, str]]
) -> None:
    """img2dataset answers in the order of completion; the part's order is kept all the same."""
    for number in range(30):
        width = 20 + number
        site.files[f"{number}.jpg"] = encode(np.full((16, width, 3), 90, np.uint8))
    rows = fetched(site, *(f"{n}.jpg" for n in range(30)))
    assert [row["original_width"] for row in rows] == [20 + n for n in range(30)]
    assert all(row["kept"] for row in rows)


def test_each_failure_has_a_status_and_a_reason(site: Site) -> None:
    """404, a broken picture, a link that is none and an empty one keep their row."""
    site.files["broken.jpg"] = b"\xff\xd8\xff\xe0 this is no picture"
    rows = fetched(site, "gone.jpg", "broken.jpg", "file:///etc/hostname", "")
    assert [row["status"] for row in rows] == [
        "failed_to_download",
        "failed_to_resize",
        "failed_to_download",
        "failed_to_download",
    ]
    assert not any(row["kept"] or row["image"] for row in rows)
    table = pa.table({"error_message": [row["error_message"] for row in rows]})
    assert list(Download().reason(table)) == [
        "HTTP Error 404: Not Found",
        "cannot be decoded",
        "not an http or https link",
        "not an http or https link",
    ]


def test_the_shorter_side_is_resized_and_the_original_size_kept(site: Site) -> None:
    """keep_ratio at 64 px turns 200 x 400 into 64 x 128 and remembers 200 x 400."""
    site.files["a.jpg"] = encode(np.full((200, 400, 3), 120, np.uint8))
    [row] = fetched(site, "a.jpg", image_size=64)
    names = ("width", "height", "original_width", "original_height")
    assert [row[name] for name in names] == [128, 64, 400, 200]
    assert Image.open(io.BytesIO(row["image"])).size == (128, 64)  # type: ignore[arg-type]


def test_svg_is_rendered_on_white(site: Site) -> None:
    """An SVG document becomes a picture: its left half red, its right half white."""
    site.files["a.svg"] = SVG
    [row] = fetched(site, "a.svg", svg_side_px=80, resize_only_if_bigger=True)
    pixels = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)  # type: ignore[arg-type]
    assert pixels.shape == (40, 80, 3)
    assert pixels[20, 20].tolist() == pytest.approx([0, 0, 254], abs=6)
    assert pixels[20, 60].tolist() == pytest.approx([255, 255, 255], abs=6)


def test_a_broken_svg_keeps_its_row(site: Site) -> None:
    """A document that cannot be rendered is a failure with a reason, not a crash."""
    site.files["a.svg"] = b"<svg this is not well formed"
    [row] = fetched(site, "a.svg")
    assert (row["status"], row["kept"]) == ("failed_to_resize", False)
    assert row["error_message"]


def test_svg_is_told_by_its_first_bytes() -> None:
    """A declaration or a comment may come first; HTML and JPEG are not SVG."""
    assert is_svg(SVG)
    assert is_svg(b'<?xml version="1.0"?>\n<!-- made by hand -->\n' + SVG)
    assert not is_svg(b"<html><body>404</body></html>")
    assert not is_svg(b"\xff\xd8\xff\xe0")
    assert Image.open(io.BytesIO(render_svg(SVG, 100))).size == (100, 50)


def test_a_16_bit_png_keeps_its_greys(site: Site) -> None:
    """img2dataset clips 16 bits to white; here 0, half and full stay what they are."""
    greys = np.repeat(np.array([[0, 32768, 65535]], np.uint16), 40, axis=0).repeat(20, axis=1)
    site.files["deep.png"] = cv2.imencode(".png", greys)[1].tobytes()
    [row] = fetched(site, "deep.png", encode_format="png", encode_quality=3)
    pixels = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_GRAYSCALE)  # type: ignore[arg-type]
    assert pixels[20, [10, 30, 50]].tolist() == [0, 128, 255]
