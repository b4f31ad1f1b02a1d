"""The download stage: both engines, with every pair accounted for."""

import hashlib
import io
import json
from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from breadth.curate.fetch.img2dataset_engine import failure_of
from breadth.curate.stages.download import FACTS, Download
from breadth.loaders.errors import RecipeError

from .conftest import Site, encode

SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20">'
    b'<rect width="20" height="20" fill="red"/></svg>'
)
ENGINES = ("native", "img2dataset")


def links(site: Site, paths: Sequence[str]) -> list[str]:
    return [path if "://" in path or not path else site.link(path) for path in paths]


def fetched(site: Site, *paths: str, **options: object) -> list[dict[str, object]]:
    if options.get("engine", "native") == "native":
        options = {"allow_private": True, "per_domain_per_s": 0, "deadline_s": 5} | options
    stage = Download(**options)  # type: ignore[arg-type]
    table = pa.table(stage.annotate(pa.table({"url": links(site, paths)})))
    verdicts = stage.keep(table).to_pylist()
    return [row | {"kept": kept} for row, kept in zip(table.to_pylist(), verdicts, strict=True)]


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_come_back_in_the_order_they_went_in(site: Site, engine: str) -> None:
    """Answers come in any order; the part's order is kept all the same, repeated links too."""
    for number in range(30):
        site.files[f"{number}.jpg"] = encode(np.full((16, 20 + number, 3), 90, np.uint8))
    order = [*range(30), 3, 3]
    rows = fetched(site, *(f"{n}.jpg" for n in order), engine=engine)
    assert [row["original_width"] for row in rows] == [20 + n for n in order]
    assert all(row["kept"] and row["status"] == "success" for row in rows)
    assert site.asked["3.jpg"] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_each_failure_has_a_status_a_kind_and_a_reason(site: Site, engine: str) -> None:
    """404, a page, a broken picture, a link that is none and an empty one keep their row."""
    site.files["broken.jpg"] = encode(np.full((64, 64, 3), 90, np.uint8))[:300]
    rows = fetched(site, "gone.jpg", "broken.jpg", "file:///etc/hostname", "", engine=engine)
    assert [row["status"] for row in rows] == [
        "failed_to_download",
        "failed_to_resize" if engine == "native" else rows[1]["status"],  # it pads what is cut off
        "failed_to_download",
        "failed_to_download",
    ]
    dropped = pa.table({"failure": [rows[n]["failure"] for n in (0, 2, 3)]})
    reasons = Download().reason(dropped).to_pylist()
    assert reasons == ["not_found", "bad_url", "bad_url"]
    assert not any(rows[n]["kept"] or rows[n]["image"] for n in (0, 2, 3))
    assert [row["retryable"] for row in rows] == [False] * 4


def test_both_engines_give_the_same_columns_and_exact_pixels(
    site: Site, drawn: list[tuple[bytes, str]]
) -> None:
    """Every column of img2dataset has its value here too, and with resize_quality = "exact" the
    stored pictures are equal byte for byte."""
    for number, (body, _) in enumerate(drawn[:8]):
        site.files[f"{number}.jpg"] = body
    paths = [f"{n}.jpg" for n in range(8)]
    border = {"resize_mode": "border", "image_size": 100}
    ours = fetched(site, *paths, resize_quality="exact", **border)
    theirs = fetched(site, *paths, engine="img2dataset", **border)
    assert all(row["status"] == "success" for row in ours)
    for mine, other in zip(ours, theirs, strict=True):
        assert {name: mine[name] for name in FACTS} == {name: other[name] for name in FACTS}
        pixels = [np.asarray(Image.open(io.BytesIO(row["image"]))) for row in (mine, other)]  # type: ignore[arg-type]
        assert np.array_equal(*pixels)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_shorter_side_is_resized_and_the_original_size_kept(site: Site, engine: str) -> None:
    """keep_ratio at 64 px turns 200 x 400 into 64 x 128 and remembers 200 x 400."""
    site.files["a.jpg"] = encode(np.full((200, 400, 3), 120, np.uint8))
    [row] = fetched(site, "a.jpg", image_size=64, engine=engine)
    names = ("width", "height", "original_width", "original_height")
    assert [row[name] for name in names] == [128, 64, 400, 200]
    assert Image.open(io.BytesIO(row["image"])).size == (128, 64)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
def test_svg_is_rendered_on_white(site: Site, engine: str) -> None:
    """An SVG document becomes a picture: its left half red, its right half white."""
    site.files["a.svg"] = SVG
    [row] = fetched(site, "a.svg", svg_side_px=80, engine=engine)
    pixels = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)  # type: ignore[arg-type]
    assert pixels.shape == (40, 80, 3)
    assert pixels[20, 20].tolist() == pytest.approx([0, 0, 254], abs=6)
    assert pixels[20, 60].tolist() == pytest.approx([255, 255, 255], abs=6)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_16_bit_png_keeps_its_greys(site: Site, engine: str) -> None:
    """img2dataset by itself clips 16 bits to white; here 0, half and full stay what they are."""
    greys = np.repeat(np.array([[0, 32768, 65535]], np.uint16), 40, axis=0).repeat(20, axis=1)
    site.files["deep.png"] = cv2.imencode(".png", greys)[1].tobytes()
    [row] = fetched(site, "deep.png", encode_format="png", encode_quality=3, engine=engine)
    pixels = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_GRAYSCALE)  # type: ignore[arg-type]
    assert pixels[20, [10, 30, 50]].tolist() == [0, 128, 255]


def test_hashes_are_of_the_bytes_as_downloaded_and_a_wrong_one_fails_its_pair(site: Site) -> None:
    """Of two pairs with one link, the one whose hash is another's loses its picture alone."""
    body = encode(np.full((40, 40, 3), 7, np.uint8))
    site.files["a.jpg"] = body
    right = hashlib.md5(body).hexdigest()
    stage = Download(allow_private=True, verify_hash=("pool_md5", "md5"), compute_hash="sha512")
    pairs = pa.table({"url": [site.link("a.jpg")] * 3, "pool_md5": [right.upper(), "0" * 32, None]})
    table = pa.table(stage.annotate(pairs))
    assert table["failure"].to_pylist() == [None, "hash_mismatch", None]
    assert [picture is None for picture in table["image"].to_pylist()] == [False, True, False]
    assert set(table["sha256"].to_pylist()) == {hashlib.sha256(body).hexdigest()}
    assert table["sha512"][0].as_py() == hashlib.sha512(body).hexdigest()
    assert table["width"].to_pylist() == [40, None, 40]


def test_who_forbids_it_is_in_the_row(site: Site) -> None:
    """robots.txt is read once, and the rule, its place and the time stay as evidence."""
    site.files["robots.txt"] = b"User-agent: *\nDisallow: /private/\n"
    site.files["private/a.jpg"] = site.files["b.jpg"] = encode(np.zeros((9, 9, 3), np.uint8))
    paths = ("private/a.jpg", "b.jpg", "private/c.jpg")
    rows = fetched(site, *paths)
    assert [row["failure"] for row in rows] == ["robots", None, "robots"]
    evidence = json.loads(str(rows[0]["opt_out"]))
    assert (evidence["rule"], evidence["where"]) == ("Disallow: /private/", site.link("robots.txt"))
    assert evidence["time"].startswith("20")
    assert site.robots == 1
    assert site.asked["private/a.jpg"] == 0
    free = fetched(site, *paths, respect_robots=False)
    assert [row["failure"] for row in free] == [None, None, "not_found"]


def test_this_machine_is_private_unless_the_recipe_says_otherwise(site: Site) -> None:
    """Without allow_private a link to loopback is refused before anything is asked of it."""
    site.files["a.jpg"] = encode(np.zeros((9, 9, 3), np.uint8))
    [row] = fetched(site, "a.jpg", allow_private=False)
    assert (row["failure"], row["kept"]) == ("private_address", False)
    assert not site.asked


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "wget"}, "engine must be one of native, img2dataset"),
        ({"engine": "img2dataset", "allow_private": True}, "img2dataset has no allow_private"),
        ({"encode_format": "png"}, "encode_quality must be a whole number from 0 to 9"),
        ({"verify_hash": ("md5",)}, "verify_hash must name a column"),
        ({"user_agent_token": "two words"}, "user_agent_token must be a word"),
        ({"contact": "a\nb"}, "contact must be plain ASCII on one line"),
        ({"contact": "Jürgen"}, "contact must be plain ASCII on one line"),
        ({"downscale_interpolation": "cubic"}, "counts only with resize_quality"),
        ({"connections": 2000}, "connections must be a whole number from 1 to 512"),
        ({"deadline_s": 0}, "deadline_s must be a number of at least 0.1"),
        ({"respect_robots": 1}, "respect_robots must be true or false"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict[str, object], words: str) -> None:
    """The line names the option and what it may be."""
    with pytest.raises(RecipeError, match=words):
        Download(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("HTTP Error 404: Not Found", "not_found"),
        ("HTTP Error 503: Service Unavailable", "server_error"),
        ("HTTP Error 418: I'm a teapot", "http_error"),
        ("<urlopen error [Errno -2] Name or service not known>", "dns"),
        ("<urlopen error [Errno 111] Connection refused>", "connect"),
        ("timed out", "timeout"),
        ("Use of image disallowed by X-Robots-Tag directive", "opt_out"),
        ("OpenCV(4.9) error: (-215) !buf.empty()", "broken_picture"),
    ],
)
def test_img2datasets_messages_have_a_kind(message: str, kind: str) -> None:
    """So --retry-failed tries again what can succeed, whoever fetched it."""
    assert failure_of(message) == kind


def test_how_it_is_fetched_may_change_without_fetching_again() -> None:
    """Who asks, how fast and by which way is no part of what is measured; what is kept is."""
    measured = Download().measuring()
    assert Download(contact="https://example.org", connections=8, retries=3).measuring() == measured
    assert Download(allow_private=True).measuring() != measured
