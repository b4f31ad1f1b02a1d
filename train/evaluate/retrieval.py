"""Find a picture's caption and a caption's pictures, where captions repeat.

A caption that several pictures share is right for all of them. So pictures are asked for one of
the *distinct* captions, and each distinct caption asks once and is answered by any of its
pictures. Ties count by expectation, as if broken at random: a model that gives every picture the
same vector scores exactly chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .score import Score

KS = (1, 5, 10)
_CHUNK = 1024  # queries at a time: 1024 x 50,000 similarities are 200 MB
_DIGITS = 6  # a matrix product gives equal vectors unequal last bits; what differs less is a tie


def retrieve(pictures: np.ndarray, captions: Sequence[str], vectors: np.ndarray) -> dict[str, Any]:
    """Score retrieval both ways at 1, 5 and 10.

    pictures: float [n, D]; captions: n of them; vectors: float [m, D], one for each of
    ``distinct(captions)`` in that order; rows of norm 1.
    """
    names, group = distinct(captions)
    each = np.arange(len(names))
    return {
        "picture_to_caption": recall(pictures, vectors, group, each),
        "caption_to_picture": recall(vectors, pictures, each, group),
    }


def distinct(captions: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the distinct captions, sorted, and the index of each caption among them."""
    names, group = np.unique(np.asarray(captions, dtype=object), return_inverse=True)
    return list(names), group


def recall(
    queries: np.ndarray, items: np.ndarray, query_group: np.ndarray, item_group: np.ndarray
) -> dict[str, Any]:
    """Return a score for each k; an item is right for a query of the same group."""
    right = np.bincount(item_group, minlength=int(query_group.max()) + 1)[query_group]
    hits = recall_hits(queries, items, query_group, item_group)
    scores = {
        f"R@{k}": Score.of(hits[:, column], float(chance_at(len(items), right, k).mean())).as_dict()
        for column, k in enumerate(KS)
    }
    return {"queries": len(queries), "items": len(items), **scores}


def recall_hits(
    queries: np.ndarray, items: np.ndarray, query_group: np.ndarray, item_group: np.ndarray
) -> np.ndarray:
    """Return the chance of each query to have a right item among its first k: [queries, KS]."""
    placed = place(queries, items, query_group, item_group)
    return np.stack(
        [recall_at(placed.above, placed.tied, placed.tied_right, k) for k in KS], axis=1
    )


def recall_at(above: np.ndarray, tied: np.ndarray, tied_right: np.ndarray, k: int) -> np.ndarray:
    """Return the chance of each query to have a right item among its first k, from its place."""
    return chance_at(tied, tied_right, np.maximum(k - above, 0))


@dataclass(frozen=True)
class Places:
    """Where each query's best right item stands: ints [queries].

    ``above`` items are nearer, ``tied`` ones (itself included) equally near, of which
    ``tied_right`` are right; ``first`` is the item that is nearest of all, of equal ones the
    first.
    """

    above: np.ndarray
    tied: np.ndarray
    tied_right: np.ndarray
    first: np.ndarray


def place(
    queries: np.ndarray, items: np.ndarray, query_group: np.ndarray, item_group: np.ndarray
) -> Places:
    """Find where each query's best right item stands; an item of the query's group is right.

    Cost: O(queries x items), a thousand queries at a time.
    """
    found = np.empty((4, len(queries)), np.int64)
    for start in range(0, len(queries), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity = np.round(queries[rows] @ items.T, _DIGITS)
        correct = query_group[rows, None] == item_group[None, :]
        best = np.where(correct, similarity, -np.inf).max(axis=1, keepdims=True)
        tied = similarity == best
        found[0, rows] = (similarity > best).sum(axis=1)
        found[1, rows] = tied.sum(axis=1)
        found[2, rows] = (tied & correct).sum(axis=1)
        found[3, rows] = similarity.argmax(axis=1)
    return Places(*found)


def chance_at(n: int | np.ndarray, right: int | np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """Return the probability that k of n items, drawn without return, hold one of the right ones.

    It is 1 - C(n - right, k) / C(n, k), as a product over the k draws.
    """
    n, right, k = np.broadcast_arrays(n, right, k)
    missed = np.ones(n.shape)
    for draw in range(int(k.max(initial=0))):
        left = np.maximum(n - draw, 1)
        step = np.clip((n - right - draw) / left, 0, 1)
        missed = np.where(draw < k, missed * step, missed)
    return 1 - missed
