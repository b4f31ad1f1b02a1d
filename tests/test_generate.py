"""Pictures that a run fills in: a perfect guess gives the picture back, none is refused."""

import numpy as np
import pytest

from breadth.loaders.errors import Refused
from breadth.train.decoder import patch_targets
from breadth.train.generate import reconstruct

from .made_runs import untrained


def test_a_run_that_predicts_its_target_gives_the_picture_back(monkeypatch):
    """What was taken out of a patch is what is put back, in one as flat as bytes can tell."""
    levels = {"pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (1.0, 1.0, 1.0)}
    options = {"pixel_target": "patch", "variance_floor": 1e-9, **levels}
    run = untrained(terms={"Pixels": 1}, **options)

    def perfect(patches_BNP, inputs):
        target_BNP = patch_targets(patches_BNP, run.recipe)
        return {"target_patches": target_BNP, "predicted_patches": target_BNP}

    monkeypatch.setattr(run.model, "decoded", perfect)
    flat = np.full((1, 3, 32, 32), 100, np.uint8)
    flat[..., ::8, ::8] += 1
    made = reconstruct(run, np.concatenate([flat, flat * 2]))
    assert np.array_equal(made.predicted, made.original)
    assert (made.masked != made.original).any()
    assert np.array_equal(made.loss_n, [0, 0])


def test_no_picture_is_refused_in_one_line():
    """Filling in nothing says what to give."""
    with pytest.raises(Refused, match="give one at least"):
        reconstruct(untrained(terms={"Pixels": 1}), np.empty((0, 3, 32, 32), np.uint8))
