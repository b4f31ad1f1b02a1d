"""What an X-Robots-Tag header forbids, and to whom."""

import re
from collections.abc import Iterable, Sequence

_WITH_VALUE = ("max-", "unavailable_after")  # max-snippet, max-image-preview, max-video-preview
_PIECE = re.compile(r"[,;]")


def forbidden_by(
    headers: Iterable[tuple[str, str]], token: str, directives: Sequence[str]
) -> str | None:
    """Return the first header with one of ``directives`` for all or for ``token``, else None.

    Header names are in lower case. It is returned as it came, as evidence:
    "X-Robots-Tag: noarchive, noai".
    """
    for name, value in headers:
        if name == "x-robots-tag" and _forbids(value, token.lower(), directives):
            return f"X-Robots-Tag: {value.strip()}"
    return None


def _forbids(value: str, token: str, directives: Sequence[str]) -> bool:
    """Read one header: an agent's name and a colon hold for what follows, to the next name."""
    forbidding = {directive.lower() for directive in directives}
    if forbidding & {"noindex", "nofollow"}:
        forbidding.add("none")  # which is short for these two
    ours = True
    for piece in _PIECE.split(value.lower()):
        words = set(piece.replace(":", " ").split())
        head, colon, _ = piece.partition(":")
        if colon and head.strip().startswith(_WITH_VALUE):
            words.discard("none")  # a value: max-image-preview: none
        if colon and _is_agent(head.strip(), forbidding):
            ours = head.strip() in ("", "*") or head.partition("/")[0].strip() == token
        if ours and not forbidding.isdisjoint(words):
            return True
    return False


def _is_agent(head: str, forbidding: set[str]) -> bool:
    """Tell an agent from a directive that has a value, and from a date that has a comma.

    unavailable_after: Friday, 25-Jun-10 15:00:00 PST
    """
    return not (head.startswith(_WITH_VALUE) or head[:1].isdigit() or head in forbidding)
