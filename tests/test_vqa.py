"""Answers to questions about pictures against heads that cannot know them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from breadth.train.evaluate import vqa
from breadth.train.evaluate.probe import Split, fit, split_by_uid
from breadth.train.evaluate.questions import Question
from breadth.train.evaluate.vqa import answer, deranged, joined, leading, ways_of_asking

COLOURS = ("red", "green", "blue")


def _world(n, seed=0, noise=0.3):
    """Pictures with a colour on the left and one on the right, and a question about each."""
    rng = np.random.default_rng(seed)
    uids = [rng.bytes(16).hex() for _ in range(n)]
    sides = rng.integers(3, size=(n, 2))
    features = np.concatenate([np.eye(3)[sides[:, 0]], np.eye(3)[sides[:, 1]]], axis=1)
    features += noise * rng.normal(size=features.shape)
    questions = []
    for uid, pair in zip(uids, sides, strict=True):
        for side, colour in zip(("left", "right"), pair, strict=True):
            asked = f"what colour is on the {side}?"
            questions.append(Question(uid, asked, COLOURS[colour], "colour"))
        yes = "yes" if pair[0] == pair[1] else "no"
        questions.append(Question(uid, "are they equal?", yes, "equal"))
    return features, uids, questions


def _share(found, kind, said):
    pairs = zip(found.asked, getattr(found, said), strict=True)
    return np.mean([q.answer == name for q, name in pairs if q.kind == kind])


def test_the_question_tells_where_to_look():
    """One way of asking about two places is answered from the place that the question names."""
    found = answer(*_world(400))
    assert _share(found, "colour", "predicted") > 0.97
    assert abs(_share(found, "colour", "question_only") - 1 / 3) < 0.15
    assert abs(_share(found, "colour", "shuffled_picture") - 1 / 3) < 0.15
    assert found.choices == {"colour": 3, "equal": 2}


def test_pictures_that_know_nothing_beat_no_control():
    """With features of other pictures the head answers no better than without any."""
    features, uids, questions = _world(600)
    found = answer(np.random.default_rng(5).normal(size=features.shape), uids, questions)
    assert abs(_share(found, "colour", "predicted") - 1 / 3) < 0.13
    most = Counter(q.answer for q in found.asked if q.kind == "equal").most_common(1)[0][1]
    majority = most / sum(q.kind == "equal" for q in found.asked)
    assert _share(found, "equal", "predicted") <= majority + 0.02


def test_the_question_only_head_learns_what_questions_give_away():
    """Answers that a word decides are known without the picture, and by the shuffled one too."""
    features, uids, questions = _world(200)
    features = np.random.default_rng(0).normal(size=features.shape)
    hint = [replace(q, question=q.question + f" {q.answer}") for q in questions]
    found = answer(features, uids, hint)
    for said in vqa.HEADS:
        assert _share(found, "colour", said) > 0.98


def test_the_question_only_head_sees_no_picture():
    """Its answers stay the same whatever the features are."""
    features, uids, questions = _world(200)
    other = np.random.default_rng(1).normal(size=(200, 9))
    assert (
        answer(features, uids, questions).question_only
        == answer(other, uids, questions).question_only
    )


def test_only_questions_on_unseen_pictures_are_scored():
    """The scored pictures are the split's test rows, and their answers change no head."""
    features, uids, questions = _world(200)
    found = answer(features, uids, questions)
    test = {uids[row] for row in split_by_uid(uids).test}
    assert {q.uid for q in found.asked} == test
    other = [replace(q, answer="red") if q.uid in test else q for q in questions]
    assert answer(features, uids, other).predicted == found.predicted


def test_the_shuffled_picture_is_the_same_head_before_another_picture():
    """Each shuffled answer is that which the head gives for the picture that was shown."""
    features, uids, questions = _world(200)
    found = answer(features, uids, questions, seed=3)
    said = dict(zip(((q.uid, q.question) for q in found.asked), found.predicted, strict=True))
    rows = zip(found.asked, found.shown, found.shuffled_picture, strict=True)
    assert all(said[shown, q.question] == shuffled for q, shown, shuffled in rows)
    assert all(q.uid != shown for q, shown in zip(found.asked, found.shown, strict=True))


def test_equal_inputs_give_equal_answers():
    """Nothing is drawn but the shuffled pictures, and those by the seed."""
    world = _world(150, noise=1.0)
    assert answer(*world) == answer(*world)
    other = answer(*world, seed=1)
    assert other.shown != answer(*world).shown
    assert other.predicted == answer(*world).predicted


@pytest.mark.parametrize("seed", range(5))
def test_a_derangement_moves_every_picture_among_the_given(seed):
    """No given picture stays, each is shown once, and the rest keep their own."""
    rows = np.array([1, 4, 5, 7, 11])
    partner = deranged(rows, 12, seed)
    assert (partner[rows] != rows).all()
    assert sorted(partner[rows]) == rows.tolist()
    others = np.setdiff1d(np.arange(12), rows)
    assert (partner[others] == others).all()


def test_the_head_is_scikit_learns_on_what_it_is_given():
    """On words and products the head's weights are those of a logistic regression."""
    rng = np.random.default_rng(2)
    words = (rng.random((150, 4)) < 0.5).astype(float)
    q, x = rng.normal(size=(150, 2)), rng.normal(size=(150, 3))
    given, labels = joined(words, q, x), rng.integers(3, size=150)
    assert given.shape == (150, 4 + 3 + 2 * 5)
    for row in range(3):
        products = [a * b for a in [*q[row], *x[row]] for b in q[row]]
        assert np.allclose(given[row], [*words[row], *x[row], *products])
    ours = fit(given, labels, 3, 0.1, tolerance=1e-8)
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(given, labels)
    assert np.allclose(ours.weights_DC, theirs.coef_.T, atol=1e-4)


def test_leading_directions_are_those_of_the_covariance():
    """Projections equal numpy's SVD of the standardised training rows, up to sign."""
    values = np.random.default_rng(3).normal(size=(90, 6)) * [5, 1, 3, 0.2, 1, 2] + 4
    train = np.arange(60)
    found = leading(values, train, 3, scale=True)
    standard = (values - values[train].mean(0)) / values[train].std(0)
    *_, directions = np.linalg.svd(standard[train], full_matrices=False)
    assert np.allclose(np.abs(found), np.abs(standard @ directions[:3].T))


def test_rare_ways_of_asking_share_a_head():
    """Ways with enough questions stand alone, the others together, too few of them not at all."""
    rows = Split(np.arange(0, 60), np.arange(60, 100), np.arange(100, 120))
    asked = [
        Question(str(i), "is it?" if i % 2 else f"how x{i} is it?", "a", "k") for i in range(120)
    ]
    cut = ways_of_asking(asked, rows)
    assert set(cut) == {"", "is it"}
    assert cut["is it"].test.tolist() == list(range(101, 120, 2))
    train = [asked[row].question for row in cut[""].train]
    assert len(train) == 30 and all(question.startswith("how") for question in train)


def test_too_few_pictures_have_no_score():
    """A handful of pictures is not split three ways, nor are pictures nobody asks about."""
    features, uids, questions = _world(20)
    assert answer(features, uids, questions) is None
    features, uids, _ = _world(200, seed=1)
    assert answer(features, uids, questions) is None
