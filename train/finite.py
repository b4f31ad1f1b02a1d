"""A watch for losses that are no number, which never makes the host wait for the device."""

from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from breadth.loaders.errors import Failed

from .ranks import Ranks
from .recipe import TrainRecipe
from .schedule import learning_rate


class FiniteWatch:
    """Remembers on the device the first step whose loss or gradient was not finite.

    Looked at before anything is logged or saved, so that no later step can do harm.
    """

    def __init__(self, device: torch.device) -> None:
        self._first_2 = torch.full((2,), -1.0, dtype=torch.float32, device=device)
        self._uids: dict[int, list[str]] = {}

    def note(self, step: int, loss: Tensor, norms: Tensor, uids: list[str]) -> None:
        """Note a step's loss and gradient norms, and this rank's uids."""
        is_finite = loss.isfinite() & norms.isfinite().all()
        number = torch.full((), step, dtype=torch.float32, device=loss.device)
        is_first = ~is_finite & (self._first_2[0] < 0)
        now_2 = torch.stack([number, loss.float()])
        self._first_2 = torch.where(is_first, now_2, self._first_2)
        self._uids[step] = uids

    def look(self, recipe: TrainRecipe, ranks: Ranks, out: Path) -> None:
        """Raise Failed if there was such a step, with the whole batch's uids in a file."""
        step, loss = self._first_2.tolist()
        if step >= 0:
            uids = [uid for share in ranks.each(self._uids[int(step)]) for uid in share]
            ranks.first(partial(report_not_finite, recipe, int(step), loss, uids, out))
        self._uids.clear()


def report_not_finite(
    recipe: TrainRecipe, step: int, loss: float, uids: list[str], out: Path
) -> NoReturn:
    """Raise Failed; the batch's uids are in a file then, and the checkpoint stays as it is."""
    listed = out / "not_finite.txt"
    listed.write_text("\n".join(uids) + "\n", encoding="utf-8")
    raise Failed(
        f"loss or gradient is not finite at step {step + 1} (loss {loss:.4g},"
        f" learning rate {learning_rate(recipe, step):.3g}, uids of the batch from {uids[0]} on in"
        f" {listed}); the last checkpoint is kept: train again in another folder with a smaller lr"
    )
