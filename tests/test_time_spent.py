"""Where the time went: parts' timings add up, and name what limits a fetch."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from breadth.curate.report import report
from breadth.curate.time_spent import time_spent

from .test_report import Tags, make_build


def write_timings(out: Path, leg: str, part: str, **timings: Any) -> None:
    folder = out / "parts" / leg / part
    folder.mkdir(parents=True)
    (folder / "timings.json").write_text(json.dumps(timings))


@pytest.mark.parametrize(
    ("phases", "limit", "says"),
    [
        ({"polite": 50, "body": 400, "decode": 30}, "network", "for bodies to arrive, so more"),
        ({"polite": 500, "body": 400, "decode": 30}, "politeness", "only more domains"),
        ({"polite": 50, "body": 400, "decode": 90}, "processor", "for 90 % of the time"),
    ],
)
def test_the_limit_is_what_the_fetch_waits_for(
    tmp_path: Path, phases: dict[str, float], limit: str, says: str
) -> None:
    """Where the processor is at work most of the time it is the limit, else the longest wait."""
    write_timings(tmp_path, "f-1", "00000", pairs=10, seconds={"download": 100}, phases=phases)
    spent = time_spent(tmp_path)
    assert spent is not None
    assert spent["fetching"]["limit"] == limit
    assert says in spent["fetching"]["verdict"]


def test_timings_of_parts_and_supplements_add_up(tmp_path: Path) -> None:
    """Every committed folder counts once; a leg that fetches nothing adds only to the stages."""
    for part, seconds in (("00000", 1.0), ("00000+1", 2.0), ("00001", 4.0)):
        phases = {"dns": seconds, "decode": seconds / 10}
        timed = {"seconds": {"download": seconds}, "phases": phases}
        write_timings(tmp_path, "download-1", part, pairs=5, **timed)
        write_timings(tmp_path, "embed-1", part, pairs=5, seconds={"embed": 8.0, "score": 0.5})
    spent = time_spent(tmp_path)
    assert spent is not None and spent["parts"] == 6
    assert spent["stages"] == [
        {"stage": "embed", "seconds": 24.0},
        {"stage": "download", "seconds": 7.0},
        {"stage": "score", "seconds": 1.5},
    ]
    fetching = spent["fetching"]
    assert (fetching["pairs"], fetching["seconds"]) == (15, 7.0)
    assert fetching["waiting"] == {"dns": 7.0}
    assert fetching["work"]["decode"] == pytest.approx(0.7)
    assert fetching["busy"] == pytest.approx(0.1)


def test_the_page_shows_where_the_time_went(tmp_path: Path) -> None:
    """The verdict, each phase with its seconds and ms a pair, and each stage are on the page."""
    out = make_build(tmp_path / "build", 40)
    phases = {"first_byte": 30.0, "decode": 2.0}
    write_timings(out, "f-1", "00000", pairs=40, seconds={"download": 20.0}, phases=phases)
    content = report([out])
    page = (out / "report.html").read_text()
    assert Tags(page).open == []
    section = page.split('id="time1"')[1].split("</section>")[0]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))
    assert content["sets"][0]["time"]["fetching"]["verdict"] in text
    assert "first byte 30.0 750.00" in text
    assert "decode 2.0 50.00" in text
    assert "download 20.0 100.0 %" in text


def test_a_folder_without_timings_says_so(tmp_path: Path) -> None:
    """A set that no build here has measured has no figures of time, and a page that says so."""
    out = make_build(tmp_path / "build", 40)
    assert report([out])["sets"][0]["time"] is None
    assert "No part of this folder says how long it took" in (out / "report.html").read_text()
