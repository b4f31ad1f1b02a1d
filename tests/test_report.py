"""The report page and its numbers, from a small build written by hand."""

import io
import json
import re
import tarfile
from base64 import b64decode

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from breadth.curate.column_figures import column_histograms
from breadth.curate.figures import number
from breadth.curate.report import report
from breadth.curate.shard_writer import write_shard
from breadth.loaders.errors import Refused
from breadth.loaders.manifest import Manifest
from breadth.scripts.report import report as report_verb

from .page_tags import Tags, check_stands_alone

PARTS = 2
EVIL = '<script>alert("caption")</script> & <img src=x onerror=y>'
STAGES = ("download", "opt_out", "caption_language", "exact_duplicates", "near_duplicates")
SCHEMA = pa.schema(
    {
        "uid": pa.string(),
        "url": pa.string(),
        "caption": pa.string(),
        "original_width": pa.int32(),
        "score": pa.float32(),
        "pixel_hash": pa.int64(),
        "language": pa.string(),
        "kept": pa.bool_(),
        "dropped_by": pa.string(),
        "reason": pa.string(),
        "witness": pa.string(),
        "distance": pa.float32(),
    }
)


def jpeg(seed: int, red: bool = False) -> bytes:
    """Return a patchwork of its own for each seed, or a red square."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    picture = np.zeros_like(blocks) + np.array([0, 0, 255], np.uint8) if red else blocks
    return cv2.imencode(".jpg", cv2.resize(picture, (48, 48)))[1].tobytes()


def make_rows(n: int) -> list[dict]:
    """Every tenth row is dropped for each of six reasons, the other four are kept."""
    rows = []
    for i in range(n):
        row = dict.fromkeys(SCHEMA.names) | {
            "uid": f"{i:032x}",
            "url": f"http://127.0.0.2:9/{i}.jpg",
            "caption": f"caption number {i}",
            "original_width": 100 + i,
            "score": i / n,
            "pixel_hash": i,
            "language": "en",
            "kept": i % 10 < 4,
        }
        witness = {"witness": f"{i - i % 10:032x}", "distance": float(i % 7)}
        row |= {
            4: {"dropped_by": "download", "reason": "HTTP Error 404", "original_width": None},
            5: {"dropped_by": "opt_out", "reason": "noai", "caption": "SECRET CAPTION"},
            6: {"dropped_by": "download", "reason": "robots.txt", "caption": "SECRET CAPTION"},
            7: {"dropped_by": "caption_language", "language": "ar", "caption": "دائرة حمراء"},
            8: {"dropped_by": "exact_duplicates", "reason": "bytes"} | witness,
            9: {"dropped_by": "near_duplicates", "reason": "picture"} | witness,
        }.get(i % 10, {})
        rows.append(row)
    for row in rows[1::10]:
        row["caption"] = EVIL
    return rows


def make_funnel(rows: list[dict]) -> tuple[dict, ...]:
    """Count the rows stage by stage, as a build does."""
    left = len(rows)
    funnel = [{"stage": "pool", "kind": "pool", "in": left, "kept": left, "dropped": {}}]
    for stage in STAGES:
        reasons = [row["reason"] or stage for row in rows if row["dropped_by"] == stage]
        dropped = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
        entry = {"stage": stage, "kind": "filter", "in": left, "kept": left - len(reasons)}
        funnel.append(entry | {"dropped": dropped})
        left -= len(reasons)
    return tuple(funnel)


def write_thumbs(path, rows):
    """Write a thumbnail for every row that was downloaded; red for opted-out ones."""
    with tarfile.open(path, "w") as tar:
        for row in rows:
            if row["reason"] != "HTTP Error 404":
                body = jpeg(int(row["uid"], 16), red="SECRET" in row["caption"])
                member = tarfile.TarInfo(row["uid"] + ".jpg")
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))


def make_build(out, n=200):
    """Write a finished build of n candidates."""
    rows = make_rows(n)
    for folder in ("ledger", "thumbs", "shards"):
        (out / folder).mkdir(parents=True)
    for part in range(PARTS):
        table = pa.Table.from_pylist(rows[part::PARTS], SCHEMA)
        pq.write_table(table, out / "ledger" / f"{part:05d}.parquet")
        write_thumbs(out / "thumbs" / f"{part:05d}.tar", rows[part::PARTS])
    kept = [row for row in rows if row["kept"]]
    shard = write_shard(
        out / "shards" / "00000.tar",
        [
            (
                {name: row[name] for name in ("uid", "url", "caption", "score")},
                jpeg(int(row["uid"], 16)),
                "jpg",
            )
            for row in kept
        ],
    )
    Manifest(
        name="tiny",
        recipe='name = "tiny"\n',
        pool={"fingerprint": "00", "candidates": n},
        parts=PARTS,
        pairs=len(kept),
        funnel=make_funnel(rows),
        shards=(shard,),
    ).write(out)
    return out


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Return the folder of a build of 200 candidates."""
    return make_build(tmp_path_factory.mktemp("builds") / "tiny")


@pytest.fixture(scope="module")
def written(build):
    """Return the build's report: its numbers and its page."""
    content = report([build])
    return content, (build / "report.html").read_text()


def test_the_page_has_every_stage_and_number_of_the_funnel(build, written):
    """Every stage with its in, kept and reasons is on the page, under its own heading."""
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", written[1]))
    for stage in Manifest.read(build).funnel:
        assert re.search(rf"{stage['stage']} {stage['kept']} of {stage['in']} stay", text)
        for reason, count in stage["dropped"].items():
            assert reason == stage["stage"] or f"{count} {reason}" in text


def test_the_numbers_equal_the_manifest_and_the_ledger(build, written):
    """report.json holds the manifest's funnel, and the ledger's own count of it agrees."""
    content, manifest = written[0], Manifest.read(build)
    assert json.loads((build / "report.json").read_text()) == content
    figures = content["sets"][0]
    assert figures["funnel"] == [dict(stage) for stage in manifest.funnel]
    accounts = figures["accounts"]
    assert accounts["agree"] is True
    assert (
        accounts["ledger"]["rows"]
        == 200
        == accounts["ledger"]["kept"]
        + sum(sum(reasons.values()) for reasons in accounts["ledger"]["dropped"].values())
    )
    assert accounts["ledger"]["dropped"]["opt_out"] == {"noai": 20}


def test_a_ledger_that_differs_is_said_loudly(tmp_path):
    """A lost ledger part makes the accounts disagree, in the numbers and on the page."""
    out = make_build(tmp_path / "torn", 40)
    (out / "ledger" / "00001.parquet").unlink()
    assert report([out])["sets"][0]["accounts"]["agree"] is False
    assert "The ledger and the funnel differ" in (out / "report.html").read_text()


def test_opted_out_pairs_are_counted_and_never_shown(written):
    """No picture and no caption of an opted-out pair is on the page; its count is."""
    shown = {b64decode(code) for code in re.findall(r"base64,([^\"]+)", written[1])}
    assert jpeg(0, red=True) not in shown and len(shown) > 20
    assert "SECRET" not in written[1]
    assert written[1].count("Counted and never shown") == 2


def test_an_opt_out_holds_for_every_row_of_its_uid(tmp_path):
    """A row dropped for another reason shows no picture where its uid is also opted out."""
    out = make_build(tmp_path / "twice", 40)
    path = out / "ledger" / "00001.parquet"
    rows = pq.read_table(path).to_pylist()
    opted_out = next(row for row in rows if row["dropped_by"] == "opt_out")
    for row in rows:
        if row["dropped_by"] == "near_duplicates":
            row |= {"uid": opted_out["uid"], "witness": None}
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    report([out])
    page = (out / "report.html").read_text()
    assert "near_duplicates: picture" in page
    shown = {b64decode(code) for code in re.findall(r"base64,([^\"]+)", page)}
    assert shown and jpeg(0, red=True) not in shown


def test_duplicates_stand_beside_their_witness_most_distant_first(written):
    """Each duplicate is followed by the kept pair it is too like, and distances fall."""
    section = written[1].split('id="duplicates1"')[1].split("</section>")[0]
    for cells in section.split('<ul class="twins">')[1:]:
        distances = [float(d) for d in re.findall(r"</small>([\d.]+)</span>", cells)]
        assert distances == sorted(distances, reverse=True) and len(distances) == 12
    numbers = [int(i) for i in re.findall(r"caption number (\d+)", section)]
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    assert pairs and all(kept == out - out % 10 for out, kept in pairs)


def test_the_page_stands_alone_and_is_well_formed(written):
    """Nothing is fetched: no scripts or links out; tags close, pictures and charts are named."""
    check_stands_alone(written[1])


def test_captions_are_escaped_and_find_their_direction(written):
    """A caption is text, never markup, and right-to-left ones are set right to left."""
    assert EVIL not in written[1]
    assert "&lt;script&gt;alert(" in written[1]
    assert '<span class="caption" dir="auto">دائرة حمراء</span>' in written[1]


def test_equal_input_gives_equal_bytes(build, written, tmp_path):
    """Written again, elsewhere, the page and the numbers have the same bytes."""
    report([build], out=tmp_path / "again.html")
    for suffix in ("html", "json"):
        again = (tmp_path / f"again.{suffix}").read_bytes()
        assert again == (build / f"report.{suffix}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"again.html", "again.json"}


def test_several_sets_stand_beside_each_other(build, tmp_path):
    """Funnels share a table, and diversity is of equal n with n, kernel and embedder named."""
    other = make_build(tmp_path / "other", 100)
    content = report([build, other], out=tmp_path / "both.html")
    assert [one["name"] for one in content["sets"]] == ["tiny", "other"]
    figures = content["diversity"][0]["sets"]
    assert [figure["pairs"] for figure in figures] == [40, 40]
    page = (tmp_path / "both.html").read_text()
    assert Tags(page).open == []
    assert "n = 40, cosine kernel, random_features" in page
    assert re.search(r"download</th><td>160 <small>80.0 %</small></td><td>80 <small>", page)


def test_histograms_count_every_value_once(build, written):
    """Bins, outliers included, add up to the kept and dropped pairs that have a value."""
    columns = written[0]["sets"][0]["columns"]
    assert list(columns) == ["original_width", "score"]  # a hash is no measure
    width = columns["original_width"]
    assert (width["values"], width["missing"]) == (180, 20)
    assert sum(width["kept"]) == 80 and sum(width["dropped"]) == 100
    assert (width["min"], width["max"]) == (100, 299)
    table = pa.concat_tables(pq.read_table(p) for p in sorted((build / "ledger").iterdir()))
    score = columns["score"]
    expected, _ = np.histogram(
        np.clip(table["score"].to_numpy(), score["edges"][0], score["edges"][-1]), score["edges"]
    )
    both = np.add(score["kept"], score["dropped"])
    assert np.abs(both - expected).sum() <= 2  # the JSON's edges are rounded


def test_a_wide_column_gets_a_log_axis(tmp_path):
    """One wild value does not flatten a column that spans several powers of ten."""
    values = np.geomspace(1, 1e6, 400)
    pq.write_table(pa.table({"size": values, "kept": values > 10}), tmp_path / "0.parquet")
    edges = column_histograms([tmp_path / "0.parquet"])["size"]["edges"]
    steps = np.diff(np.log(edges))
    assert np.allclose(steps, steps[0])


def test_an_empty_result_is_still_reported(tmp_path):
    """A build that kept nothing has a page that says so, without diversity figures."""
    out = make_build(tmp_path / "empty", 20)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"pairs": 0, "shards": []}))
    for path in (out / "ledger").iterdir():
        table = pq.read_table(path)
        pq.write_table(table.filter(pa.array([not k for k in table["kept"].to_pylist()])), path)
    assert report([out])["diversity"][0]["sets"] == [None]
    assert "No pair was kept" in (out / "report.html").read_text()


def test_bad_input_is_refused_in_one_line(build, tmp_path):
    """A missing folder, an unfinished build, a repeated folder: one line, nothing written."""
    (tmp_path / "unfinished" / "parts").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    for folders, message in [
        ([tmp_path / "missing"], "no folder"),
        ([tmp_path / "unfinished"], "not finished: run the same build command again"),
        ([tmp_path / "bare"], "no manifest.json"),
        ([build, build], "named twice"),
        ([], "at least one"),
    ]:
        with pytest.raises(Refused, match=message) as refusal:
            report(folders, out=tmp_path / "page.html")
        assert "\n" not in str(refusal.value)
    with pytest.raises(Refused, match="no embedder"):
        report([build], out=tmp_path / "page.html", embedder=tmp_path / "missing")
    assert not (tmp_path / "page.html").exists()


def test_the_verb_writes_the_page_and_says_where(build, tmp_path):
    """breadth report prints the page's path; its help ends with an example."""
    page = tmp_path / "page.html"
    result = CliRunner().invoke(report_verb, [str(build), "--out", str(page)])
    assert result.exit_code == 0 and result.output.strip() == str(page) and page.is_file()
    assert "Example: breadth report" in CliRunner().invoke(report_verb, ["--help"]).output


def test_numbers_are_written_for_people():
    """Counts have separators, other numbers four digits, and nothing is none."""
    written = [number(value) for value in (1234567, 0.00012345, 12345.67, None, 3.0)]
    assert written == ["1,234,567", "0.0001234", "12,345.7", "none", "3"]
