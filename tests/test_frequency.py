"""Probes by band, on features of which it is known what they tell."""

import numpy as np
import pytest

from breadth.loaders.errors import Refused
from breadth.loaders.gratings import COARSE, DIRECTIONS, Gratings, between, fine, wave_vector
from breadth.loaders.world import World
from breadth.train.evaluate.frequency import frequency, probe_bands

from .made_runs import Told, told, untrained

PX, N = 32, 400


class Listening(Told):
    """A run whose features are the power at the directions of one band."""

    radius = COARSE

    def features(self, images_BCHW):
        spectrum = np.abs(np.fft.fft2(images_BCHW.mean(axis=1)))
        waves = [wave_vector(self.radius, d) for d in range(DIRECTIONS)]
        return np.log1p(np.stack([spectrum[:, y, x] for y, x in waves], axis=1))


def _listening(radius, like=None):
    run = Listening(**(like or told((), {})).__dict__)
    object.__setattr__(run, "radius", radius)
    return run


def _probed(run, agree=False):
    images, labels = Gratings(4, agree).draw(range(N), PX)
    images = images.transpose(0, 3, 1, 2)
    return probe_bands(run, images, labels, dict.fromkeys(labels, DIRECTIONS), between(PX))


@pytest.mark.parametrize(
    ("radius", "hears", "deaf"), [(COARSE, "low", "high"), (12, "high", "low")]
)
def test_features_of_one_band_tell_its_label_while_it_is_there(radius, hears, deaf):
    """Right on whole pictures and in the band they listen to, by chance in the other."""
    assert fine(PX) == 12
    scores, _ = _probed(_listening(radius))
    for way in ("refitted", "carried"):
        assert scores[hears][hears][way]["value"] > 0.98
        missing = scores[hears][deaf][way]
        assert abs(missing["value"] - 0.25) < 4 * np.sqrt(0.25 * 0.75 / missing["n"])
    assert scores[hears]["all"]["refitted"]["value"] > 0.98
    other = scores[deaf]["all"]["refitted"]
    assert abs(other["value"] - 0.25) < 4 * np.sqrt(0.25 * 0.75 / other["n"])


def test_where_both_bands_tell_the_label_carrying_shows_which_one_is_used():
    """Features of the low band lose the shared label with that band, and only with that."""
    scores, _ = _probed(_listening(COARSE), agree=True)
    assert scores["both"]["low"]["carried"]["value"] > 0.98
    assert scores["both"]["high"]["carried"]["value"] < 0.5


class Turning(Listening):
    """A run that reads the coarse direction; without it, it takes the fine one for another."""

    def features(self, images_BCHW):
        coarse = super().features(images_BCHW)
        fine_run = _listening(fine(PX))
        turned = np.roll(fine_run.features(images_BCHW), 1, axis=1)
        return np.where(coarse.max(axis=1, keepdims=True) > 7, coarse, turned)


def test_a_refitted_probe_learns_what_a_carried_one_takes_for_something_else():
    """Features that turn when a band goes are read again by a new probe, and misread by the old."""
    scores, _ = _probed(Turning(**told((), {}).__dict__), agree=True)
    assert scores["both"]["all"]["refitted"]["value"] > 0.98
    assert scores["both"]["high"]["refitted"]["value"] > 0.98
    assert scores["both"]["high"]["carried"]["value"] < 0.02


def test_scores_are_means_of_the_rows_and_no_test_picture_was_fitted():
    """Each score can be made again from its answers, which are those of every fifth picture."""
    scores, rows = _probed(_listening(COARSE))
    assert set(rows["picture"]) == set(range(0, N, 5))
    for task, bands in scores.items():
        for band, ways in bands.items():
            assert set(ways) == ({"refitted"} if band == "all" else {"refitted", "carried"})
            for way, score in ways.items():
                own = (rows["task"] == task) & (rows["band"] == band) & (rows["way"] == way)
                assert (rows["answer"] == rows["label"])[own].mean() == score["value"]
                assert own.sum() == score["n"] == N / 5


def test_a_run_has_probes_by_band_and_a_spectrum_where_tokens_suffice():
    """All tasks are scored; with 4 x 4 tokens a note stands for the spectrum."""
    fine_tokens = frequency(_listening(COARSE, untrained(patch_px=4)), World(3), range(60))
    assert set(fine_tokens["probe"]) == {"colour", "shape", "low", "high", "both"}
    assert len(fine_tokens["spectrum"]["layers"]) == 4 and not fine_tokens["notes"]
    assert len(fine_tokens["rows"]["spectrum"]["power"]) == 60 * 4 * 5
    coarse = frequency(_listening(COARSE), World(3), range(60))
    assert coarse["spectrum"] is None and "8 x 8" in coarse["notes"][0]
    assert set(coarse["probe"]) == set(fine_tokens["probe"])


def test_too_few_pictures_are_refused():
    """A probe that could be fitted to a handful would tell nothing."""
    with pytest.raises(Refused, match="50 pictures"):
        frequency(untrained(), World(3), range(49))
