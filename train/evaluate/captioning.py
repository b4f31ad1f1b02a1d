"""Judge descriptions of pictures by the names they use, not by how alike the words are."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np


def first_named(text: str, names: Sequence[str]) -> str | None:
    """Return the name that a text uses first, of names at one place the longest, else None.

    A scene's caption names its main object before all others.
    """
    longest_first = sorted(names, key=len, reverse=True)
    words = "|".join(re.escape(name.lower()) for name in longest_first)
    found = re.search(rf"(?<!\w)(?:{words})(?!\w)", text.lower())
    if found is None:
        return None
    return next(name for name in longest_first if name.lower() == found[0])


def plain(text: str) -> str:
    """Return a caption in lower case with single spaces, as captions are compared."""
    return " ".join(text.lower().split())


def chance_of_equal(captions: Sequence[str]) -> float:
    """Return how often a caption equals that of a picture drawn from the same ones."""
    counts = np.array(list(Counter(map(plain, captions)).values()))
    return float(((counts / len(captions)) ** 2).sum())
