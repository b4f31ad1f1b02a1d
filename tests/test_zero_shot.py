"""Zero-shot classification against a picture-by-picture loop."""

import numpy as np
import pytest

from breadth.train.evaluate.score import Score, errors_above
from breadth.train.evaluate.zero_shot import class_vectors, fill, zero_shot


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_it_equals_a_loop_over_pictures_and_classes():
    """Templates are averaged after normalising, and the nearest class by cosine is named."""
    rng = np.random.default_rng(0)
    pictures = _unit(rng.normal(size=(60, 5)))
    prompts = rng.normal(size=(7, 3, 5)) * rng.uniform(0.1, 10, size=(7, 3, 1))
    labels = rng.integers(7, size=60)
    right = []
    for picture, label in zip(pictures, labels, strict=True):
        cosines = []
        for prompts_of_class in prompts:
            mean = np.mean([p / np.linalg.norm(p) for p in prompts_of_class], axis=0)
            cosines.append(picture @ mean / np.linalg.norm(mean))
        right.append(int(np.argmax(cosines)) == label)
    result = zero_shot(pictures, prompts, labels)
    assert result.score.value == pytest.approx(np.mean(right))


def test_a_long_prompt_vector_counts_no_more_than_a_short_one():
    """Scaling one template's vector changes no class vector."""
    rng = np.random.default_rng(1)
    prompts = rng.normal(size=(4, 2, 6))
    scaled = prompts.copy()
    scaled[:, 0] *= 100
    assert np.allclose(class_vectors(prompts), class_vectors(scaled))
    assert np.allclose(np.linalg.norm(class_vectors(prompts), axis=1), 1)


def test_prompts_come_class_by_class():
    """The flat list of prompts can be reshaped to classes x templates."""
    assert fill(("a {}", "one {}"), ("dog", "cat")) == ["a dog", "one dog", "a cat", "one cat"]


def test_any_text_may_surround_a_class():
    """Only ``{}`` is filled in: other braces are text."""
    assert fill(("{a} {} {0}",), ("dog",)) == ["{a} dog {0}"]


def test_equally_near_classes_score_chance():
    """Prompts that all embed alike score 1 / classes, whichever class is frequent."""
    same = np.ones((4, 1, 3))
    result = zero_shot(_unit(np.ones((6, 3))), same, np.array([0, 0, 0, 0, 0, 1]))
    assert result.score.value == pytest.approx(0.25)


def test_it_says_what_guessing_and_one_answer_would_give():
    """Chance is 1 / classes, majority the largest class's share."""
    result = zero_shot(np.eye(4), np.eye(4)[:, None, :], np.array([0, 1, 1, 1]))
    assert result.score.chance == 0.25
    assert result.majority == 0.75
    assert result.score.value == 0.5


def test_the_standard_error_is_that_of_repeated_test_sets():
    """The standard error matches the spread of the score over many simulated test sets."""
    rng = np.random.default_rng(2)
    hits = rng.random((4000, 200)) < 0.3
    spread = np.std(hits.mean(axis=1))
    assert Score.of(hits[0], 0.1).standard_error == pytest.approx(spread, rel=0.15)


def test_a_score_of_nothing_right_is_not_certain():
    """A score of 0 or 1 lies a finite number of standard errors from chance."""

    def above(hits):
        return errors_above(Score.of(np.array(hits, float), 0.1).as_dict(), 0.1)

    assert above([0] * 100) == pytest.approx(-0.1 / np.sqrt(0.1 * 0.9 / 100))
    assert above([1] * 10 + [0] * 90) == pytest.approx(0)
    assert 20 < above([1] * 100) < 40


def test_answers_that_go_together_are_fewer_errors_above_chance():
    """A score's own error counts, which by picture is larger than that of as many free answers."""
    hits, picture = np.repeat([1.0, 0], [240, 160]), np.repeat(np.arange(20), 20)
    free, together = Score.of(hits, 0.5), Score.clustered(hits, picture, 0.5)
    assert errors_above(free.as_dict(), 0.5) > 3
    assert errors_above(together.as_dict(), 0.5) < 1
