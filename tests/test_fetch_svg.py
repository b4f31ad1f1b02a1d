"""SVG is drawn, and nothing in it runs, loads or grows."""

import base64
import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from breadth.curate.fetch.picture import Shape, process
from breadth.curate.fetch.sniff import sniff
from breadth.curate.fetch.svg import render_svg

from .conftest import Site
from .made_pictures import pixels_of, saved

NAMES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def svg(inside: str, size: str = 'viewBox="0 0 40 20"', before: str = "") -> bytes:
    return f"{before}<svg {NAMES} {size}>{inside}</svg>".encode()


def colours(document: bytes) -> set[tuple[int, ...]]:
    shape = Shape(resize_mode="no", encode_format="png", encode_quality=1, svg_side_px=80)
    picture = process(document, shape)
    assert picture.failure is None, picture.message
    return {tuple(colour) for colour in pixels_of(picture.image).reshape(-1, 3)[:, ::-1].tolist()}


def test_a_document_is_drawn_on_white_with_its_longer_side_as_asked() -> None:
    """Sizes in any unit or none give the same side; what is not drawn is white."""
    red = '<rect width="50%" height="100%" fill="red"/>'
    for size in ('width="40pt" height="20pt"', 'viewBox="0 0 4 2"', 'width="4cm" height="2cm"'):
        width, height = Image.open(io.BytesIO(render_svg(svg(red, size), 100))).size
        assert width == 100 and abs(height - 50) <= 1
        assert colours(svg(red, size)) >= {(255, 0, 0), (255, 255, 255)}
    picture = process(svg(red), Shape(64, svg_side_px=200))
    assert (picture.original_width, picture.original_height) == (200, 100)
    assert (picture.width, picture.height, picture.exif) == (128, 64, "{}")


@pytest.mark.parametrize(
    "before",
    [
        "",
        "\ufeff",
        '<?xml version="1.0"?>\n<!-- made by hand -->\n',
        '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd" [<!ENTITY red "red">]>',
    ],
)
def test_svg_is_told_by_its_first_element(before: str) -> None:
    """Declarations, comments and entities may come first; pages that hold an SVG are pages."""
    assert sniff(svg("", before=before)).kind == "svg"
    page = before.encode() + b"<html>" + svg("") + b"</html>"
    assert process(page, Shape()).failure == "not_a_picture"


def test_entities_are_filled_in() -> None:
    """Illustrator's documents declare their namespaces as entities."""
    drawn = svg(
        '<rect width="40" height="20" fill="&red;"/>',
        before='<!DOCTYPE svg [<!ENTITY red "#f00">]>',
    )
    assert colours(drawn) == {(255, 0, 0)}


@pytest.mark.parametrize("tag", ["image", "feImage"])
def test_no_file_and_no_address_is_opened(
    tag: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way a link is written, its picture is not drawn, and no server is asked."""
    (tmp_path / "secret.png").write_bytes(saved(np.full((20, 40, 3), 60, np.uint8), "PNG"))
    site.files["secret.png"] = (tmp_path / "secret.png").read_bytes()
    monkeypatch.chdir(tmp_path)
    path = f"{tmp_path}/secret.png"
    entity = f'<!DOCTYPE svg [<!ENTITY e "{path}">]>'
    for link in (
        path,
        "secret.png",
        f"file://{path}",
        site.link("secret.png"),
        "&e;",
        f"&#x2f;{path[1:]}",
    ):
        for name in ("href", "xlink:href"):
            inside = f'<{tag} {name}="{link}" width="40" height="20"/>'
            if tag == "feImage":
                rect = '<rect width="40" height="20" filter="url(#f)"/>'
                inside = f'<filter id="f">{inside}</filter>{rect}'
            assert (60, 60, 60) not in colours(svg(inside, before=entity))
    outside = f'<!ENTITY e SYSTEM "file://{path}"><!ENTITY % p SYSTEM "{site.link("d")}"> %p;'
    process(svg("<text>&e;</text>", before=f"<!DOCTYPE svg [{outside}]>"), Shape())
    assert not site.asked


def test_pictures_inside_the_document_are_drawn() -> None:
    """A data: link leads nowhere; only one to another SVG, not looked through, is left out."""
    png = base64.b64encode(saved(np.full((20, 40, 3), 60, np.uint8), "PNG")).decode()
    assert (60, 60, 60) in colours(
        svg(f'<image href="data:image/png;base64,{png}" width="40" height="20"/>')
    )
    inner = base64.b64encode(svg('<rect width="40" height="20" fill="#3c3c3c"/>')).decode()
    nested = svg(f'<image href="data:image/svg+xml;base64,{inner}" width="40" height="20"/>')
    assert colours(nested) == {(255, 255, 255)}


def test_scripts_are_left_out() -> None:
    """Neither a script nor a handler changes what is drawn."""
    script = '<script>document.documentElement.innerHTML = ""</script>'
    drawn = svg(f'{script}<rect onload="alert(1)" width="40" height="20" fill="#0f0"/>')
    assert colours(drawn) == {(0, 255, 0)}


@pytest.mark.parametrize(
    ("failure", "document"),
    [
        ("unsupported", svg("<g>" * 100_000 + "</g>" * 100_000)),
        ("broken_picture", svg("<g>")),
        ("broken_picture", svg("&nothing;")),
        ("broken_picture", b'<svg xmlns="http://www.w3.org/2000/svg" width="-1"><g></svg>'),
        (
            "broken_picture",
            svg(
                "<text>&e9;</text>",
                before="<!DOCTYPE svg [<!ENTITY e0 'laughs'>"
                + "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 10))
                + "]>",
            ),
        ),
    ],
    ids=["deep", "open", "unknown entity", "not XML", "billion laughs"],
)
def test_documents_made_to_harm_are_refused(failure: str, document: bytes) -> None:
    """Depth, which overflows the renderer's stack, and entities that multiply are refused."""
    start = time.process_time()
    assert process(document, Shape()).failure == failure
    assert time.process_time() - start < 2


def test_a_panic_of_the_renderer_is_a_failure() -> None:
    """resvg 0.5 panics at this path: Python sees that as something other than an Exception."""
    drawn = f'<svg {NAMES}><path d="M0 0L10 10A1e9 3 0 0 1 5 5z"/></svg>'.encode()
    assert process(drawn, Shape()).failure == "broken_picture"


def test_a_document_of_any_size_gives_a_picture_of_the_asked_size() -> None:
    """A canvas of a thousand million pixels is drawn on svg_side_px of them."""
    picture = process(svg("", 'width="30000" height="30000"'), Shape(resize_mode="no"))
    assert (picture.width, picture.height) == (512, 512)
    strip = process(svg("", 'width="100000" height="1"'), Shape(resize_mode="no"))
    assert (strip.width, strip.height) == (512, 1)
