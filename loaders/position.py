"""Where a stream is, as a small JSON that holds for any number of ranks, workers and batch size."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import OutputError
from .plan import Order

if TYPE_CHECKING:
    from .folder import Folder

STATE_VERSION = 2

_WHAT = {
    "data": "the data changed: its digest was {was} and is {now}",
    "subset": "the subset changed: it was {was} and is {now}",
    "weights": "the weights changed: they were {was} and are {now}",
    "order": "the order changed: it was {was} and is {now}",
    "noise": "the caption noise changed: it was of {was} pairs and is of {now}",
}
_UNSAID = {"noise": 0}
"""What a state has that does not say it."""


def make_state(order: Order, position: int, noise: int = 0) -> dict[str, Any]:
    """Return the state of a stream that has yielded the positions below ``position``.

    ``noise`` is how many captions are exchanged. It is under 200 bytes as JSON and equal on all
    ranks.
    """
    noisy = {"noise": noise} if noise else {}
    return {"v": STATE_VERSION, **order.identity, **noisy, "position": position}


def differences(state: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Say in one line in what two states are of unlike streams; empty where they are not."""
    if state.get("v") != mine["v"]:
        return f"it has version {state.get('v')} and this Breadth writes {mine['v']}"
    return "; ".join(
        text.format(was=was, now=now)
        for key, text in _WHAT.items()
        if (was := state.get(key, _UNSAID.get(key))) != (now := mine.get(key, _UNSAID.get(key)))
    )


def position_in(state: Mapping[str, Any], order: Order, noise: int = 0) -> int:
    """Return the position of a state; raises OutputError where it is of another stream."""
    wrong = differences(state, make_state(order, 0, noise))
    if wrong:
        raise OutputError(
            f"this stream cannot go on from that state: {wrong}; "
            "give the same data, subset, weights, shuffle, noise and seed, or start anew"
        )
    position = state.get("position")
    if not isinstance(position, int) or isinstance(position, bool) or position < 0:
        raise OutputError(f"that state is damaged: its position is {position!r}; start anew")
    return position


def lineage(order: Order, folder: "Folder", step: int, batch_pairs: int) -> list[str]:
    """Return the uids that are planned for global batch ``step`` (from 0), over all ranks.

    Batches are counted from position 0: it holds for a stream whose ``batch_pairs`` never changed.
    """
    rows = order.rows(step * batch_pairs, (step + 1) * batch_pairs)
    return folder.uids_of(rows)
