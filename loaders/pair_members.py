"""Join the members of a tar to pairs by their key, and say which pairs damage has touched."""

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise

from .tar import Walk
from .tar_header import MEMBER_BYTES

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
"""Members that count as a pair's picture."""

_KINDS = dict.fromkeys(IMAGE_EXTENSIONS, "picture") | {"txt": "caption", "json": "json"}


@dataclass(slots=True)
class PairMembers:
    """Where the members of a pair are (extension -> first byte, length), and what is wrong."""

    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    damage: str | None = None

    def kinds(self) -> set[str]:
        """Return what the pair has of picture, caption and json."""
        return {_KINDS[extension] for extension in self.members}


def joined(found: Walk) -> dict[str, PairMembers]:
    """Return the pairs of a tar by key, in order; other members than theirs are passed over."""
    pairs: dict[str, PairMembers] = {}
    keys: list[str] = []
    for name, begin, length in zip(found.names, found.begins, found.lengths, strict=True):
        key, extension = split_name(name)
        keys.append(key)
        if not key:
            continue
        pair = pairs.get(key)
        if pair is None:
            pair = pairs[key] = PairMembers()
        if extension in pair.members:
            pair.damage = f"its {extension} comes twice"
        elif extension in _KINDS and length > MEMBER_BYTES:
            pair.damage = f"its {extension} has {length:,} bytes, over {MEMBER_BYTES:,}"
        elif extension in _KINDS:
            pair.members[extension] = (begin, length)
    if found.gaps:
        _mark(found, keys, pairs)
    return pairs


def split_name(name: str) -> tuple[str, str]:
    """Return a member's key and extension by WebDataset's rule: cut at the first dot, if any.

    >>> split_name("a/b.seg.PNG")
    ('a/b', 'seg.png')
    """
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot else ("", "")


def _mark(found: Walk, keys: list[str], pairs: dict[str, PairMembers]) -> None:
    """Say of every pair that gaps touch what they did to it."""
    places = [place for place, key in enumerate(keys) if key]
    beside: dict[str, str] = {}  # pairs that may have lost a member, and why
    for gap in found.gaps:
        why = f"{gap.why} at byte {gap.begin}"
        at = bisect_left(places, gap.place)
        beside |= {keys[place]: why for place in places[max(at - 1, 0) : at + 1]}
        key, extension = split_name(gap.name)
        if key and extension in _KINDS:
            pairs.setdefault(key, PairMembers()).damage = f"its {extension}: {why}"
    if sum(keys[a] != keys[b] for a, b in pairwise(places)) > 1.5 * len(pairs):
        beside = dict.fromkeys(pairs, "damage elsewhere") | beside  # pairs' members lie apart
    whole = [pair for key, pair in pairs.items() if key not in beside and not pair.damage]
    usual = _usual_kinds(whole)
    for key, why in beside.items():
        lacking = usual - pairs[key].kinds()
        if lacking and not pairs[key].damage:
            pairs[key].damage = f"its {' and '.join(sorted(lacking))} may be lost: {why}"


def _usual_kinds(pairs: list[PairMembers]) -> set[str]:
    """Return the kinds of member that most pairs have; all kinds where there is no pair to ask."""
    kinds = [pair.kinds() for pair in pairs]
    return {k for k in set(_KINDS.values()) if 2 * sum(k in has for has in kinds) >= len(kinds)}
