"""The page of runs: it holds what was logged and measured, stands alone, and shows what it says."""

import base64
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from breadth.curate.shard_writer import write_folder
from breadth.loaders.folder import open_folder
from breadth.loaders.world import World
from breadth.scripts.cli import main
from breadth.scripts.runs import runs as verb
from breadth.scripts.study_draws import draw_pairs
from breadth.train.checkpoint import load_run
from breadth.train.evaluate.heat_maps import heat_maps
from breadth.train.evaluate.labels import Task, write_tasks
from breadth.train.evaluate.scores import evaluate
from breadth.train.generate import describe, reconstruct
from breadth.train.loop import train
from breadth.train.page.pictures import PAIRS, draw_shown, heat_png, pictures
from breadth.train.page.runs import MEANINGS, _rounded, write_runs_page
from breadth.train.page.score_table import score_rows
from breadth.train.recipe import load_recipe
from breadth.train.run_folder import read_metrics

from .page_tags import check_stands_alone
from .s3_server import Store, serve

WORLD = World(seed=5)
EVIL = '<script>alert("caption")</script> & <img src=x onerror=y>'
TASK = Task("shape", "shape", tuple(WORLD.classes("shape")), ("a {}",))
CLIP = replace(
    load_recipe("demo_clip"),
    image_px=16,
    batch_pairs=16,
    steps=8,
    log_steps=1,
    warmup_steps=0,
    checkpoint_steps=4,
)
ALL = replace(
    CLIP,
    name="all",
    terms={"InfoNCE": 1, "Pixels": [[0, 0.5], [1, 2]], "Caption": 1},
    architecture="coca",
    gradient_steps=2,
)
BERT = replace(CLIP, name="bert", terms={"Tokens": {"masking": "corrupted"}}, text_mask=0.15)


def _folder(path, start, stop, captions=()):
    pairs = draw_pairs(WORLD, ["shape"], 24, range(start, stop))
    for (columns, _, _), caption in zip(pairs, captions, strict=False):
        columns["caption"] = caption
    write_folder(path, pairs, name="scenes")
    write_tasks(path, [TASK])
    return path


def _stop_at(step):
    def stop(metrics):
        if metrics["step"] == step:
            raise KeyboardInterrupt

    return stop


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pairs, half of them with a hostile caption, and runs: clip, all, bert, two unfinished."""
    place = tmp_path_factory.mktemp("runs_page")
    _folder(place / "train", 0, 40)
    _folder(place / "held_out", 40, 80, [EVIL] * 20)
    for recipe in (CLIP, ALL, BERT):
        train(recipe, place / "train", place / recipe.name)
    for name, step in (("begun", 2), ("half", 6)):
        with pytest.raises(KeyboardInterrupt):
            train(CLIP, place / "train", place / name, progress=_stop_at(step))
    return place


@pytest.fixture(scope="module")
def written(place):
    """The page of clip, all and bert on held-out pairs, and its numbers."""
    runs = [place / name for name in ("demo_clip", "all", "bert")]
    content = write_runs_page(runs, place / "runs.html", place / "held_out")
    return (place / "runs.html").read_text(), content


def _section(page, name):
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def _affine(texts, along):
    """Return the function from a place to a value that the first and last tick tell."""
    (a, low), (b, high) = (
        (float(place), float(text.replace(",", ""))) for place, text in (texts[0], texts[-1])
    )
    assert a != b, along
    return lambda place: low + (place - a) * (high - low) / (b - a)


def _read_chart(figure):
    """Return a chart's lines by colour class, read back through its ticks, and a pixel's worth."""
    x = _affine(re.findall(r'<text class="x" x="([\d.]+)"[^>]*>([^<]+)<', figure), "x")
    y_ticks = re.findall(r'<text class="y" x="[\d.]+" y="([\d.]+)"[^>]*>([^<]+)<', figure)
    y = _affine(y_ticks, "y")
    lines = {}
    for style, path in re.findall(r'<g class="c(\d)"><path class="line"[^>]* d="M([^"]+)"', figure):
        places = [tuple(map(float, pair.split())) for pair in path.split("L")]
        lines[int(style)] = [(x(a), y(b)) for a, b in places]
    return lines, abs(y(1) - y(0))


def test_the_curves_are_the_numbers_of_the_log(place, written):
    """Every point of every drawn line, read through the ticks, is a line of metrics.jsonl."""
    figures = _section(written[0], "curves").split('<figure class="chart">')[1:]
    titles = {title: key for key, (title, _) in MEANINGS.items()}
    logs = [read_metrics(place / name) for name in ("demo_clip", "all", "bert")]
    drawn = set()
    for figure in figures:
        title = re.search(r"<h3>([^<]+)</h3>", figure)[1]
        key = titles.get(title, title.replace(" of ", "/").replace(" and ", "/"))
        lines, pixel = _read_chart(figure)
        for style, points in lines.items():
            wanted = [(row["step"], row[key]) for row in logs[style] if key in row]
            assert np.allclose(points, wanted, rtol=0, atol=[0.02, 0.02 * pixel]), key
            assert f"<b>{wanted[-1][1]:.4g}</b>" in figure
            drawn.add((style, key))
    every = {
        (i, key)
        for i, log in enumerate(logs)
        for row in log
        for key, value in row.items()  # fingerprints and the peak's origin are no curves
        if key != "step" and isinstance(value, int | float)
    }
    assert drawn == every and (1, "cosine/InfoNCE/Pixels") in every


def test_runs_differ_in_more_than_colour(written):
    """The legends give each run dashes and a mark that no other has, as the chart does."""
    loss = _section(written[0], "curves").split("<figure")[1]
    legend = re.findall(r'dasharray="([^"]+)" d="M1 6H33"/><path class="at" d="M17 6([^"]+)"', loss)
    assert len({dashes for dashes, _ in legend}) == len({mark for _, mark in legend}) == 3
    for style, (dashes, mark) in enumerate(legend):
        group = loss.split(f'<g class="c{style}">')[1].split("</g>")[0]
        assert f'dasharray="{dashes}"' in group and f'{mark}">' in group


def test_the_page_stands_alone(written):
    """Nothing is fetched and nothing runs; tags close, pictures and charts are named."""
    check_stands_alone(written[0])
    assert "http" not in written[0]


def test_hostile_captions_and_names_are_text(place, written, tmp_path):
    """Captions and folder names that are markup are shown as what they are."""
    assert "&lt;script&gt;alert(" in written[0]
    (place / "demo_clip").rename(place / "<b>clip")
    try:
        write_runs_page([place / "<b>clip"], tmp_path / "runs.html")
    finally:
        (place / "<b>clip").rename(place / "demo_clip")
    page = (tmp_path / "runs.html").read_text()
    check_stands_alone(page)
    assert "<b>clip" not in page and "&lt;b&gt;clip" in page


def test_equal_runs_give_equal_bytes(place, written, tmp_path):
    """Written again elsewhere, page and numbers have the same bytes, and nothing else is left."""
    runs = [place / name for name in ("demo_clip", "all", "bert")]
    write_runs_page(runs, tmp_path / "again.html", place / "held_out")
    for suffix in ("html", "json"):
        again = (tmp_path / f"again.{suffix}").read_bytes()
        assert again == (place / f"runs.{suffix}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"again.html", "again.json"}
    assert json.loads((tmp_path / "again.json").read_text()) == written[1]


def test_every_score_stands_in_the_table(place, written):
    """The table has every score of evaluate with its error and chance, and bert's column none."""
    table = _section(written[0], "scores")
    rows = {
        name: re.findall(r"<td[^>]*>([^<]*)</td>", cells)
        for name, cells in re.findall(r'<th scope="row">([^<]+)</th>(.*)</tr>', table)
    }
    for column, name in enumerate(("demo_clip", "all")):
        result = evaluate(place / name, place / "held_out")
        shape, best = result["zero_shot"]["shape"], result["retrieval"]["picture_to_caption"]["R@5"]
        for row, score in (
            (rows["zero shot shape\u00a0%"], shape),
            (rows["retrieval picture to caption R@5\u00a0%"], best),
        ):
            wanted = f"{100 * score['value']:.1f} ± {100 * score['standard_error']:.1f}"
            assert row[column] == wanted and row[2] == "\u2013"
            assert row[3] == f"{100 * score['chance']:.1f}" and row[5] == f"{score['n']}"
    assert "<b>bert</b>: it was trained on captions alone and sees no pictures" in table


def test_what_stands_between_two_shares_is_in_percent_too():
    """A change's difference is in the unit of the shares before and after; a loss is none."""
    half, quarter = ({"value": v, "standard_error": 0.1, "n": 9} for v in (0.5, 0.25))
    change = {"before": {**half, "chance": 0.1}, "difference": quarter}
    rows = score_rows([{"robustness": {"changes": {"main": change}}, "caption_loss": half}])
    assert [(row.name, row.cells[0]) for row in rows] == [
        ("robustness changes main before\u00a0%", "50.0 ± 10.0"),
        ("robustness changes main difference\u00a0%", "25.0 ± 10.0"),
        ("caption loss, nats a token", "0.500 ± 0.100"),
    ]


def test_a_score_without_a_number_has_no_cell():
    """A score of no items, which is null in the numbers, is a dash as one that a run lacks."""
    none, some = ({"probe": {"value": v, "standard_error": v, "n": 9}} for v in (None, 0.5))
    (row,) = score_rows([none, some])
    assert row.cells == [None, "0.500 ± 0.500"]
    assert _rounded({"value": [float("nan"), 1 / 3]}) == {"value": [None, 0.333333]}


def _embedded(section):
    codes = re.findall(r'src="data:image/png;base64,([^"]+)"', section)
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        for code in codes
    ]


def test_reconstructions_are_those_of_the_run(place, written):
    """Original, hidden and filled-in pictures have the run's pixels, beside their losses."""
    run, shown = load_run(place / "all"), draw_shown(open_folder(place / "held_out"))
    made = reconstruct(run, pictures(shown, 16), 0)
    section = _section(written[0], "filled-in")
    found = np.stack(_embedded(section)).reshape(PAIRS, 3, 16, 16, 3).transpose(1, 0, 4, 2, 3)
    for there, wanted in zip(found, (made.original, made.masked, made.predicted), strict=True):
        assert np.array_equal(there, wanted)
    losses = re.findall(r"loss (\S+) / flat (\S+) = <b>(\S+)</b>", section)
    wanted = np.stack([made.loss_n, made.flat_loss_n, made.loss_n / made.flat_loss_n], axis=1)
    assert np.allclose(np.array(losses, float), wanted, rtol=0.01, atol=0.005)


def test_captions_are_those_that_the_run_writes(place, written):
    """Beneath each picture and its caption stands what the run writes."""
    run, shown = load_run(place / "all"), draw_shown(open_folder(place / "held_out"))
    assert written[1]["runs"][1]["shown"]["written"] == describe(run, pictures(shown, 16))
    cards = _section(written[0], "written").split('<div class="given">')[1:]
    assert len(cards) == PAIRS == len({pair.uid for pair in shown})
    for card, pair in zip(cards, shown, strict=True):
        assert pair.caption[:20].replace("<", "&lt;").replace(">", "&gt;")[:12] in card


def test_heat_maps_are_those_of_the_caption(place, written):
    """Each run with a joint space has both maps; their ends are those of heat_maps."""
    run, shown = load_run(place / "demo_clip"), draw_shown(open_folder(place / "held_out"))
    section = _section(written[0], "heat")
    assert len(_embedded(section)) == PAIRS * (1 + 2 * 2)
    heat = heat_maps(run, pictures(shown, 16), [pair.caption for pair in shown], "cosine")
    ends = [one["cosine"] for one in written[1]["runs"][0]["shown"]["heat"]]
    assert np.allclose(ends, [[one.min(), one.max()] for one in heat], rtol=1e-5)


def test_heat_grows_brighter_and_its_top_is_framed():
    """On a black picture hotter tokens are brighter, and white stands around the hottest alone."""
    heat = np.arange(16, dtype=np.float32).reshape(4, 4)[::-1].copy()
    (drawn,) = _embedded(f'src="{heat_png(np.zeros((16, 16, 3), np.uint8), heat)}"')
    token = len(drawn) // 4
    middles = drawn[token // 2 :: token, token // 2 :: token].astype(int).sum(axis=2)
    assert np.array_equal(np.argsort(middles.ravel()), np.argsort(heat.ravel()))
    white = np.argwhere((drawn == 255).all(axis=2)) // token
    assert {tuple(place) for place in white.tolist()} == {(0, 3)}


def test_without_data_there_are_recipes_and_curves(place, tmp_path):
    """A page without pairs says what it leaves out; unfinished runs say how far they are."""
    runs = [place / name for name in ("bert", "begun", "half")]
    content = write_runs_page(runs, tmp_path / "runs.html")
    page = (tmp_path / "runs.html").read_text()
    check_stands_alone(page)
    assert "No pairs were given" in page and "<img" not in page
    assert "Not finished: 2 of 8 steps, and no checkpoint yet: curves only." in page
    assert "Not finished: 6 of 8 steps." in page
    assert [one["checkpoint"] for one in content["runs"]] == [8, None, 4]
    assert [len(one["curves"]["loss"]) for one in content["runs"]] == [8, 2, 6]


def test_an_unfinished_run_is_scored_as_of_its_checkpoint(place, tmp_path):
    """With pairs, a run in training has scores and says of which step; one without has none."""
    write_runs_page([place / "half", place / "begun"], tmp_path / "runs.html", place / "held_out")
    page = (tmp_path / "runs.html").read_text()
    assert "6 of 8 steps; scored as of step 4." in page
    assert "<b>begun</b>: it has no checkpoint, so it has no score." in page


def test_a_run_of_captions_alone_has_a_page(place, tmp_path):
    """A run that sees no pictures has curves, and every other section says why it is empty."""
    write_runs_page([place / "bert"], tmp_path / "runs.html", place / "held_out")
    page = (tmp_path / "runs.html").read_text()
    check_stands_alone(page)
    for words in ("No run has a score", "has the term Pixels", "writes captions", "has InfoNCE"):
        assert words in page
    assert "<img" not in page


def test_recipes_are_put_in_words(place, written):
    """Terms with weights, size, steps and repeats stand on the card; differences in a table."""
    section = _section(written[0], "recipes")
    assert "Pixels 0.5 at 0 % \u2192 2 at 100 %" in section
    assert "Tokens 1 (masking corrupted)" in section
    assert section.count("128: 3.2 times 40") == 3
    options = re.findall(r'<th scope="row"><code>(\w+)</code>', section)
    assert options == ["terms", "architecture", "text_mask", "gradient_steps"]


def test_pairs_may_be_far_away(place, written, tmp_path, monkeypatch):
    """Pairs behind a URL give the numbers that they give as files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    page = tmp_path / "runs.html"
    with serve(Store()) as store:
        store.put(place / "held_out", "bucket/held_out")
        url = f"{store.url}/bucket/held_out/"
        done = CliRunner().invoke(
            verb, [str(place / "demo_clip"), "--data", url, "--out", str(page)]
        )
    assert done.exit_code == 0, done.exception
    content = json.loads(page.with_suffix(".json").read_text())
    assert content == written[1] | {"runs": json.loads(json.dumps(written[1]["runs"][:1]))}


def test_bad_input_is_refused_in_one_line(place, tmp_path, capsys):
    """No run, the same run twice, no data, a page that is none: one line, nothing written."""
    clip, out = str(place / "demo_clip"), str(tmp_path / "runs.html")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_bytes((place / "bert/config.json").read_bytes())
    (tmp_path / "torn" / "metrics.jsonl").write_text('{"loss": 1}\n')
    for arguments, words in (
        ([str(tmp_path / "missing"), "--out", out], "is not a run"),
        ([clip, clip, "--out", out], "named twice"),
        ([clip, "--out", str(tmp_path)], "is a folder"),
        ([clip, "--out", str(tmp_path / "x.json")], "cannot end in .json"),
        ([clip, "--out", str(tmp_path / "no" / "x.html")], "no folder"),
        ([clip, "--data", str(tmp_path / "missing"), "--out", out], "missing"),
        ([str(tmp_path / "torn"), "--out", out], "a line has no step"),
        ([], "Missing argument"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["runs", *arguments])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and words in said and said.count("\n") == 1, said
    assert {path.name for path in tmp_path.iterdir()} == {"torn"}


def test_the_verb_says_where_the_page_is(place, tmp_path):
    """breadth runs writes the page and its numbers and prints the page's path."""
    page = tmp_path / "page.html"
    result = CliRunner().invoke(verb, [str(place / "demo_clip"), "--out", str(page)])
    assert (result.exit_code, result.output) == (0, f"{page}\n")
    assert page.is_file() and page.with_suffix(".json").is_file()
