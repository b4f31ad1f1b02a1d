"""The procedural world: everything it says about a scene is true of the picture."""

from hashlib import sha256

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.stages.caption_language import CaptionLanguage
from breadth.loaders.errors import Refused
from breadth.loaders.scene_drawing import BACKGROUNDS, COLOURS, SHAPES
from breadth.loaders.world import (
    RELATIONS,
    World,
    boxes,
    caption,
    masks,
    picture,
    questions,
    scene,
)

ALL = World(seed=4, shapes=len(SHAPES), colours=len(COLOURS))


def _scenes(world, n):
    return [scene(world, index) for index in range(n)]


def test_a_scene_depends_on_world_and_index_alone():
    """The same scene is drawn and captioned alike in any order, and another seed differs."""
    forwards = [sha256(picture(scene(ALL, i)).tobytes()).hexdigest() for i in range(5)]
    backwards = [sha256(picture(scene(ALL, i)).tobytes()).hexdigest() for i in (4, 3, 2, 1, 0)]
    assert forwards == backwards[::-1]
    assert scene(ALL, 3) == scene(World(4, len(SHAPES), len(COLOURS)), 3)
    assert scene(ALL, 3) != scene(World(5, len(SHAPES), len(COLOURS)), 3)


def test_a_smaller_picture_shows_the_same_scene():
    """Scenes do not depend on the size they are drawn at."""
    shrunk = [
        cv2.resize(picture(shown, 256), (64, 64), interpolation=cv2.INTER_AREA).astype(int)
        for shown in _scenes(ALL, 20)
    ]
    drawn = [picture(shown, 64) for shown in _scenes(ALL, 20)]
    distance = np.array([[np.abs(a - b).mean() for b in drawn] for a in shrunk])
    assert (distance.argmin(1) == np.arange(20)).all()
    assert np.diag(distance).max() < 10


@given(
    shapes=st.integers(1, len(SHAPES)),
    colours=st.integers(2, len(COLOURS)),
    share=st.floats(0.01, 1),
    entropy=st.floats(0.05, 1),
)
@settings(max_examples=60, deadline=None)
def test_the_dials_set_number_and_entropy_of_concepts(shapes, colours, share, entropy):
    """Exactly so many combinations occur, all different, with the entropy asked for."""
    concepts = max(1, round(share * shapes * colours))
    world = World(3, shapes, colours, concepts, entropy)
    assert len(set(world.combinations)) == len(world.combinations) == concepts
    p = world.frequencies
    assert p.sum() == pytest.approx(1)
    if concepts > 1:
        found = -(p[p > 0] * np.log(p[p > 0])).sum() / np.log(concepts)
        assert found == pytest.approx(entropy, abs=0.01)


def test_a_few_concepts_use_every_colour_and_shape():
    """Narrow worlds lose combinations before they lose colours or shapes."""
    world = World(0, concepts=8)
    assert len(world.classes("colour")) == len(world.classes("shape")) == 8


def test_drawn_scenes_follow_the_frequencies():
    """Observed shares lie within five standard errors of the dial's frequencies."""
    world, n = World(1, 4, 4, entropy=0.7), 4000
    seen = [s.labels["colour_shape"] for s in _scenes(world, n)]
    for (colour, shape), p in zip(world.combinations, world.frequencies, strict=True):
        share = seen.count(f"{colour} {shape}") / n
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-9


@pytest.mark.parametrize(
    "dials",
    [{"shapes": 99}, {"colours": 1}, {"concepts": 65}, {"entropy": 0}, {"caption_detail": 1.1}],
)
def test_dials_out_of_range_are_refused(dials):
    """The message names the dial."""
    with pytest.raises(Refused, match=next(iter(dials))):
        World(**dials)


def test_labels_are_among_the_classes():
    """Every label of every scene is a class of its task, and every task is known."""
    for shown in _scenes(World(2, concepts=20), 200):
        for task, label in shown.labels.items():
            assert label in World(2, concepts=20).classes(task)
    with pytest.raises(Refused, match="no task"):
        ALL.classes("smell")


def test_pixels_in_a_mask_have_the_colour_that_the_label_says():
    """The brightest tone inside the main mask is nearest to the named colour."""
    names, tones = list(COLOURS), np.array(list(COLOURS.values()))
    for shown in _scenes(ALL, 150):
        inside = picture(shown, 128)[masks(shown, 128)[0]].astype(float)
        plain = inside[inside.sum(1) >= np.quantile(inside.sum(1), 0.6)]
        middle = np.median(plain, axis=0)
        assert names[np.abs(tones - middle).sum(1).argmin()] == shown.main.colour


def test_pixels_outside_every_mask_are_background():
    """What no mask covers is within the clouding of the named background."""
    for shown in _scenes(ALL, 50):
        free = cv2.erode((~masks(shown, 128).any(0)).astype(np.uint8), np.ones((5, 5))) > 0
        off = picture(shown, 128)[free].mean(0) - BACKGROUNDS[shown.background]
        assert np.abs(off).max() < 45


def test_boxes_are_the_bounds_of_masks_and_lie_inside_the_picture():
    """Each box agrees with its mask to a pixel and a half; nothing is cut off or overlaps."""
    for shown in _scenes(ALL, 200):
        drawn = masks(shown, 256)
        for box, mask in zip(boxes(shown, 256), drawn, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(box - found).max() < 2.5
            assert box.min() >= -1 and box.max() <= 257
        assert drawn.sum(0).max() == 1


def test_the_main_object_is_the_largest():
    """No companion's box is as large as the main object's."""
    for shown in _scenes(ALL, 200):
        sides = np.ptp(boxes(shown, 256).reshape(-1, 2, 2), axis=1).max(1)
        assert (sides[0] > sides[1:]).all()


def test_relation_and_count_agree_with_the_boxes():
    """The main object stands where its relation says, and companions are counted."""
    for shown in _scenes(ALL, 200):
        middle = boxes(shown, 256).reshape(-1, 2, 2).mean(1)
        assert shown.labels["count"] == str(len(middle) - 1)
        if len(middle) == 1:
            assert shown.relation == "alone"
            continue
        right, below = (middle[0] - middle[1:]).T
        holds = {
            "above": below < 0,
            "below": below > 0,
            "left of": right < 0,
            "right of": right > 0,
        }
        assert holds[shown.relation].all()


def test_captions_tell_what_the_dial_lets_them():
    """Without detail a caption is colour and shape; with all of it, everything is said."""
    for index in range(100):
        bare, full = (scene(World(1, caption_detail=d), index) for d in (0, 1))
        assert caption(bare).endswith(f"{bare.main.colour} {bare.main.shape}")
        assert f"{full.size} {full.main.colour} {full.main.shape}" in caption(full)
        assert f"{full.background} background" in caption(full)
        if full.companions:
            assert f"{full.companions[0].colour} {full.companions[0].shape}" in caption(full)
        first = min(caption(full).find(c) for c in COLOURS if c in caption(full))
        assert caption(full)[first:].startswith(full.main.colour)


@pytest.mark.parametrize("detail", [0.0, 0.6, 1.0])
def test_captions_are_english_to_the_language_stage(detail):
    """More than 99 of 100 captions of any detail pass the rule that the demo applies."""
    import pyarrow as pa

    world = World(3, len(SHAPES), len(COLOURS), caption_detail=detail)
    captions = [caption(s) for s in _scenes(world, 1500)]
    stage = CaptionLanguage()
    found = pa.table({"caption": captions, **stage.annotate(pa.table({"caption": captions}))})
    assert np.mean(stage.keep(found).to_pylist()) > 0.99
    assert min(len(words.split()) for words in captions) >= 3


def test_answers_are_true_of_the_scene():
    """Counted, named and related things are as the labels say; each question has one answer."""
    for shown in _scenes(ALL, 100):
        asked = dict(questions(shown))
        assert len(asked) == len(questions(shown))
        assert asked[f"what colour is the {shown.size} {shown.main.shape}?"] == shown.main.colour
        yes = [q for q, answer in asked.items() if answer == "yes"]
        assert len(yes) == (1 if shown.companions else 0)
        assert all(f" {shown.relation} the " in q for q in yes)
        assert set(RELATIONS) >= ({shown.relation} if shown.companions else set())


def test_shapes_differ_at_training_size():
    """At 32 px no two shapes of the same size and place are alike in more than 9 of 10 pixels."""
    from breadth.loaders.scene_drawing import Thing

    drawn = []
    for shape in SHAPES:
        thing = Thing(shape, "red", "plain", (0.5, 0.5), 0.3, 0.0)
        lone = scene(ALL, 0).__class__(
            thing, (), "large", "alone", "grey", frozenset(), "this is", (0, 0)
        )
        drawn.append(masks(lone, 32)[0])
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert (one & other).sum() / (one | other).sum() < 0.9
