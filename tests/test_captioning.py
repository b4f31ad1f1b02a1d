"""Descriptions are judged by the names they use."""

import numpy as np
import pytest

from breadth.loaders.world import World, caption, scene
from breadth.train.evaluate.captioning import chance_of_equal, first_named, plain

WORLD = World(seed=3, caption_detail=1.0)


@pytest.mark.parametrize("task", ["colour", "shape", "colour_shape"])
def test_every_true_caption_names_its_main_object_first(task):
    """Captions of the world are found to name their own colour and shape, whatever follows."""
    for index in range(300):
        shown = scene(WORLD, index)
        assert first_named(caption(shown), WORLD.classes(task)) == shown.labels[task]


def test_names_are_whole_words_and_the_longest_at_a_place():
    """Parts of words name nothing; of two names at one place the longer is meant."""
    assert first_named("a starfish and two stars", ["star"]) is None
    assert first_named("An Orange heart.", ["heart", "orange", "orange heart"]) == "orange heart"
    assert first_named("c++ or c", ["c", "c++"]) == "c++"
    assert first_named("", ["c"]) is None


def test_chance_is_that_of_another_pictures_caption():
    """The chance of an equal caption is the share among all pairs of pictures."""
    captions = ["a dog", "A  dog", "a cat", "a bird", "a dog"]
    equal = [plain(a) == plain(b) for a in captions for b in captions]
    assert chance_of_equal(captions) == pytest.approx(np.mean(equal))
