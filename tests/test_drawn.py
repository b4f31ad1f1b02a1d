"""A folder that says of which world it is drawn has its scenes scored; damage is one line."""

import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from breadth.loaders.errors import PoolError
from breadth.loaders.world import World, scene
from breadth.scripts.demo.heldout import write_heldout
from breadth.scripts.evaluate import evaluate as command
from breadth.scripts.study_draws import draw_folders
from breadth.train.checkpoint import load_run
from breadth.train.evaluate.drawn import WORLD, read_drawn, write_drawn
from breadth.train.evaluate.frequency import frequency
from breadth.train.evaluate.grounding import grounding
from breadth.train.evaluate.questions import read_questions
from breadth.train.evaluate.robustness import held_out_combinations, robustness
from breadth.train.evaluate.scores import evaluate
from breadth.train.loop import train
from breadth.train.recipe import load_recipe
from breadth.train.study.analysis import lookup
from breadth.train.study.design import _drawn_metrics

from .test_study import TINY, parse_study

DIALS = World(seed=2, unseen=8)
PAIRS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Held-out scenes of a world with unseen combinations, and runs of two steps, clip and mae."""
    place = tmp_path_factory.mktemp("drawn")
    write_heldout(DIALS, PAIRS, 3, place / "heldout", px=24)
    options = {"image_px": 24, "patch_px": 3, "steps": 2, "batch_pairs": 16, "warmup_steps": 0}
    clip = replace(load_recipe("demo_clip"), **options)
    train(clip, place / "heldout", place / "clip")
    train(replace(clip, name="mae", terms={"Pixels": 1.0}), place / "heldout", place / "mae")
    return place


@pytest.fixture(scope="module")
def scored(place):
    """The scores of clip."""
    return evaluate(place / "clip", place / "heldout")


def test_the_world_is_read_as_it_was_written(place):
    """Dials and scenes come back; a folder without world.json has none."""
    drawn = read_drawn(place / "heldout")
    assert drawn.world == DIALS and len(drawn.scenes) == PAIRS
    captions = pq.read_table(place / "heldout" / "00000.parquet")["colour_shape"].to_pylist()
    assert captions == [scene(drawn.world, i).labels["colour_shape"] for i in drawn.scenes]
    assert read_drawn(place / "clip") is None


def test_a_study_draws_worlds_and_questions_with_its_held_out_scenes(tmp_path):
    """Held-out scenes follow the training ones and are asked about; training ones are not."""
    study = parse_study(TINY)
    train_folder, held_out = draw_folders(study, "wide", 1, tmp_path)
    drawn = read_drawn(held_out)
    assert drawn.world == study.world("wide", 1)
    assert list(drawn.scenes) == list(range(40, 100))
    uids = pq.read_table(held_out / "00000.parquet")["uid"].to_pylist()
    assert list(dict.fromkeys(q.uid for q in read_questions(held_out))) == uids
    assert read_drawn(train_folder).scenes == range(40)
    assert read_questions(train_folder) == ()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"world": asdict(DIALS)}),
        json.dumps({"world": asdict(DIALS), "scenes": [3]}),
        json.dumps({"world": asdict(DIALS), "scenes": [3, 2]}),
        json.dumps({"world": asdict(DIALS), "scenes": [-1, 2]}),
        json.dumps({"world": asdict(DIALS), "scenes": ["a", "b"]}),
        json.dumps({"world": asdict(DIALS), "scenes": [0.5, 9]}),
        json.dumps({"world": asdict(DIALS) | {"size": 3}, "scenes": [0, 9]}),
        json.dumps({"world": asdict(DIALS) | {"shapes": 99}, "scenes": [0, 9]}),
        json.dumps({"world": asdict(DIALS) | {"shapes": 3.5}, "scenes": [0, 9]}),
        json.dumps({"world": asdict(DIALS) | {"seed": -1}, "scenes": [0, 9]}),
        json.dumps({"world": asdict(DIALS) | {"seed": None}, "scenes": [0, 9]}),
        json.dumps({"world": 7, "scenes": [0, 9]}),
    ],
)
def test_damage_is_named_in_one_line(tmp_path, text):
    """Whatever is wrong with world.json, the error says what it needs."""
    (tmp_path / WORLD).write_text(text)
    with pytest.raises(PoolError, match=r"world\.json: not a world .*dials.*the last") as error:
        read_drawn(tmp_path)
    assert "\n" not in str(error.value)


def test_scores_are_those_of_the_functions_on_the_folders_scenes(place, scored):
    """Every score of drawn scenes equals what calling its function gives, rows set aside."""
    run, drawn = load_run(place / "clip"), read_drawn(place / "heldout")
    looked = grounding(run, [scene(drawn.world, i) for i in drawn.scenes])
    looked.pop("rows")
    assert scored["grounding"] == looked
    for task in ("shape", "colour"):
        held = robustness(run, drawn.world, drawn.scenes, task)
        held.pop("rows")
        assert scored["robustness"]["zero_shot"][task] == held
    twins = held_out_combinations(run, drawn.world, drawn.scenes)
    twins.pop("rows")
    assert scored["held_out_combinations"] == twins
    bands = frequency(run, drawn.world, drawn.scenes)
    assert scored["frequency"]["probe"] == bands["probe"]
    assert scored["token_spectrum"] == bands["spectrum"]
    rows = pq.read_table(place / "clip" / scored["predictions"] / "grounding.parquet")
    assert np.unique(rows["scene"].to_numpy()).tolist() == list(drawn.scenes)


def test_a_limit_bounds_the_scenes_and_too_few_have_no_probes_by_band(place):
    """With a limit of 20 as many scenes are scored; a note stands for the frequencies."""
    few = evaluate(place / "clip", place / "heldout", limit=20)
    assert few["grounding"]["scenes"] == 20
    assert few["robustness"]["zero_shot"]["shape"]["changes"]["main"]["before"]["n"] == 20
    assert few["frequency"] == {} and any("50 pictures" in note for note in few["notes"])


def test_a_run_without_a_joint_space_answers_by_probe(place):
    """mae has robustness by probe and frequencies, and a note on what it has not."""
    result = evaluate(place / "mae", place / "heldout")
    assert result["grounding"] == result["held_out_combinations"] == {}
    assert set(result["robustness"]) == {"probe"} and result["frequency"]["probe"]
    assert any("grounding and none of held-out combinations" in note for note in result["notes"])


def test_tables_show_what_was_found_in_a_terminals_width(place, scored):
    """Each table has its rows, with the figures of the scores, within 120 columns."""
    shown = CliRunner().invoke(command, [str(place / "clip"), "--data", str(place / "heldout")])
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 120

    def row(*cells):
        own = [[cell.strip() for cell in line.split("|")][1 : len(cells) + 1] for line in lines]
        return lines[own.index(list(cells))]

    pointing = scored["grounding"]["maps"]["grad_cam"]["companions"]["pointing"]
    above = pointing["above_random"]
    wanted = f"{100 * pointing['value']:.1f} ± {100 * pointing['standard_error']:.1f}"
    found = row("grad_cam", "companions")
    assert f" {wanted} " in found
    assert f"({100 * above['value']:+.1f} ± {100 * above['standard_error']:.1f})" in found
    main = scored["robustness"]["zero_shot"]["colour"]["changes"]["main"]
    found = row("zero-shot", "colour", "main")
    for share in (main["before"]["value"], main["after"]["value"], main["flips"]["value"]):
        assert f" {100 * share:.1f} " in found
    assert row("zero-shot", "colour_shape", "unseen")
    low = scored["frequency"]["probe"]["low"]["high"]["carried"]
    assert f" {100 * low['value']:.1f} ± " in row("low grating")
    layers = scored["token_spectrum"]["layers"]
    assert f"{layers[-1]['relative_log_amplitude'][4]:+.2f} ± " in row(
        f"after block {len(layers) - 1}"
    )


def test_a_world_is_written_whole_and_the_same_again(tmp_path):
    """Equal worlds give equal bytes."""
    write_drawn(tmp_path, DIALS, range(5, 9))
    first = (tmp_path / WORLD).read_bytes()
    write_drawn(tmp_path, DIALS, range(5, 9))
    assert (tmp_path / WORLD).read_bytes() == first
    assert json.loads(first)["scenes"] == [5, 8]


def test_a_study_may_compare_what_drawn_scenes_are_scored_by(place, scored):
    """Every metric of drawn scenes that a study takes is one of a run's, by one of two ways."""
    other = evaluate(place / "mae", place / "heldout")
    for metric in _drawn_metrics():
        found = lookup(scored, metric) or lookup(other, metric)
        assert found and {"value", "n", "standard_error", "chance"} <= set(found)
