"""Scenes with one thing changed: what should change does, and nothing else."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.loaders.errors import Refused
from breadth.loaders.scene_changes import on_another_background, unseen_twin
from breadth.loaders.scene_drawing import BACKGROUNDS, COLOURS, SHAPES, _coverage, masks, picture
from breadth.loaders.world import World, scene

PX = 96
WORLD = World(seed=6, shapes=len(SHAPES), colours=len(COLOURS), unseen=40)


def _inner(mask):
    """The pixels of a mask that its smoothed rim does not reach."""
    return cv2.erode(mask.astype(np.uint8), np.ones((5, 5)), borderValue=0) > 0


def _outer(mask):
    """The pixels that neither a mask nor its smoothed rim reach."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) == 0


@given(index=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_another_background_leaves_every_object_as_it_was(index):
    """No pixel that an object wholly covers changes, all that none touches do, one label does."""
    shown = scene(WORLD, index)
    swapped = on_another_background(shown)
    before, after = (picture(s, PX).astype(int) for s in (shown, swapped))
    covered = [_coverage(thing.outline, PX) == 255 for thing in (shown.main, *shown.companions)]
    # Blending rounds the last bit.
    assert np.abs(before - after)[np.any(covered, axis=0)].max() <= 1
    assert covered[0].sum() > 0.7 * masks(shown, PX)[0].sum()
    free = _outer(masks(shown, PX).any(0))
    change = np.array(BACKGROUNDS[swapped.background]) - BACKGROUNDS[shown.background]
    moved = (after - before)[free] - change
    unclipped = (before[free] > 0) & (after[free] > 0) & (before[free] < 255) & (after[free] < 255)
    assert np.abs(moved[unclipped]).max() <= 1
    assert shown.background != swapped.background
    assert {**swapped.labels, "background": ""} == {**shown.labels, "background": ""}


def test_every_other_background_is_drawn_about_equally_often():
    """Of three other backgrounds each is taken for a third of scenes, within five errors."""
    grey = [s for i in range(1500) for s in [scene(WORLD, i)] if s.background == "grey"]
    drawn = [on_another_background(s).background for s in grey]
    for name in set(BACKGROUNDS) - {"grey"}:
        assert abs(drawn.count(name) / len(grey) - 1 / 3) < 5 * np.sqrt(2 / 9 / len(grey))


@given(index=st.integers(0, 10**6), gone=st.sets(st.integers(0, 3)))
@settings(max_examples=60, deadline=None)
def test_a_thing_left_out_leaves_background_and_the_rest_as_they_were(index, gone):
    """Pixels far from what is left out are equal, those inside it show the background's colour."""
    shown = scene(WORLD, index)
    before, after = picture(shown, PX), picture(shown, PX, without=gone)
    empty = picture(shown, PX, without=range(4))
    things = masks(shown, PX)
    absent = [mask for place, mask in enumerate(things) if place in gone]
    lost = np.any(absent, axis=0) if absent else np.zeros((PX, PX), bool)
    assert (before == after)[_outer(lost)].all()
    assert (after == empty)[_inner(lost)].all()
    assert np.abs(empty.mean((0, 1)) - BACKGROUNDS[shown.background]).max() < 45


@given(
    shapes=st.integers(2, len(SHAPES)),
    colours=st.integers(2, len(COLOURS)),
    share=st.floats(0, 1),
    seed=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_held_back_combinations_occur_nowhere_but_their_colours_and_shapes_do(
    shapes, colours, share, seed
):
    """Seen and unseen share out the table; no object of any scene has an unseen combination."""
    unseen = int(share * (shapes * colours - max(shapes, colours)))
    world = World(seed, shapes, colours, unseen=unseen)
    seen, held = set(world.combinations), set(world.unseen_combinations)
    assert len(held) == unseen and not seen & held
    assert seen | held == {(c, s) for c in list(COLOURS)[:colours] for s in SHAPES[:shapes]}
    assert {c for c, _ in seen} == set(list(COLOURS)[:colours])
    assert {s for _, s in seen} == set(SHAPES[:shapes])
    for shown in (scene(world, i) for i in range(30)):
        assert not {(t.colour, t.shape) for t in (shown.main, *shown.companions)} & held


def test_combinations_that_cannot_be_held_back_are_refused():
    """The first diagonal stays, and what is held back cannot be asked for as well."""
    with pytest.raises(Refused, match="unseen"):
        World(shapes=8, colours=8, unseen=57)
    with pytest.raises(Refused, match="concepts"):
        World(shapes=8, colours=8, unseen=10, concepts=60)


@given(index=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_twin_differs_in_colour_and_shape_of_the_main_object_alone(index):
    """Its combination is one held back; away from the main object every pixel is equal."""
    shown = scene(WORLD, index)
    twin = unseen_twin(WORLD, shown)
    assert (twin.main.colour, twin.main.shape) in WORLD.unseen_combinations
    same = replace(twin.main, colour=shown.main.colour, shape=shown.main.shape)
    assert replace(twin, main=same) == shown
    assert twin.main.colour not in {thing.colour for thing in twin.companions}
    away = _outer(masks(shown, PX)[0] | masks(twin, PX)[0])
    assert (picture(shown, PX) == picture(twin, PX))[away].all()


def test_twins_show_every_combination_held_back():
    """All unseen combinations are drawn, and a world that holds none back is refused."""
    drawn = {unseen_twin(WORLD, scene(WORLD, i)).labels["colour_shape"] for i in range(1000)}
    assert drawn == {f"{c} {s}" for c, s in WORLD.unseen_combinations}
    with pytest.raises(Refused, match="unseen"):
        unseen_twin(World(), scene(World(), 0))


@pytest.mark.parametrize("bias", [0.0, 0.6, 1.0])
def test_the_background_follows_the_shape_as_often_as_the_dial_says(bias):
    """Its own background is seen in bias + (1 - bias) / 4 of scenes; nothing else moves."""
    world, n = World(7, background_bias=bias), 600
    scenes, free = ([scene(w, i) for i in range(n)] for w in (world, World(7)))
    names = list(BACKGROUNDS)
    own = np.mean([s.background == names[SHAPES.index(s.main.shape) % 4] for s in scenes])
    wanted = bias + (1 - bias) / 4
    assert abs(own - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / n)
    assert [replace(s, background="") for s in scenes] == [replace(s, background="") for s in free]
