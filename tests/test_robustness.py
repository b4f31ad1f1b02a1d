"""What an answer hangs on, found in runs of which it is known."""

import numpy as np
import pytest

from breadth.loaders.errors import Refused
from breadth.loaders.scene_changes import on_another_background, unseen_twin
from breadth.loaders.scene_drawing import BACKGROUNDS, picture
from breadth.loaders.world import World, scene
from breadth.train.evaluate.paired import difference
from breadth.train.evaluate.robustness import held_out_combinations, pictures, robustness

from .made_runs import told, untrained

WORLD = World(seed=9, unseen=10)
INDICES = range(500, 540)
SCENES = [scene(WORLD, i) for i in INDICES]


def _says(answer_of):
    """Every picture that robustness draws of our scenes, and what is said of it."""
    says = {}
    for shown in SCENES:
        for gone in ((), (0,), (1, 2, 3)):
            says[picture(shown, 32, gone).tobytes()] = answer_of(shown, gone)
        swapped = on_another_background(shown)
        says[picture(swapped, 32).tobytes()] = answer_of(swapped, ())
    return says


def test_a_run_that_reads_the_background_flips_with_it_and_with_nothing_else():
    """Asked for the background it is always right; on another one its answer is never the same."""
    says = _says(lambda shown, _: shown.background)
    run = told(tuple(BACKGROUNDS), says)
    changes = robustness(run, WORLD, INDICES, "background")["changes"]
    assert changes["background"]["before"]["value"] == 1
    assert changes["background"]["after"]["value"] == 0
    assert changes["background"]["difference"]["value"] == -1
    assert changes["background"]["flips"]["value"] == 1
    for change in ("main", "companions"):
        assert changes[change]["flips"]["value"] == 0
        assert changes[change]["after"]["value"] == 1


def test_a_run_that_reads_the_main_object_flips_only_when_it_is_gone():
    """It holds on other backgrounds and without companions, and falls without the object."""
    shapes = WORLD.classes("shape")
    says = _says(lambda shown, gone: shapes[-1] if 0 in gone else shown.main.shape)
    changes = robustness(told(tuple(shapes), says), WORLD, INDICES)["changes"]
    last = np.mean([s.main.shape == shapes[-1] for s in SCENES])
    for change in ("background", "companions"):
        assert changes[change]["flips"]["value"] == 0
        assert changes[change]["after"]["value"] == 1
    assert changes["main"]["after"]["value"] == pytest.approx(last)
    assert changes["main"]["flips"]["value"] == pytest.approx(1 - last)


def test_companions_are_asked_for_only_where_there_are_any():
    """Scenes without companions have no answer to their removal, and do not count."""
    result = robustness(untrained(), WORLD, INDICES)
    alone = np.array([not s.companions for s in SCENES])
    assert alone.any() and ((result["rows"]["companions"] == -1) == alone).all()
    assert result["changes"]["companions"]["before"]["n"] == (~alone).sum()


@pytest.mark.parametrize("by", ["zero_shot", "probe"])
def test_numbers_can_be_made_again_from_the_rows(by):
    """Accuracy, flips and their paired errors are those of the answers kept."""
    result = robustness(untrained(), WORLD, INDICES, "colour", by)
    rows = result["rows"]
    assert (result["pool"], result["by"], result["classes"]) == ("gap", by, 8)
    assert rows["scene"].tolist() == list(INDICES)
    for change, found in result["changes"].items():
        own = rows[change] >= 0
        before, after = ((rows[c] == rows["label"])[own] for c in ("original", change))
        assert found["before"]["value"] == pytest.approx(before.mean())
        gained = after.astype(int) - before
        assert found["difference"]["value"] == pytest.approx(gained.mean())
        assert found["difference"]["standard_error"] == pytest.approx(
            gained.std() / own.sum() ** 0.5
        )
        assert found["flips"]["value"] == pytest.approx(
            (rows[change] != rows["original"])[own].mean()
        )


def test_a_probe_reads_what_the_features_tell_of_other_scenes():
    """By probe, features that are the background are read without error; no joint space needed."""
    says = _says(lambda shown, _: shown.background)
    says |= {
        picture(s, 32).tobytes(): s.background for s in (scene(WORLD, i) for i in range(540, 580))
    }
    changes = robustness(told(tuple(BACKGROUNDS), says), WORLD, INDICES, "background", "probe")
    assert changes["changes"]["main"]["after"]["value"] == 1
    assert changes["changes"]["background"]["flips"]["value"] == 1
    mae = untrained(terms={"Pixels": 1.0})
    assert robustness(mae, WORLD, INDICES, by="probe")["changes"]["main"]["flips"]["n"] == 40
    with pytest.raises(Refused, match="InfoNCE"):
        robustness(mae, WORLD, INDICES)


def test_a_run_that_knows_only_what_it_has_seen_fails_on_held_out_combinations():
    """Right on all seen ones and wrong on all their twins: the paired difference is minus one."""
    names = sorted(f"{c} {s}" for c, s in WORLD.combinations + WORLD.unseen_combinations)
    seen = f"{WORLD.combinations[0][0]} {WORLD.combinations[0][1]}"
    says = {picture(s, 32).tobytes(): s.labels["colour_shape"] for s in SCENES}
    says |= {picture(unseen_twin(WORLD, s), 32).tobytes(): seen for s in SCENES}
    result = held_out_combinations(told(tuple(names), says), WORLD, INDICES)
    assert (result["before"]["value"], result["after"]["value"]) == (1, 0)
    assert result["difference"] == {"value": -1, "standard_error": 0, "n": 40}
    assert result["classes"] == len(names) == 64


def test_the_error_over_combinations_is_that_of_their_means():
    """A run that knows half of the unseen combinations is as unsure as so few of them make it."""
    names = tuple(sorted(f"{c} {s}" for c, s in WORLD.combinations + WORLD.unseen_combinations))
    known = {f"{c} {s}" for c, s in WORLD.unseen_combinations[:5]}
    twins = [unseen_twin(WORLD, s).labels["colour_shape"] for s in SCENES]
    says = {picture(s, 32).tobytes(): s.labels["colour_shape"] for s in SCENES}
    for shown, name in zip(SCENES, twins, strict=True):
        says[picture(unseen_twin(WORLD, shown), 32).tobytes()] = name if name in known else names[0]
    result = held_out_combinations(told(names, says), WORLD, INDICES)
    means = [float(name in known) for name in sorted(set(twins))]
    wanted = np.std(means, ddof=1) / np.sqrt(len(means))
    assert result["error_over_combinations"] == pytest.approx(wanted)
    assert result["after"]["value"] == pytest.approx(np.mean([name in known for name in twins]))


def test_pairs_that_go_together_have_a_small_error():
    """The error of paired differences is that of their spread, far below that of two samples."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=400)
    after = before + 0.1 + rng.normal(0, 0.01, 400)
    found = difference(before, after)
    assert found["value"] == pytest.approx(0.1, abs=4 * found["standard_error"])
    assert found["standard_error"] == pytest.approx(0.01 / 20, rel=0.15)
    assert np.isnan(difference(before[:0], after[:0])["value"])


def test_wrong_requests_are_refused():
    """No scenes, an unknown way to answer, and a world without held-out combinations."""
    run = untrained()
    with pytest.raises(Refused, match="one scene"):
        robustness(run, WORLD, [])
    with pytest.raises(Refused, match="probe"):
        robustness(run, WORLD, INDICES, by="guess")
    with pytest.raises(Refused, match="unseen"):
        held_out_combinations(run, World(), INDICES)


def test_pictures_are_drawn_at_the_runs_size():
    """Pictures come channels first, in the order of the scenes."""
    drawn = pictures(untrained(image_px=16), SCENES[:3])
    assert drawn.shape == (3, 3, 16, 16)
    assert (drawn[2] == picture(SCENES[2], 16).transpose(2, 0, 1)).all()
