"""The study: its statistics against simulation, its pairing, and that nothing is done twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import breadth.train.loop
from breadth.loaders.errors import OutputError, RecipeError, Refused
from breadth.scripts.study import run_study
from breadth.train.evaluate.score import Score
from breadth.train.recipe import TrainRecipe, load_recipe
from breadth.train.study.analysis import compare, unscored
from breadth.train.study.design import parse_study, read_study
from breadth.train.study.pairing import check_paired, initial_weights, training_recipe
from breadth.train.study.results import Results
from breadth.train.study.statistics import (
    draws_needed,
    equal_caption_share,
    paired_power,
    spread,
)
from breadth.train.study.tables import comparison_table, plan_text, setting, tables

TINY = """
name = "tiny"
objectives = ["clip", "maeclip"]
seeds = [0, 1]
pairs = 40
held_out_pairs = 60
picture_px = 16
tasks = ["shape"]
templates = ["a {}"]
metrics = ["zero_shot.shape", "retrieval.caption_to_picture.R@5"]
[worlds.wide]
concepts = 64
[training]
size = "nano"
image_px = 16
patch_px = 8
context_length = 32
vocabulary = 300
batch_pairs = 16
steps = 3
warmup_steps = 1
weight_decay = 0.1
log_steps = 1
checkpoint_steps = 3
lr = 1e-3
"""


FIGURES = {
    "embedder": "e",
    "pairs": 40,
    "vendi": 2.0,
    "caption_distinct_2": 0.5,
    "equal_captions": 0.1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny study of four runs, and the uids that each run's steps saw."""
    out = tmp_path_factory.mktemp("study")
    seen = []
    take_step = breadth.train.loop.take_step

    def watched(trainee, batch, *rest):
        seen.append((trainee.recipe.name, trainee.recipe.seed, tuple(batch.uids)))
        return take_step(trainee, batch, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breadth.train.loop, "take_step", watched)
        text = run_study(parse_study(TINY), out)
    return out, seen, text


# --- statistics


def test_the_interval_of_the_spread_covers_the_truth():
    """For three normal differences the interval holds the true deviation in 95 % of studies."""
    rng = np.random.default_rng(0)
    found = [spread(draw) for draw in rng.normal(scale=2.0, size=(4000, 3))]
    covered = np.mean([s.low <= 2.0 <= s.high for s in found])
    assert covered == pytest.approx(0.95, abs=0.012)
    assert found[0].high / found[0].sd == pytest.approx(6.285, abs=0.01)


def test_one_draw_has_no_spread():
    """A single difference says nothing of how differences vary."""
    assert spread([0.3]) is None


def test_draws_needed_is_the_fewest_with_that_power():
    """Simulated t-tests reach 80 % at the number found and not with one draw fewer."""
    n = draws_needed(sd=1.0, effect=0.9)
    rng = np.random.default_rng(1)
    for draws, reached in ((n, True), (n - 1, False)):
        t = stats.ttest_1samp(rng.normal(0.9, 1.0, size=(60_000, draws)), 0, axis=1)
        power = np.mean((t.pvalue < 0.05) & (t.statistic > 0))
        assert (power >= 0.8) == reached
        assert power == pytest.approx(paired_power(draws, 1.0, 0.9), abs=0.006)


@pytest.mark.parametrize(("sd", "draws"), [(0.0, 2), (1e-6, 2), (1.0, 10), (10.0, 787)])
def test_draws_needed_has_known_values(sd, draws):
    """A spread as large as the effect takes 10 draws; one ten times as large takes 787."""
    assert draws_needed(sd, 1.0) == draws


def test_the_share_of_equal_captions_equals_drawn_batches():
    """The expected share matches the mean over many random batches."""
    rng = np.random.default_rng(2)
    captions = [f"caption {i}" for i in rng.zipf(1.5, size=200) % 40]
    shares = []
    for _ in range(4000):
        batch = [captions[i] for i in rng.choice(200, size=10, replace=False)]
        shares.append(np.mean([batch.count(caption) > 1 for caption in batch]))
    assert equal_caption_share(captions, 10) == pytest.approx(np.mean(shares), abs=0.01)
    assert equal_caption_share(["a", "b", "c"], 3) == 0
    assert equal_caption_share(["a", "a", "a"], 2) == 1


# --- what is compared


def _rows(clip, other, n=2000, chance=0.125, majority=0.13):
    study = replace(parse_study(TINY), seeds=tuple(range(len(clip))), metrics=("zero_shot.shape",))
    rows = {}
    for seed, values in enumerate(zip(clip, other, strict=True)):
        for objective, value in zip(study.objectives, values, strict=True):
            score = {"value": value, "n": n, "standard_error": 0.01}
            score |= {"chance": chance, "majority": majority}
            rows["wide", seed, objective] = {"scores": {"zero_shot": {"shape": score}}}
    return study, rows


def test_differences_are_those_of_each_seed():
    """The table holds every raw paired difference in points, in the order of the seeds."""
    study, rows = _rows([0.50, 0.40, 0.45], [0.52, 0.40, 0.44])
    (found,) = compare(study, rows)
    assert found.differences == pytest.approx((2.0, 0.0, -1.0))
    assert found.spread.sd == pytest.approx(np.std([2, 0, -1], ddof=1))
    assert found.draws == tuple(
        draws_needed(sd, 1.0) for sd in (found.spread.low, found.spread.sd, found.spread.high)
    )
    table = comparison_table(study, [found])
    assert "+2.00, +0.00, -1.00" in table
    assert not any(word in table for word in ("mean", "*", "best", "gain"))


def test_no_draws_are_estimated_where_clip_is_near_guessing():
    """One baseline run within three standard errors of guessing is enough to refuse."""
    study, rows = _rows([0.50, 0.14, 0.45], [0.52, 0.40, 0.44])
    (found,) = compare(study, rows)
    assert found.draws is None
    assert "refused" in comparison_table(study, [found])


def test_always_the_same_answer_counts_as_guessing():
    """A score that the largest class's share explains is not above guessing."""
    study, rows = _rows([0.30, 0.31], [0.30, 0.30], chance=0.125, majority=0.3)
    assert compare(study, rows)[0].draws is None


def test_a_half_finished_pair_is_not_compared():
    """A seed of which one objective is missing does not enter."""
    study, rows = _rows([0.50, 0.40], [0.52, 0.41])
    del rows["wide", 1, "maeclip"]
    (found,) = compare(study, rows)
    assert len(found.differences) == 1
    assert found.draws is None
    assert "one draw has no spread" in found.refusal
    del rows["wide", 0, "clip"]
    assert "No pair of runs" in comparison_table(study, compare(study, rows))


def test_a_metric_that_an_objective_lacks_is_named():
    """Where an objective has no such score, a line says so in place of a difference."""
    study, rows = _rows([0.50], [0.52])
    rows["wide", 0, "maeclip"] = {"scores": {"zero_shot": {}}}
    assert compare(study, rows) == []
    assert unscored(study, rows) == ["zero_shot.shape of maeclip"]
    assert "There is no zero_shot.shape of maeclip" in tables(study, rows, {("wide", 0): FIGURES})


def test_a_score_of_no_items_is_none():
    """What is no number is neither compared nor counted as above guessing."""
    study, rows = _rows([0.50], [0.52])
    rows["wide", 0, "clip"] = {"scores": {"zero_shot": {"shape": Score.of([], 0.1).as_dict()}}}
    assert compare(study, rows) == []
    assert unscored(study, rows) == ["zero_shot.shape of clip"]


# --- the file


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("held_out_pairs", "heldout_pairs", "did you mean 'held_out_pairs'"),
        ("concepts = 64", "concept = 64", "did you mean 'concepts'"),
        ('"zero_shot.shape"', '"zero_shot.shap"', "did you mean 'zero_shot.shape'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "different seeds"),
        ("seeds = [0, 1]", 'seeds = ["a"]', "a list of whole numbers"),
        ('objectives = ["clip", "maeclip"]', 'objectives = ["clip"]', "two objectives"),
        ("pairs = 40", 'pairs = "many"', "a whole number"),
        ('name = "tiny"', "", "needs the option name"),
        ("concepts = 64", "concepts = 65", "between 1 and 64"),
        ("concepts = 64", 'concepts = "all"', "concepts = 'all' is not a whole number"),
        ("[worlds.wide]\nconcepts = 64", "[worlds]\nwide = 64", "not a table of dials"),
        ('templates = ["a {}"]', 'templates = ["a"]', "templates with {}"),
        ('templates = ["a {}"]', "templates = []", "templates with {}"),
        ("[training]", "[training]\nseed = 7", "without name, terms and seed"),
        ("[training]", "[training]\nterms = {InfoNCE = 1}", "without name, terms and seed"),
    ],
)
def test_a_wrong_study_is_refused_in_one_line(old, new, says):
    """What is wrong is named, with what may be meant."""
    with pytest.raises(Refused) as error:
        parse_study(TINY.replace(old, new, 1))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_study_names_the_shipped_ones():
    """A name that is neither shipped nor a file is refused with those that are."""
    with pytest.raises(Refused, match="pilot"):
        read_study("pilto")


def test_the_pilot_is_a_sound_plan_of_twelve_runs():
    """The shipped study has two objectives, two equally large worlds, three seeds, and a plan."""
    pilot = read_study("pilot")
    assert len(pilot.cells()) == 12
    narrow, wide = (pilot.world(name, 0) for name in ("narrow", "wide"))
    assert len(narrow.combinations) < len(wide.combinations)
    assert len(narrow.classes("shape")) == len(wide.classes("shape"))  # equal chance
    assert "Pixels 1" in plan_text(pilot, "study.jsonl")


def test_a_course_and_a_unit_of_a_weight_are_told():
    """The plan has a term's weight as its recipe has it, not the largest number in it."""
    clip = load_recipe("clip").to_json()
    terms = {**clip["terms"], "Pixels": {"weight": [[0, 0], [1, 0.5]], "unit": "gradient"}}
    recipe = TrainRecipe.from_options({**clip, "name": "mine", "terms": terms})
    text = setting(parse_study(TINY), {"clip": recipe})
    assert "- clip: InfoNCE 1, Pixels 0 at 0 % → 0.5 at 100 % of the first term's gradient" in text


def test_a_row_is_the_same_before_and_after_it_is_read(tmp_path):
    """What a study has done in this process equals what the next one finds."""
    results = Results(tmp_path / "study.jsonl", "code")
    results.append({"key": "a", "terms": {"Pixels": ((0, 1), (1, 2))}})
    assert results.rows == Results(tmp_path / "study.jsonl", "code").rows


# --- pairing


def test_objectives_start_from_the_same_weights():
    """Every parameter that clip and maeclip share starts equal; another seed starts elsewhere."""
    study = parse_study(TINY)
    clip, maeclip = (training_recipe(study, o, 0) for o in study.objectives)
    start, other = initial_weights(clip, 300), initial_weights(maeclip, 300)
    assert set(start) < set(other)
    assert all(start[name] == other[name] for name in start)
    elsewhere = initial_weights(replace(clip, seed=1), 300)
    assert all(start[name] != elsewhere[name] for name in start if name.endswith("token.weight"))


def test_recipes_that_differ_in_more_than_terms_are_no_pair():
    """Another learning rate is refused by name."""
    study = parse_study(TINY)
    clip, maeclip = (training_recipe(study, o, 0) for o in study.objectives)
    check_paired([clip, maeclip])
    with pytest.raises(RecipeError, match="lr is"):
        check_paired([clip, replace(maeclip, lr=1.0)])


def test_objectives_see_the_same_pairs_in_the_same_order(finished):
    """Step by step both objectives of a draw are given the same uids; another seed others."""
    _, seen, _ = finished
    by_run = {}
    for objective, seed, uids in seen:
        by_run.setdefault((objective, seed), []).append(uids)
    assert by_run["clip", 0] == by_run["maeclip", 0]
    assert by_run["clip", 1] == by_run["maeclip", 1]
    assert not set(by_run["clip", 0]) & set(by_run["clip", 1])


# --- on disk


def _rows_in(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "study.jsonl").read_text().splitlines()]


def test_a_finished_study_is_not_done_again(finished, monkeypatch):
    """The same command reads the rows and trains nothing."""
    out, _, text = finished
    before = (out / "study.jsonl").read_bytes()
    monkeypatch.setattr(breadth.train.loop, "take_step", None)
    assert run_study(parse_study(TINY), out) == text
    assert (out / "study.jsonl").read_bytes() == before
    assert (out / "study.md").read_text().endswith(text + "\n")


def test_rows_say_what_was_run(finished):
    """Every run has one row with its own key, its order, its scores and the code's version."""
    rows = _rows_in(finished[0])
    assert len({row["key"] for row in rows}) == 4
    assert len({row["code"] for row in rows}) == 1
    assert {(row["seed"], row["order"]) for row in rows} == {
        (row["seed"], row["order"]) for row in rows if row["objective"] == "clip"
    }
    assert all(0 <= row["scores"]["zero_shot"]["shape"]["value"] <= 1 for row in rows)


def test_the_text_states_the_conditions(finished):
    """Weights, steps, repeats, equal captions and the measured diversity stand in the text."""
    text = finished[2]
    for stated in ("Pixels 1", "3 steps of 16", "1.2 repeats", "equal caption", "Vendi score"):
        assert stated in text
    assert "refused" in text  # three steps leave CLIP at chance


def test_an_interrupted_study_goes_on(finished, tmp_path):
    """A row that was cut in half is done again; the whole ones are kept as they are."""
    source, _, _ = finished
    lines = (source / "study.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "study.jsonl").write_bytes(lines[0] + lines[1][:50])
    (tmp_path / "draws").symlink_to(source / "draws")
    new = []
    text = run_study(parse_study(TINY), tmp_path, runs=1, say=new.append)
    assert len(new) == 1
    assert "2 of 4 runs are done" in text
    first, second = _rows_in(tmp_path)
    original = _rows_in(source)
    assert first == original[0]
    assert second["scores"] == original[1]["scores"]


def test_other_prompts_are_scored_anew(finished, tmp_path):
    """A changed template changes what is measured, so the rows of the old one do not count."""
    source, _, _ = finished
    (tmp_path / "study.jsonl").write_bytes((source / "study.jsonl").read_bytes())
    study = replace(parse_study(TINY), templates=("one {}",))
    new = []
    run_study(study, tmp_path, runs=1, say=new.append)
    assert len(new) == 1


def test_rows_of_other_code_are_refused(finished, tmp_path):
    """Results of two versions of the code never stand in one table."""
    row = _rows_in(finished[0])[0]
    (tmp_path / "study.jsonl").write_text(json.dumps({**row, "code": "0123"}) + "\n")
    with pytest.raises(OutputError, match="other code"):
        run_study(parse_study(TINY), tmp_path)
