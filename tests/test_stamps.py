"""Stamps are fetched without root, read with their languages, and planted with defects."""

import os
import stat
from collections import Counter

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from breadth.loaders.errors import Refused
from breadth.scripts.demo.candidates import COPIES, REPEATED_CAPTION
from breadth.scripts.demo.planted_stamps import DEFECTS, plant_stamps, write_heldout_stamps
from breadth.scripts.demo.servers import loopback
from breadth.scripts.demo.stamps import PACKAGE, fetch_stamps, read_stamps, split_stamps

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90"/>'


def _program(folder, name, script):
    """A stand-in for a system program: what it does to the disk is all that matters here."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder of programs that comes before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_without_apt_the_refusal_is_one_line(tmp_path, monkeypatch):
    """It names what is missing and the source that needs nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"apt-get.*--source world") as refused:
        fetch_stamps(tmp_path / "cache")
    assert "\n" not in str(refused.value)


def test_a_failing_download_is_refused_with_its_reason(tmp_path, programs):
    """Apt's own reason and a remedy are in the line, and nothing is left in the cache."""
    _program(programs, "apt-get", 'echo "W: noise" >&2; echo "E: No such package" >&2; exit 100')
    _program(programs, "dpkg", "exit 1")
    with pytest.raises(Refused, match=r"E: No such package.*check the network") as refused:
        fetch_stamps(tmp_path / "cache")
    assert "\n" not in str(refused.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_package_is_fetched_once(tmp_path, programs):
    """A second call finds the unpacked stamps and runs nothing."""
    _program(programs, "apt-get", f"echo run >> {tmp_path}/runs; touch {PACKAGE}_1_all.deb")
    _program(programs, "dpkg", 'mkdir -p "$3/usr/share/tuxpaint/stamps"')
    found = fetch_stamps(tmp_path / "cache")
    assert found.is_dir()
    assert fetch_stamps(tmp_path / "cache") == found
    assert (tmp_path / "runs").read_text() == "run\nrun\n"  # update, then download
    assert [f.name for f in (tmp_path / "cache").iterdir()] == [PACKAGE]


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    """A hundred stamps: every fifth an SVG alone, every seventh both, one without a picture."""
    folder = tmp_path_factory.mktemp("stamps")
    rng = np.random.default_rng(0)
    for i in range(100):
        (folder / f"{i:03d}.txt").write_text(
            f"A picture of number {i}.\nfr.utf8=Une image du numéro {i}.\nxx.utf8=Bla bla\n"
        )
        if i % 5 == 0 or i % 7 == 0:
            (folder / f"{i:03d}.svg").write_text(SVG)
        if i % 5:
            drawn = rng.integers(0, 255, (90 + i, 100, 4), np.uint8)
            cv2.imwrite(str(folder / f"{i:03d}.png"), drawn)
    (folder / "nothing.txt").write_text("A picture that is not there.\n")
    return read_stamps(folder)


def test_stamps_are_read_with_their_languages(stamps):
    """A PNG comes before an SVG; only known languages count; no stamp is without a picture."""
    assert len(stamps) == 100
    assert [s.file.suffix for s in stamps[:8]] == [".svg", *[".png"] * 4, ".svg", ".png", ".png"]
    assert stamps[3].caption == "A picture of number 3."
    assert stamps[3].foreign == {"fr": "Une image du numéro 3."}


def test_an_empty_folder_is_refused(tmp_path):
    """The remedy is named."""
    with pytest.raises(Refused, match="delete the cache"):
        read_stamps(tmp_path)


def test_held_out_stamps_are_not_in_the_pool(stamps, tmp_path):
    """The split is disjoint and whole, equal for an equal seed, and can be written as shards."""
    pool, held = split_stamps(stamps, 1)
    assert len(held) == 10 and not {s.file for s in pool} & {s.file for s in held}
    assert {s.file for s in pool + held} == {s.file for s in stamps}
    assert split_stamps(stamps, 1) == (pool, held) != split_stamps(stamps, 2)
    assert write_heldout_stamps(held, tmp_path).pairs == 10
    assert write_heldout_stamps(held, tmp_path).pairs == 10


def test_planted_stamps_are_what_the_truth_says(stamps, tmp_path):
    """Every stamp is one row; copies, captions and links are as their kind says."""
    planted = plant_stamps(stamps, 0, tmp_path, loopback(3))
    rows = pq.read_table(planted.truth).to_pylist()
    kinds = Counter(row["kind"] for row in rows)
    for kind in ("wrong_caption", "foreign_caption", "http_404", *COPIES):
        assert kinds[kind] == round(getattr(DEFECTS, kind) * 100)
    by_url = {row["url"]: row for row in rows if row["kind"] != "repeated_candidate"}
    assert len(by_url) + kinds["repeated_candidate"] == len(rows)

    def read(url):
        address, name = url.removeprefix("http://").split(f":{planted.port}/")
        return (planted.pictures / address / name).read_bytes()

    for row in rows:
        stamp = stamps[row["scene"]]
        kind = row["kind"]
        if kind in ("clean", "wrong_caption"):
            assert (row["caption"] == stamp.caption) == (kind == "clean")
            assert read(row["url"]) == stamp.file.read_bytes()
        elif kind == "foreign_caption":
            assert row["caption"] == stamp.foreign["fr"]
        elif kind == "repeated_caption":
            assert row["caption"] == REPEATED_CAPTION
        elif kind in COPIES:
            same = read(row["url"]) == read(row["partner"])
            assert same == (kind == "exact_duplicate")
            assert row["caption"] == by_url[row["partner"]]["caption"]
        elif kind == "tiny":
            assert cv2.imdecode(np.frombuffer(read(row["url"]), np.uint8), 1).shape[0] < 64
    assert plant_stamps(stamps, 0, tmp_path, loopback(3)) == planted
