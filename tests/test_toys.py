"""Each objective learns a toy of which the best answer is known; the control beside it does not."""

import math

import pytest
import torch

from breadth.train.inputs import draw_inputs

from .toy_runs import TOYS, result, train_toy
from .toy_worlds import WORD, linked_batches, stripe_batches
from .toys import (
    CPU,
    SMALL,
    crops_found,
    filled_in,
    make_trainee,
    named,
    patch_named,
    stripes_read,
    textures_read,
    toy_recipe,
)

pytestmark = pytest.mark.usefixtures("one_thread")  # the same bits wherever the test runs


def test_contrast_finds_what_is_linked_and_nothing_else():
    """Unseen linked latents find each other among 32; after shuffled pairs they do by chance."""
    assert result("linked: clip", 0) == 1
    by_chance = result("linked: clip, captions shuffled", 0)
    assert abs(by_chance - 1 / 32) < 4 * math.sqrt(31) / 32 / math.sqrt(32)


def test_contrast_begins_at_the_logarithm_of_the_batch():
    """A fresh model tells no pair from another: InfoNCE of B pairs costs ln B.

    At a logit scale of 1. CLIP begins at 1 / 0.07, where what happens to be alike costs more.
    """
    fresh = make_trainee(toy_recipe(**TOYS["linked: clip"].options), WORD + 16, CPU)
    inputs = draw_inputs(fresh.recipe, *linked_batches(0, 64)(0), 0, vocabulary=WORD + 16)
    with torch.no_grad():
        fresh.model.logit_scale.zero_()
    means = fresh.step_of.backward(inputs, {"InfoNCE": 1.0})
    assert means["InfoNCE"].item() == pytest.approx(math.log(64), rel=0.01)


@pytest.mark.parametrize(
    "name",
    [
        "clip",
        "align, 30 % wrong captions",
        "siglip",
        "flip",
        "coca",
    ],
)
def test_unseen_pairs_of_colour_and_glyph_are_named(name):
    """Zero-shot among all 36: what never was together is put together; chance is 3 %."""
    assert result(f"unseen: {name}", 0) > 0.8


@pytest.mark.parametrize("pool", ["max", "map"])
def test_one_patch_among_many_is_not_averaged_away(pool):
    """The needle among 36 patches is found by MAX and MAP; GAP finds it among 4 only."""
    assert result(f"needle: {pool}, 36 patches", 0) > 0.95
    if pool == "max":
        assert result("needle: gap, 4 patches", 0) > 0.95
        assert result("needle: gap, 36 patches", 0) < 0.9


@pytest.mark.parametrize("name", ["m3ae", "two towers, joint decoder"])
def test_a_joint_decoder_names_what_only_the_picture_tells(name):
    """A hidden word that the picture determines is guessed, with one tower and with two."""
    assert result(f"tint: {name}", 0) > 0.98


@pytest.mark.parametrize("name", ["two towers, decoder apart", "tokens alone"])
def test_without_the_picture_the_word_is_a_guess(name):
    """Where words are decoded from words alone, no more than one of six is right."""
    assert result(f"tint: {name}", 0) < 1 / 6 + 4 * math.sqrt(5 / 36 / 600)


def test_captions_are_written_as_well_as_can_be():
    """CoCa's cross-entropy on fresh captions is their entropy within two standard errors.

    The picture says which of two chains it is: without it, the entropy is higher.
    """
    assert result("chain: coca", 0).errors < 2


def test_crops_of_a_picture_find_each_other():
    """SimCLR finds the other crop among those of 36 pictures; a fresh tower rarely does."""
    fresh = train_toy("crops: simclr", 0, steps=1)
    assert crops_found(fresh, 0) < 0.2
    assert result("crops: simclr", 0) > 0.3


def test_mae_learns_what_captions_leave_out():
    """Hidden patches cost far less than the mean colour, and a probe reads the stripes.

    Three fifths of the steps; chance is 0.25.
    """
    mae = train_toy("omitted stripes, probed: mae", 0, steps=430)
    assert filled_in(mae, 0) < 0.65
    assert stripes_read(mae, 0) > 0.65


def test_clip_does_not_learn_what_captions_leave_out():
    """It names every colour; a probe reads the four stripes half of the time at most."""
    clip = train_toy("omitted stripes, probed: clip", 0, steps=300)
    assert named(clip, stripe_batches(0, 400)) > 0.98
    assert stripes_read(clip, 0) < 0.55


def test_slip_learns_what_captions_leave_out_and_clip_does_not():
    """Both name the colour of a patch; a probe reads the eight textures of slip's features alone.

    A quarter of the steps or less, ten times the crops' weight and one block for two: far from all
    that slip learns, but clip and a fresh tower have 0.15 and 0.2 to 0.3.
    """
    short = {"steps": 150, "final_lr": 0.5, "size": {**SMALL, "depth": 1}}
    crops = {"InfoNCE": 1, "NTXent": 10}
    slip = train_toy("omitted textures, probed: slip", 0, **short, terms=crops)
    clip = train_toy("omitted textures, probed: clip", 0, **{**short, "steps": 80})
    assert min(patch_named(slip, 0), patch_named(clip, 0)) > 0.95
    assert textures_read(slip, 0) > 0.35
    assert textures_read(clip, 0) < 0.25


@pytest.mark.parametrize("hidden", ["dropped", "corrupted"])
def test_hidden_words_are_guessed_as_well_as_can_be(hidden):
    """On fresh captions Tokens costs what the brute-force posterior does, within two errors."""
    assert result(f"chain: words {hidden}", 0).errors < 2
