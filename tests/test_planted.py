"""A planted pool holds the defects its truth names, and the checks find out what a build missed."""

import io
import json
from collections import Counter

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from breadth.curate.stages.caption_language import CaptionLanguage
from breadth.loaders.errors import Failed, OutputError, Refused
from breadth.loaders.manifest import Manifest, Shard
from breadth.loaders.scene_drawing import COLOURS, SHAPES
from breadth.loaders.world import World, caption, scene
from breadth.scripts.demo import check
from breadth.scripts.demo.candidates import COPIES, Defects
from breadth.scripts.demo.foreign import LANGUAGES, foreign_caption
from breadth.scripts.demo.heldout import write_heldout
from breadth.scripts.demo.planted import counts, plant
from breadth.scripts.demo.servers import loopback, serve

WORLD, PAIRS = World(seed=6), 400
DEFECTS = Defects(timeout=0.005, broken=0.02, repeated_caption=0.05)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A small pool with every kind of defect."""
    folder = tmp_path_factory.mktemp("planted")
    return plant(WORLD, PAIRS, 1, folder, loopback(3), defects=DEFECTS)


def _truth(planted):
    return pq.read_table(planted.truth).to_pylist()


def _file(planted, url):
    """The file behind a link of a host that behaves well."""
    address, name = url.removeprefix("http://").split(f":{planted.port}/")
    return planted.pictures / address / name


def test_truth_and_pool_have_the_same_rows_and_the_pool_tells_no_kind(planted):
    """The pool is the truth without its truth."""
    pool = pq.read_table(planted.pool)
    assert pool.column_names == ["url", "caption"]
    assert pool.equals(pq.read_table(planted.truth).select(["url", "caption"]))


def test_there_are_as_many_of_each_kind_as_asked_for(planted):
    """Counts by kind are the fractions of the candidates, rounded."""
    found = Counter(row["kind"] for row in _truth(planted))
    assert found == counts(PAIRS, DEFECTS)
    assert sum(found.values()) == PAIRS and found["wrong_caption"] == 40


def test_too_many_defects_are_refused():
    """Copies need clean originals."""
    with pytest.raises(Refused, match="too few"):
        counts(100, Defects(wrong_caption=0.9))


def test_links_differ_except_for_repeated_candidates(planted):
    """Only a repeated candidate has the link of another row, with its caption."""
    rows = _truth(planted)
    own = {row["url"]: row for row in rows if row["kind"] != "repeated_candidate"}
    again = [row for row in rows if row["kind"] == "repeated_candidate"]
    assert len(own) + len(again) == len(rows)
    assert all(own[row["partner"]]["caption"] == row["caption"] for row in again)


def test_captions_are_right_wrong_or_foreign_as_the_truth_says(planted):
    """Clean captions are the scene's; wrong ones name another colour and shape."""
    languages = CaptionLanguage()
    for row in _truth(planted):
        shown = scene(WORLD, row["scene"])
        if row["kind"] in ("clean", "redirect", "tiny", *COPIES):
            assert row["caption"] == caption(shown)
        if row["kind"] == "wrong_caption":
            assert f" {shown.labels['colour_shape']}" not in row["caption"].split(",")[0]
    foreign = pa.table(
        {"caption": [r["caption"] for r in _truth(planted) if "foreign" in r["kind"]]}
    )
    assert "en" not in languages.annotate(foreign)["caption_language"].to_pylist()


def test_every_language_names_every_colour_and_shape():
    """No translation is missing, and all are told from English."""
    world = World(1, len(SHAPES), len(COLOURS))
    captions = [
        foreign_caption(scene(world, index), language)
        for language in LANGUAGES
        for index in range(150)
    ]
    found = CaptionLanguage().annotate(pa.table({"caption": captions}))["caption_language"]
    assert found.to_pylist() == [language for language in LANGUAGES for _ in range(150)]


def test_copies_are_what_their_kind_says(planted):
    """An exact copy has the original's bytes, a near one only its looks, and all are large."""
    seen = Counter()
    for row in _truth(planted):
        if row["kind"] not in COPIES:
            continue
        original, copy = _file(planted, row["partner"]), _file(planted, row["url"])
        same = original.read_bytes() == copy.read_bytes()
        assert same == (row["kind"] == "exact_duplicate")
        a, b = (cv2.imread(str(file)) for file in (original, copy))
        assert (a.shape != b.shape) == (row["kind"] == "near_duplicate_resized")
        assert min(a.shape[:2]) >= 200 and min(b.shape[:2]) >= 200
        a, b = (cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA).astype(int) for p in (a, b))
        assert np.abs(a - b).mean() < 5
        seen[row["kind"]] += 1
    assert set(seen) == set(COPIES)


def test_tiny_pictures_are_small_and_broken_ones_no_pictures(planted):
    """The size rule and the decoder must drop these, and only these."""
    for row in _truth(planted):
        if row["kind"] == "tiny":
            assert max(Image.open(_file(planted, row["url"])).size) < 200
        if row["kind"] == "broken":
            encoded = np.frombuffer(_file(planted, row["url"]).read_bytes(), np.uint8)
            assert not len(encoded) or cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) is None
        if row["kind"] == "clean":
            assert min(Image.open(_file(planted, row["url"])).size) >= 200


def test_served_links_answer_as_their_kind_says(planted):
    """Redirects arrive, placeholders are all one picture, missing files are 404s."""
    import urllib.error
    import urllib.request

    by_kind = {row["kind"]: row["url"] for row in _truth(planted)}
    placeholders = [row["url"] for row in _truth(planted) if row["kind"] == "placeholder"]
    with serve(planted.pictures, planted.addresses, planted.port):

        def get(url):
            return urllib.request.urlopen(url, timeout=5).read()

        for kind in ("clean", "redirect", "slow_ok"):
            assert min(Image.open(io.BytesIO(get(by_kind[kind]))).size) >= 200
        assert len({get(url) for url in placeholders}) == 1 < len(placeholders)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(by_kind["http_404"])
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(by_kind["timeout"], timeout=0.2)


def test_planting_again_draws_nothing_and_other_settings_are_refused(planted):
    """A finished pool is taken as is, with its port."""
    before = {f: f.stat().st_mtime_ns for f in planted.folder.rglob("*") if f.is_file()}
    again = plant(WORLD, PAIRS, 1, planted.folder, loopback(3), defects=DEFECTS)
    assert again == planted
    assert before == {f: f.stat().st_mtime_ns for f in planted.folder.rglob("*") if f.is_file()}
    with pytest.raises(OutputError, match="other settings"):
        plant(WORLD, PAIRS, 2, planted.folder, loopback(3), defects=DEFECTS)


def test_heldout_scenes_carry_their_labels_and_are_in_no_pool(tmp_path):
    """Columns hold the classes that labels.json lists; scenes lie beyond those of a pool."""
    write_heldout(WORLD, 30, 0, tmp_path)
    columns = pq.read_table(tmp_path / "00000.parquet").to_pylist()
    tasks = json.loads((tmp_path / "labels.json").read_text())["tasks"]
    assert set(tasks) == {"colour_shape", "shape", "colour"}
    for row in columns:
        assert all(row[task["column"]] in task["classes"] for task in tasks.values())
    pool = {caption(scene(WORLD, i)) for i in range(PAIRS)}
    assert sum(row["caption"] in pool for row in columns) < 10
    assert write_heldout(WORLD, 30, 0, tmp_path).pairs == 30


STAGES = ["pool", "download", "placeholder_images", "image_size", "caption_language"]
STAGES += ["exact_duplicates", "caption_repeats", "near_duplicates"]


def _perfect_ledger(planted, most=10):
    """What an ideal build would write: each planted defect dropped where it should be."""
    rows, seen = {}, Counter()
    for number, row in enumerate(_truth(planted)):
        kind, stage = row["kind"], check.DROPPED_BY.get(row["kind"])
        seen[kind] += 1
        spared = most if kind == "repeated_caption" else 0
        stage = None if seen[kind] <= spared else stage
        reason = {"http_404": "not_found", "timeout": "timeout"}.get(kind, "why")
        key = row["url"] + ("#again" if kind == "repeated_candidate" else "")
        rows[key] = {
            "uid": f"{number:032x}",
            "url": row["url"],
            "caption": row["caption"],
            "kept": stage is None,
            "dropped_by": stage,
            "reason": reason if stage else None,
            "witness": None,
        }
    for row in _truth(planted):
        if row["kind"] in COPIES:
            rows[row["url"]]["witness"] = rows[row["partner"]]["uid"]
    return list(rows.values())


def _write_build(folder, rows):
    """Write a ledger and a manifest that agrees with it."""
    (folder / "ledger").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "ledger" / "00000.parquet")
    entering, funnel = len(rows), []
    for stage in STAGES:
        dropped = Counter(r["reason"] for r in rows if r["dropped_by"] == stage)
        kept = entering - sum(dropped.values())
        funnel.append(
            {"stage": stage, "kind": "", "in": entering, "kept": kept, "dropped": dict(dropped)}
        )
        entering = kept
    Manifest(
        "demo",
        pool={"candidates": len(rows)},
        pairs=entering,
        funnel=tuple(funnel),
        shards=(Shard("00000.tar", entering, 0, ""),),
    ).write(folder)


def _all_checks(folder, planted):
    findings = check.Findings(folder, planted.truth)
    least = dict.fromkeys(check.DROPPED_BY, 1.0)
    return [
        *check.check_accounts(folder),
        *findings.recalls(least),
        *findings.precisions(dict.fromkeys(STAGES, 1.0)),
        *findings.stays(1.0),
        findings.witnesses(),
    ]


def test_an_ideal_build_passes_every_check(planted, tmp_path):
    """Recall, precision, accounts and witnesses are all 1."""
    _write_build(tmp_path, _perfect_ledger(planted))
    checks = _all_checks(tmp_path, planted)
    assert [c.name for c in checks if c.value != 1] == []
    assert {c.name for c in checks} >= {f"recall of {kind}" for kind in check.DROPPED_BY}
    check.require(checks)


def _keep_one(rows, stage):
    row = next(r for r in rows if r["dropped_by"] == stage)
    row.update(kept=True, dropped_by=None, reason=None, witness=None)


def _drop_clean(rows, stage):
    row = next(r for r in rows if r["kept"] and "slow" not in r["url"])
    row.update(kept=False, dropped_by=stage, reason="why")


def _lose_witness(rows, stage):
    row = next(r for r in rows if r["dropped_by"] == stage)
    row["witness"] = row["uid"]


def _wrong_reason(rows, stage):
    next(r for r in rows if r["reason"] == "not_found").update(reason="cannot decode")


@pytest.mark.parametrize(
    ("spoil", "stage", "failing"),
    [
        *[(_keep_one, stage, "recall") for stage in STAGES],
        *[(_drop_clean, stage, "precision") for stage in STAGES[1:]],
        (_lose_witness, "near_duplicates", "witness"),
        (_wrong_reason, "download", "recall of http_404"),
    ],
)
def test_one_mistake_in_a_build_fails_a_check(planted, tmp_path, spoil, stage, failing):
    """Each check can fail, and the error names it."""
    rows = _perfect_ledger(planted)
    spoil(rows, stage)
    _write_build(tmp_path, rows)
    with pytest.raises(Failed, match=failing):
        check.require(_all_checks(tmp_path, planted))


def test_accounts_that_do_not_add_up_are_found(planted, tmp_path):
    """A row missing from the ledger, and shards with a pair too few, fail their checks."""
    rows = _perfect_ledger(planted)
    _write_build(tmp_path, rows)
    pq.write_table(pa.Table.from_pylist(rows[:-1]), tmp_path / "ledger" / "00000.parquet")
    with pytest.raises(Failed, match="one ledger row per candidate"):
        check.require(check.check_accounts(tmp_path))


def test_auc_is_the_share_of_ordered_pairs():
    """It agrees with counting every pair, ties as halves."""
    rng = np.random.default_rng(0)
    high, low = rng.integers(2, 9, 40).tolist(), rng.integers(0, 7, 30).tolist()
    brute = np.mean([(h > x) + (h == x) / 2 for h in high for x in low])
    assert check.auc(high, low) == pytest.approx(brute)
    assert np.isnan(check.auc([], low))


def test_a_score_at_chance_fails_and_shape_must_reach_a_fifth():
    """Colour alone answers an eighth of the questions, so shape has its own floor."""

    def score(value):
        return {"value": value, "n": 1000, "standard_error": 0.005, "chance": 0.125}

    def scores(**zero_shot):
        return {"run": "r", "zero_shot": zero_shot, "probe": {}, "retrieval": {}}

    check.require(check.check_chance(scores(colour=score(0.15), shape=score(0.21))))
    with pytest.raises(Failed, match="zero-shot colour"):
        check.require(check.check_chance(scores(colour=score(0.13))))
    with pytest.raises(Failed, match="zero-shot shape"):
        check.require(check.check_chance(scores(shape=score(0.18))))
