"""Put what a run makes of its pairs in rows, one for each item that a score is made of."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from ..checkpoint import Run
from .captioning import chance_of_equal, first_named, plain
from .labels import EXACT, Task
from .neighbours import vote_of_nearest
from .pairs import Pairs
from .predictions import Predictions
from .probe import read_off, split_by_uid
from .questions import Question
from .retrieval import distinct, place, recall_at
from .vqa import answer
from .zero_shot import class_vectors, fill

FEWEST_TEST_PAIRS = 10


def items(
    run: Run, pairs: Pairs, tasks: Sequence[Task], questions: Sequence[Question], notes: list[str]
) -> Iterator[Predictions]:
    """Yield the items of every score that a run and its data admit.

    ``notes`` is told what could have been scored and was not.
    """
    if pairs.embedded is not None:
        if tasks:
            yield zero_shot_items(run, pairs.embedded, pairs, tasks)
        yield retrieval_items(run, pairs.embedded, pairs)
    yield from feature_items(pairs, tasks, notes)
    if questions:
        answered = answer_items(pairs, questions)
        if answered is None:
            notes.append("vqa: too few pictures with questions to split three ways")
        else:
            yield answered
    if pairs.descriptions is not None:
        yield description_items(pairs, pairs.descriptions, tasks)
    if pairs.caption_loss is not None:
        yield _losses("caption_loss", pairs.uids, pairs.caption_loss, "tokens")
    if pairs.masked_loss is not None:
        yield _losses("reconstruction", pairs.uids, pairs.masked_loss, "mean_patch_loss")


def zero_shot_items(
    run: Run, embedded: np.ndarray, pairs: Pairs, tasks: Sequence[Task]
) -> Predictions:
    """Name the nearest class of every labelled picture; a tie is a share of a hit."""
    parts, facts = [], {}
    for task in tasks:
        known = np.flatnonzero(pairs.labels[task.name] >= 0)
        labels = pairs.labels[task.name][known]
        prompts = run.embed_captions(fill(task.templates, task.classes))
        vectors = class_vectors(prompts.reshape(len(task.classes), len(task.templates), -1))
        found = place(embedded[known], vectors, labels, np.arange(len(task.classes)))
        hits = recall_at(found.above, found.tied, found.tied_right, 1)
        parts.append(_named(pairs, task, known, found.first, hits))
        facts[task.name] = {"classes": len(task.classes), "templates": len(task.templates)}
    return Predictions("zero_shot", pa.concat_tables(parts), facts)


def retrieval_items(run: Run, embedded: np.ndarray, pairs: Pairs) -> Predictions:
    """Find where each picture's best right caption stands, and each distinct caption's picture."""
    names, group = distinct(pairs.captions)
    vectors, each = run.embed_captions(names), np.arange(len(names))
    ways = {
        "picture_to_caption": (embedded, vectors, group, each, pairs.uids, names),
        "caption_to_picture": (vectors, embedded, each, group, [None] * len(names), pairs.uids),
    }
    parts, facts = [], {}
    for way, (queries, things, query_group, item_group, uids, said) in ways.items():
        found = place(queries, things, query_group, item_group)
        columns = {
            "uid": pa.array(uids, pa.string()),
            "way": [way] * len(queries),
            "truth": [names[index] for index in query_group],
            "predicted": [said[index] for index in found.first],
            "above": found.above,
            "tied": found.tied,
            "tied_right": found.tied_right,
            "right": np.bincount(item_group, minlength=len(names))[query_group],
            "hit": recall_at(found.above, found.tied, found.tied_right, 1),
        }
        parts.append(pa.table(columns))
        facts[way] = {"items": len(things)}
    return Predictions("retrieval", pa.concat_tables(parts), facts)


def feature_items(pairs: Pairs, tasks: Sequence[Task], notes: list[str]) -> Iterator[Predictions]:
    """Name the classes of the test pairs by a linear probe and by the nearest neighbours."""
    parts: dict[str, list[pa.Table]] = {"probe": [], "knn": []}
    facts: dict[str, dict] = {"probe": {}, "knn": {}}
    for task in tasks:
        known = np.flatnonzero(pairs.labels[task.name] >= 0)
        split = split_by_uid([pairs.uids[row] for row in known])
        if len(split.test) < FEWEST_TEST_PAIRS or not (len(split.validation) and len(split.train)):
            notes.append(
                f"probe and neighbours of {task.name}: too few labelled pairs to split three ways"
            )
            continue
        labels = pairs.labels[task.name][known]
        given = (pairs.features[known], labels, len(task.classes), split)
        shared = {
            "classes": len(task.classes),
            "train": len(split.train),
            "validation": len(split.validation),
        }
        for kind, option, (predicted, chosen) in (
            ("probe", "strength", read_off(*given)),
            ("knn", "k", vote_of_nearest(*given)),
        ):
            hits = (predicted == labels[split.test]).astype(np.float64)
            parts[kind].append(_named(pairs, task, known[split.test], predicted, hits))
            facts[kind][task.name] = {**shared, option: chosen}
    for kind, tables in parts.items():
        if tables:
            yield Predictions(kind, pa.concat_tables(tables), facts[kind])


def answer_items(pairs: Pairs, questions: Sequence[Question]) -> Predictions | None:
    """Answer the questions about the test pictures, by a head and by its two controls."""
    found = answer(pairs.features, pairs.uids, questions)
    if found is None:
        return None
    columns = {
        "uid": [question.uid for question in found.asked],
        "kind": [question.kind for question in found.asked],
        "question": [question.question for question in found.asked],
        "truth": [question.answer for question in found.asked],
        "predicted": found.predicted,
        "hit": [
            float(question.answer == said)
            for question, said in zip(found.asked, found.predicted, strict=True)
        ],
        "question_only": found.question_only,
        "shuffled_picture": found.shuffled_picture,
        "shown": found.shown,
    }
    return Predictions(
        "vqa", pa.table(columns), {"choices": found.choices, "strengths": found.strengths}
    )


def description_items(
    pairs: Pairs, descriptions: Sequence[str], tasks: Sequence[Task]
) -> Predictions:
    """Say of every description which class it names first, and whether it is the pair's caption.

    A class is asked for only where the pair's own caption names it first, too.
    """
    right = [plain(a) == plain(b) for a, b in zip(descriptions, pairs.captions, strict=True)]
    whole = {
        "uid": pairs.uids,
        "task": [EXACT] * len(pairs.uids),
        "truth": pairs.captions,
        "predicted": list(descriptions),
        "hit": np.array(right, np.float64),
    }
    parts, facts = [pa.table(whole)], {EXACT: {"chance": chance_of_equal(pairs.captions)}}
    for task in tasks:
        truth = pairs.labels[task.name]
        told = [first_named(caption, task.classes) for caption in pairs.captions]
        rows = np.array(
            [r for r, name in enumerate(told) if truth[r] >= 0 and name == task.classes[truth[r]]],
            np.int64,
        )
        named = [first_named(descriptions[row], task.classes) for row in rows]
        if len(rows):
            columns = {
                "uid": [pairs.uids[row] for row in rows],
                "task": [task.name] * len(rows),
                "truth": [told[row] for row in rows],
                "predicted": pa.array(named, pa.string()),
                "hit": np.array([a == told[r] for a, r in zip(named, rows, strict=True)], float),
            }
            parts.append(pa.table(columns))
            facts[task.name] = {"classes": len(task.classes)}
    return Predictions("captioning", pa.concat_tables(parts), facts)


def _named(
    pairs: Pairs, task: Task, rows: np.ndarray, predicted: np.ndarray, hits: np.ndarray
) -> pa.Table:
    columns = {
        "uid": [pairs.uids[row] for row in rows],
        "task": [task.name] * len(rows),
        "truth": [task.classes[index] for index in pairs.labels[task.name][rows]],
        "predicted": [task.classes[index] for index in predicted],
        "hit": hits,
    }
    return pa.table(columns, schema=_NAMED)


_NAMED = pa.schema(
    [
        *((name, pa.string()) for name in ("uid", "task", "truth", "predicted")),
        ("hit", pa.float64()),
    ]
)


def _losses(score: str, uids: list[str], losses_n2: np.ndarray, beside: str) -> Predictions:
    columns = {"uid": uids, "loss": losses_n2[:, 0], beside: losses_n2[:, 1]}
    return Predictions(score, pa.table(columns), {})
