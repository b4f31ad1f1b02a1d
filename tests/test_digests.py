"""A run's fingerprints: equal where pairs and masks were, whoever made them, and else not."""

import numpy as np
import pytest
import torch

from breadth.loaders.folder import open_folder
from breadth.loaders.stream import Stream
from breadth.train.digests import PAIRS, add_batch, digest_metrics, over_ranks
from breadth.train.inputs import draw_inputs
from breadth.train.ranks import ALONE

from .bars import JOINT, make_recipe, write_bars
from .test_terms import make_batch
from .test_terms import make_recipe as make_small

ARMS = {
    "clip": {"terms": {"InfoNCE": 1}},
    "maeclip": {"terms": JOINT},
    "placebo": {"terms": JOINT, "placebo": True},
    "mae": {"terms": {"Pixels": 1}},
    "bert": {"terms": {"Tokens": {"masking": "corrupted"}}},
    "slip": {"terms": {"InfoNCE": 1, "NTXent": 1}},
    "flip": {"terms": {"InfoNCE": 1}, "patch_dropout": 0.5},
}
UIDS = [f"{number:032x}" for number in range(8)]


def fingerprints(steps=2, parts=1, first_uid="", **options):
    """Return the sums over some steps of 8 pairs, each batch in so many parts."""
    recipe, sums = make_small(**options, batch_pairs=8), {}
    for step in range(steps):
        images, tokens = make_batch(8, step)
        uids = [first_uid or UIDS[0], *UIDS[1:]]
        size = 8 // parts
        for rank in range(parts):
            rows = slice(rank * size, (rank + 1) * size)
            inputs = draw_inputs(
                recipe, images[rows], tokens[rows], step, vocabulary=300, rank=rank
            )
            positions = np.arange(8 * step, 8 * step + 8)[rows]
            add_batch(sums, uids[rows], positions, inputs)
    return over_ranks(sums, ALONE)


@pytest.mark.parametrize("arm", ARMS)
def test_parts_have_the_sums_of_the_whole(arm):
    """Two and four ranks' shares, drawn by rank and cut to their own longest caption, add up."""
    whole = fingerprints(**ARMS[arm])
    assert fingerprints(**ARMS[arm], parts=2) == fingerprints(**ARMS[arm], parts=4) == whole


def test_arms_agree_on_what_they_share():
    """All saw the same pairs; arms with a masked view hid the same of it."""
    found = {arm: fingerprints(**options) for arm, options in ARMS.items()}
    assert {sums[PAIRS] for sums in found.values()} == {found["clip"][PAIRS]}
    assert found["clip"].keys() == {PAIRS}
    assert found["maeclip"] == found["placebo"]
    assert found["mae"]["masked image"] == found["maeclip"]["masked image"]
    assert found["bert"]["masked text"] == found["maeclip"]["masked text"]
    assert found["slip"].keys() == {PAIRS, "crop 1", "crop 2"}
    assert found["flip"].keys() == {PAIRS, "image"}


@pytest.mark.parametrize(
    "change", [{"steps": 3}, {"first_uid": "f" * 32}, {"seed": 1}, {"image_mask": 0.5}]
)
def test_another_run_has_others(change):
    """A step more, one other pair, other draws and another share each change a sum."""
    assert fingerprints(**{**ARMS["maeclip"], **change}) != fingerprints(**ARMS["maeclip"])


def test_swapped_pairs_are_told():
    """The same pairs in another order have another sum."""
    inputs = draw_inputs(make_small(batch_pairs=8), *make_batch(8), 0, vocabulary=300)
    sums, swapped = {}, {}
    add_batch(sums, UIDS, np.arange(8), inputs)
    add_batch(swapped, UIDS[::-1], np.arange(8), inputs)
    assert sums[PAIRS] != swapped[PAIRS]
    assert sums["masked image"] == swapped["masked image"]


def test_workers_change_no_sum(tmp_path):
    """Read here, by threads or by a process: equal pairs and captions, so equal sums."""
    folder, recipe, found = open_folder(write_bars(tmp_path / "pairs")), make_recipe(), []
    for workers, process in ((0, False), (2, False), (2, True)):
        sums = {}
        with Stream(
            folder, batch_pairs=16, seed=3, image_px=32, workers=workers, process=process
        ) as stream:
            for step, batch in zip(range(6), stream, strict=False):
                tokens = torch.full((16, 32), 7)
                inputs = draw_inputs(recipe, batch.images, tokens, step, vocabulary=300)
                add_batch(sums, batch.uids, batch.positions, inputs)
        found.append(digest_metrics(sums))
    assert found[0] == found[1] == found[2]
    assert len(found[0]["pairs_digest"]) == 16
    assert found[0]["masks_digest"].keys() == {"masked image", "masked text"}
