"""Answer questions about pictures from frozen features, beside heads that cannot see the picture.

Each way of asking, a question's first two words, has a head of its own: a multinomial logistic
regression, so there is no learning rate and no seed. It is given the question's words, the leading
directions x of the picture's features and q of the words, and the products of q with x and with q:
so it can look at a picture for what the question asks. Source: the bilinear form is that of Fukui
et al. 2016 (arXiv 1606.01847), here without a sketch.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .probe import Linear, Split, fit, split_by_uid
from .questions import Question

# n pictures, m questions, D width of features, W words, F width of what a head is given

STRENGTHS = (0.003, 0.03, 0.3)
"""What the regularisation is chosen from, as a probe's."""
MOST_ANSWERS = 256
"""So many of the training questions' answers are classes, the frequent ones; others are misses."""
MOST_WORDS = 512
_PICTURE_WIDTH, _QUESTION_WIDTH = 64, 8
_TOLERANCE = 1e-3
_FEWEST = 10  # pictures in each part, and training questions of a way of asking


@dataclass(frozen=True)
class Answers:
    """What three heads answer to the questions about the test pictures; empty is no answer.

    ``shuffled_picture`` is the head of ``predicted`` shown the features of another test picture,
    ``shown``; ``question_only`` is a head of its own that was fitted without any.
    """

    asked: list[Question]
    predicted: list[str]
    question_only: list[str]
    shuffled_picture: list[str]
    shown: list[str]
    choices: dict[str, int]  # by kind: how many different answers the training questions have
    strengths: dict[str, float]  # by way of asking: of the head that sees


def answer(
    features_nD: np.ndarray, uids: Sequence[str], questions: Sequence[Question], seed: int = 0
) -> Answers | None:
    """Fit the heads on the questions about some pictures and ask them about the others.

    uids: of the n pictures; a question about another picture is left out. Pictures are split as
    a probe's pairs. ``seed`` draws which other picture is shown. None where a part has too few
    pictures or no question. Cost: eight regressions of [m, F] numbers for each way of asking, F
    at most about 1200: 3 s for 8000 questions of the world.
    """
    split = split_by_uid(list(uids))
    if min(len(split.train), len(split.validation), len(split.test)) < _FEWEST:
        return None
    place = {uid: row for row, uid in enumerate(uids)}
    asked = [question for question in questions if question.uid in place]
    about = np.array([place[question.uid] for question in asked], dtype=np.int64)
    rows = Split(*(np.flatnonzero(np.isin(about, part)) for part in vars(split).values()))
    if not all(map(len, vars(rows).values())):
        return None
    x = leading(features_nD, split.train, _PICTURE_WIDTH, scale=True)
    partner = deranged(split.test, len(uids), seed)[about]
    said = {head: [""] * len(asked) for head in HEADS}
    strengths = {}
    for way, own in ways_of_asking(asked, rows).items():
        known = np.concatenate([*vars(own).values()])
        found, strengths[way] = _ask(
            [asked[row] for row in known], _counted(own), x[about[known]], x[partner[known]]
        )
        for head, answers in found.items():
            for row, text in zip(own.test, answers, strict=True):
                said[head][row] = text
    training = [asked[row] for row in np.concatenate([rows.train, rows.validation])]
    return Answers(
        [asked[row] for row in rows.test],
        **{head: [answers[row] for row in rows.test] for head, answers in said.items()},
        shown=[uids[row] for row in partner[rows.test]],
        choices=_choices(training),
        strengths=strengths,
    )


HEADS = ("predicted", "question_only", "shuffled_picture")


def ways_of_asking(asked: Sequence[Question], rows: Split) -> dict[str, Split]:
    """Cut questions by their first two words.

    Ways with too few training or validation questions are taken together as "", and left out
    where that is too few still.
    """
    way = [" ".join(_words(question.question)[:2]) for question in asked]
    often = [Counter(way[row] for row in part) for part in (rows.train, rows.validation)]
    names = np.array([w if min(n[w] for n in often) >= _FEWEST else "" for w in way])
    cut = {
        str(name): Split(*(part[names[part] == name] for part in vars(rows).values()))
        for name in np.unique(names)
    }
    return {name: own for name, own in cut.items() if len(own.train) and len(own.validation)}


def _ask(
    asked: Sequence[Question], rows: Split, x_mX: np.ndarray, other_mX: np.ndarray
) -> tuple[dict[str, list[str]], float]:
    """Return by head the answers to the test questions of one way, and the strength."""
    training = [asked[row].answer for row in np.concatenate([rows.train, rows.validation])]
    names = frequent(training, MOST_ANSWERS)
    classes = {name: index for index, name in enumerate(names)}
    truth = np.array([classes.get(question.answer, -1) for question in asked])
    words = spelt([question.question for question in asked], rows.train)
    q = leading(words, rows.train, _QUESTION_WIDTH, scale=False)
    seen, unseen, test = joined(words, q, x_mX), joined(words, q, None), rows.test
    seeing, strength = _fit(seen, truth, len(names), rows)
    blind, _ = _fit(unseen, truth, len(names), rows)
    named = {
        "predicted": seeing.predict(seen[test]),
        "question_only": blind.predict(unseen[test]),
        "shuffled_picture": seeing.predict(joined(words[test], q[test], other_mX[test])),
    }
    return {head: [names[index] for index in found] for head, found in named.items()}, strength


def spelt(questions: Sequence[str], train: np.ndarray) -> np.ndarray:
    """Return which of the words of the training questions each question holds: [m, W] of 0, 1."""
    held = [set(_words(question)) for question in questions]
    known = frequent([word for row in train for word in sorted(held[row])], MOST_WORDS)
    column = {word: index for index, word in enumerate(known)}
    words_mW = np.zeros((len(held), len(known)))
    for row, words in enumerate(held):
        words_mW[row, [column[word] for word in words if word in column]] = 1
    return words_mW


def leading(values_nD: np.ndarray, train: np.ndarray, most: int, *, scale: bool) -> np.ndarray:
    """Project on the directions of most variance among the training rows: [n, min(most, D)].

    ``scale`` first brings every column to variance 1 there.
    """
    known = values_nD[train].astype(np.float64)
    mean, spread = known.mean(axis=0), known.std(axis=0)
    divisor = np.where(spread < 1e-8, 1, spread) if scale else np.ones_like(spread)
    centred = (known - mean) / divisor
    _, directions = np.linalg.eigh(centred.T @ centred)
    return (values_nD - mean) / divisor @ directions[:, ::-1][:, :most]


def joined(words_mW: np.ndarray, q_mQ: np.ndarray, x_mX: np.ndarray | None) -> np.ndarray:
    """Return what a head is given: words, x, and the products of q with q and x; [m, F].

    Without ``x`` it is what is left of it.
    """
    sides = q_mQ if x_mX is None else np.concatenate([q_mQ, x_mX], axis=1)
    products = (sides[:, :, None] * q_mQ[:, None, :]).reshape(len(words_mW), -1)
    return np.concatenate([words_mW, sides[:, q_mQ.shape[1] :], products], axis=1)


def deranged(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return for each of n pictures itself, but for those in ``rows`` another one of them.

    The others form one cycle, so that no picture stays and each is shown once.
    """
    order = np.random.default_rng(seed).permutation(rows)
    partner = np.arange(n)
    partner[order] = np.roll(order, -1)
    return partner


def frequent(values: Sequence[str], most: int) -> list[str]:
    """Return the most frequent values, sorted; of equally frequent ones the first in order."""
    counts = Counter(values)
    return sorted(sorted(counts, key=lambda value: (-counts[value], value))[:most])


def _fit(given: np.ndarray, truth: np.ndarray, classes: int, rows: Split) -> tuple[Linear, float]:
    """Fit a head of the strength that answers most of the validation questions rightly."""
    best, chosen, head = -1.0, STRENGTHS[0], None
    train = rows.train[truth[rows.train] >= 0]
    for strength in STRENGTHS:
        head = fit(given[train], truth[train], classes, strength, head, _TOLERANCE)
        hits = float((head.predict(given[rows.validation]) == truth[rows.validation]).mean())
        if hits > best:
            best, chosen = hits, strength
    both = np.concatenate([rows.train, rows.validation])
    both = both[truth[both] >= 0]
    return fit(given[both], truth[both], classes, chosen, head, _TOLERANCE), chosen


def _words(question: str) -> list[str]:
    return re.findall(r"\w+", question.lower())


def _counted(rows: Split) -> Split:
    """Number the rows of a split from 0, part by part."""
    ends = np.cumsum([0, *(len(part) for part in vars(rows).values())])
    return Split(*(np.arange(a, b) for a, b in pairwise(ends)))


def _choices(training: Sequence[Question]) -> dict[str, int]:
    answers: dict[str, set[str]] = {}
    for question in training:
        answers.setdefault(question.kind, set()).add(question.answer)
    return {kind: len(found) for kind, found in sorted(answers.items())}
