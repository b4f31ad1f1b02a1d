"""Hostile cases in the body: pages, polyglots, damaged files, bombs, and SVG documents."""

import base64
import gzip
from functools import cache

from PIL import Image

from . import hostile_bombs as bombs
from . import hostile_pictures as made
from .hostile_case import Case, case, ok
from .hostile_pictures import jpeg, pillow, svg
from .hostile_tls import folder

GREEN = (0, 170, 0)
WHITE = (255, 255, 255)


def file(name: str, body: bytes, failure: str | None = None, **facts: object) -> Case:
    """Return a case of a body; its name ends in .jpg and its type says JPEG, whatever it is."""
    return case(f"file_{name}", ok(body), failure, **facts)


SOUND = [
    file("progressive", jpeg(progressive=True)),
    file("grey_jpeg", pillow("JPEG", "L")),
    file("cmyk_jpeg", pillow("JPEG", "CMYK")),
    file("png", pillow("PNG")),
    file("png_of_16_bits", made.deep_png()),
    file("png_with_palette", pillow("PNG", "P")),
    file("png_of_1_bit", pillow("PNG", "1")),
    file("png_grey_with_alpha", pillow("PNG", "LA")),
    file("gif", pillow("GIF", "P")),
    file("webp", pillow("WEBP")),
    file("webp_lossless", pillow("WEBP", lossless=True)),
    file("avif", pillow("AVIF")),
    file("bmp", pillow("BMP")),
    file("on_its_side", made.turned(6), size=(48, 64)),
    file("of_one_pixel", pillow("PNG", size=(1, 1)), size=(1, 1)),
    file("very_thin", pillow("PNG", size=(5_000, 1)), size=(5_000, 1)),
    file("gif_of_2000_frames", made.animated("GIF", 2_000)),
    file("webp_of_2000_frames", made.animated("WEBP", 2_000, (16, 16)), size=(16, 16)),
    file("png_of_64_megapixels", bombs.png_large(), size=(8_000, 8_000)),
    case("type_lies", ok(jpeg(), kind="text/html; charset=x")),
    case("type_missing", ok(jpeg()).replace(b"Content-Type: image/jpeg\r\n", b"")),
    case("name_lies", ok(pillow("PNG")), url="{here}/cgi.exe?file=.html"),
]

PAGE = b"<!doctype html><html><body><h1>404 Not Found</h1></body></html>"
STRANGERS = [
    file("page", PAGE, "not_a_picture"),
    file("page_with_mark", b"\xef\xbb\xbf\n " + PAGE, "not_a_picture"),
    file("page_with_svg", PAGE.replace(b"<h1>", b"<svg></svg><h1>"), "not_a_picture"),
    file("empty", b"", "not_a_picture"),
    file("one_byte", b"\xff", "not_a_picture"),
    file("text", b"nothing to see here", "not_a_picture"),
    file("json", b'{"error": "gone"}', "not_a_picture"),
    file("pdf", b"%PDF-1.7\n1 0 obj\n" + jpeg(), "not_a_picture"),
    file("zip", b"PK\3\4" + bytes(60), "not_a_picture"),
    file("program", b"\x7fELF\2\1\1" + bytes(200), "not_a_picture"),
    file("video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(99), "not_a_picture"),
    file("svgz", gzip.compress(svg()), "not_a_picture"),
    file("heic", made.heic(), "unsupported"),
    file("jpeg_xl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(90), "unsupported"),
    file("photoshop", b"8BPS\0\1" + bytes(90), "unsupported"),
]

POLYGLOTS = [
    file("gif_and_jar", pillow("GIF", "P") + b"PK\3\4" + bytes(200)),
    file("jpeg_and_zip", jpeg() + b"PK\3\4" + bytes(200)),
    file("png_and_php", pillow("PNG") + b"<?php system($_GET[0]); ?>"),
    file("jpeg_with_page_inside", jpeg(comment=b"<html><script>alert(1)</script>")),
    file("page_and_jpeg", b"<html><!--" + jpeg(), "not_a_picture"),
    file("gif_and_script", b"GIF89a/*\x30\0" + b"*" * 40 + b"*/=1;alert(1)", "broken_picture"),
    file("picture_in_picture", jpeg() + pillow("JPEG", size=(32, 32))),
]


def cut(name: str, whole: bytes, keep: float = 0.5) -> Case:
    """Return a case of a file of which the end is missing, and no length tells."""
    return file(f"cut_{name}", whole[: int(len(whole) * keep)], "broken_picture")


DAMAGED = [
    cut("jpeg", jpeg(quality=95)),
    cut("jpeg_progressive", jpeg(quality=95, progressive=True)),
    cut("png", pillow("PNG")),
    cut("gif", pillow("GIF", "P")),
    cut("webp", pillow("WEBP")),
    cut("avif", pillow("AVIF"), 0.8),
    cut("bmp", pillow("BMP")),
    cut("jpeg_in_header", jpeg(), 0.2),
    file("magic_of_jpeg", b"\xff\xd8\xff\xe0 this is no picture", "broken_picture"),
    file("magic_of_png", b"\x89PNG\r\n\x1a\n", "broken_picture"),
    file("magic_of_gif", b"GIF89a", "broken_picture"),
    file("magic_of_webp", b"RIFF\xff\xff\xff\xffWEBP", "broken_picture"),
    file("magic_of_avif", b"\0\0\0\x1cftypavif" + bytes(16), "broken_picture"),
    file("png_of_no_width", made.png(0, 48, 8, b""), "broken_picture"),
    file("png_without_data", made.png(64, 48, 8, b""), "broken_picture"),
    file("exif_in_a_circle", made.exif_loop()),
    file("exif_of_a_crowd", made.exif_crowd()),
    file("profile_of_junk", jpeg(icc_profile=b"junk" * 99)),
]

BOMBS = [
    file("bomb_png", bombs.png_bomb(), "too_many_pixels"),
    file("bomb_png_overfull", bombs.png_overfull()),
    file("bomb_png_profile", bombs.png_profile_bomb(), "broken_picture"),
    file("bomb_png_text", bombs.png_text_bomb(), "broken_picture"),
    file("bomb_jpeg_header", bombs.jpeg_header_bomb(), "too_many_pixels"),
    file("bomb_jpeg_scans", bombs.jpeg_scan_bomb(), "unsupported"),
    file("bomb_gif", bombs.gif_bomb(), "too_many_pixels"),
    file("bomb_gif_frame", bombs.gif_frame_bomb(), "too_many_pixels"),
    file("bomb_webp", bombs.webp_bomb(), "too_many_pixels"),
    file("bomb_webp_frame", bombs.webp_frame_bomb(), "broken_picture"),
    file("bomb_avif", bombs.avif_bomb(), "too_many_pixels"),
    file("bomb_tiff", bombs.tiff_bomb(), "too_many_pixels"),
    file("bomb_bmp", bombs.bmp_bomb(), "too_many_pixels"),
]


@cache
def local_picture() -> str:
    """Return the path of a red picture on this machine, which no document may show."""
    file = folder() / "secret.png"
    Image.new("RGB", (64, 48), (255, 0, 0)).save(file)
    return str(file)


def drawn(name: str, body: str, failure: str | None = None, head: str = "") -> Case:
    """Return a case of an SVG document that paints all of itself green, and then ``body``."""
    green = '<rect width="64" height="48" fill="#0a0"/>'
    colour = None if failure else GREEN
    return case(f"svg_{name}", ok(svg(green + body, head)), failure, colour=colour)


def shows(link: str) -> str:
    """Return an SVG image element over all of the document."""
    return f'<image xlink:href="{link}" href="{link}" width="64" height="48"/>'


INSIDE = base64.b64encode(bombs.png_bomb()).decode()
ENTITY = f'<!DOCTYPE svg [<!ENTITY e SYSTEM "file://{local_picture()}">]>'
CSS = "<style>@import url({here}/canary.css); rect { fill: #0a0 }</style>"
ONLOAD = "document.documentElement.innerHTML = ''"
SVGS = [
    drawn("sound", ""),
    drawn("with_declaration", "", head='<?xml version="1.0"?><!-- drawn by hand -->'),
    drawn("with_script", f"<script>{ONLOAD}</script>"),
    drawn("with_handler", f'<set onbegin="{ONLOAD}"/><g onload="{ONLOAD}"/>'),
    drawn("loads_picture", shows("{here}/canary.png")),
    drawn("loads_file", shows(local_picture())),
    drawn("loads_file_link", shows(f"file://{local_picture()}")),
    drawn("loads_style", CSS),
    drawn("loads_use", '<use xlink:href="{here}/canary.svg#a"/>'),
    drawn("loads_page", '<foreignObject><iframe src="{here}/canary"/></foreignObject>'),
    drawn("with_file_as_entity", "<text>&e;</text>", head=ENTITY),
    drawn("with_bomb_inside", shows(f"data:image/png;base64,{INSIDE}"), "too_many_pixels"),
    drawn("uses_itself", '<g id="a"><use xlink:href="#a"/></g>'),
    case("svg_blurs", ok(bombs.svg_blur()), None),
    case("svg_of_many_uses", ok(bombs.svg_uses()), "broken_picture"),
    case("svg_laughs", ok(bombs.svg_laughs()), "broken_picture"),
    case("svg_very_deep", ok(svg("<g>" * 50_000)), "unsupported"),
    case("svg_cut", ok(svg()[:-20]), "broken_picture"),
    case("svg_of_nothing", ok(b"<svg/>"), size=(64, 64)),
]

CASES = [*SOUND, *STRANGERS, *POLYGLOTS, *DAMAGED, *BOMBS, *SVGS]
