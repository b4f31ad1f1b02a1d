"""The gradient of one batch, exact however it is cut into micro-batches and over ranks.

Terms that compare pairs need the embeddings of all of them at once. Cut into micro-batches, these
are computed first without a graph, the gradient of the loss on them is taken, and each
micro-batch is then encoded once more to carry it on. Source: Gao et al. 2021 (GradCache).
"""

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .inputs import Inputs
from .model import EMBEDDINGS
from .objective import Weighted
from .ranks import ALONE, Ranks
from .recipe import TrainRecipe
from .terms import Views

SCALARS = ("logit_scale", "logit_bias")
ROWS = (*EMBEDDINGS, "caption_group")


@dataclass(frozen=True)
class Step:
    """How gradients are taken: ``model`` may be wrapped by an engine that averages over ranks."""

    recipe: TrainRecipe
    model: nn.Module
    device: torch.device
    ranks: Ranks = ALONE
    numbers: Sequence[nn.Parameter] = ()  # parameters that the engine leaves to us

    def backward(self, inputs: Inputs, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Add the gradient of the weighted sum of term means; return the means over all ranks."""
        size = self.recipe.micro_batch_pairs or len(inputs.tokens_BT)
        size = max(1, min(size // self.ranks.world, len(inputs.tokens_BT)))
        starts = range(0, len(inputs.tokens_BT), size)
        padded = self.recipe.compiled
        parts = [inputs.part(at, at + size).on(self.device, padded=padded) for at in starts]
        counts = self._counts(parts)
        # An engine averages over ranks what is to be summed.
        scale = {n: w * self.ranks.world / counts[n] for n, w in weights.items()}
        sums = self._whole(parts[0], scale) if len(parts) == 1 else self._cached(parts, scale)
        for number in self.numbers:
            if number.grad is not None:
                number.grad = self.ranks.total(number.grad) / self.ranks.world
        return {name: self.ranks.total(total) / counts[name] for name, total in sums.items()}

    def _counts(self, parts: list[Inputs]) -> dict[str, Tensor]:
        objective = self.recipe.objective
        counts = torch.stack(
            [
                torch.stack([w.term.count(part.known) for part in parts]).sum()
                for w in objective.values()
            ]
        )
        return dict(zip(objective, self.ranks.total(counts).clamp(min=1), strict=True))

    def _whole(self, part: Inputs, scale: Mapping[str, Tensor]) -> dict[str, Tensor]:
        views = self._encode(part)
        coupled, weighted, used = self._losses(self._gathered(views), scale, coupled=True)
        alone, weighted_alone, used_alone = self._losses(views, scale, coupled=False)
        _back(weighted + weighted_alone + _nothing(views, used | used_alone))
        return self._in_order(coupled | alone)

    def _cached(self, parts: list[Inputs], scale: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        leaves: Views = {}
        if any(w.term.coupled for w in self.recipe.objective.values()):
            with torch.no_grad():
                leaves = _leaves([self._encode(part, self._bare) for part in parts])
            sums, weighted, _ = self._losses(self._gathered(leaves), scale, coupled=True)
            _back(weighted)
            leaves = {name: leaf for name, leaf in leaves.items() if leaf.grad is not None}
        at = 0
        for number, part in enumerate(parts):
            is_last, rows = number == len(parts) - 1, slice(at, at + len(part.tokens_BT))
            with nullcontext() if is_last else self._unsynchronised():
                views = self._encode(part)
                alone, weighted, used = self._losses(views, scale, coupled=False)
                weighted = weighted + _carried(views, leaves, rows, is_last)
                _back(weighted + _nothing(views, used | leaves.keys()))
            for name, total in alone.items():
                sums[name] = sums.get(name, 0) + total
            at = rows.stop
        return self._in_order(sums)

    def _encode(self, part: Inputs, model: nn.Module | None = None) -> Views:
        """Encode a part; whatever the precision of the towers, losses are in float32 at least."""
        views: Views
        encode = model or self.model
        if self.recipe.precision == "float32":
            views = encode(part)
            return views
        with torch.autocast(self.device.type, torch.bfloat16):
            views = encode(part)
        return {k: v.float() if v.is_floating_point() else v for k, v in views.items()}

    def _losses(
        self, views: Views, scale: Mapping[str, Tensor], *, coupled: bool
    ) -> tuple[dict[str, Tensor], Tensor, set[str]]:
        """Return the sums of one kind of terms, their weighted sum with a graph, and what it used.

        The sums themselves have no graph.
        """
        sums, weighted, used = {}, torch.zeros((), device=self.device), set()
        for name, entry in self.recipe.objective.items():
            if entry.term.coupled == coupled:
                watched = _Watched(views)
                total, _ = entry.term.loss(watched)
                sums[name] = total.detach()
                if name in scale:
                    weighted = weighted + scale[name] * total
                    used |= watched.used
        return sums, weighted, used

    def _gathered(self, views: Views) -> Views:
        """Set the embeddings of all ranks beside this rank's."""
        every = {f"all_{name}": self.ranks.gather(views[name]) for name in ROWS if name in views}
        first = self.ranks.rank * len(views["caption_group"])
        return {**views, **every, "first": torch.full((), first, device=self.device)}

    @property
    def _bare(self) -> nn.Module:
        bare: nn.Module = getattr(self.model, "module", self.model)
        return bare

    def _unsynchronised(self) -> AbstractContextManager[None]:
        no_sync = getattr(self.model, "no_sync", nullcontext)
        context: AbstractContextManager[None] = no_sync()
        return context

    def _in_order(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: sums[name] for name in self.recipe.objective}


def weights_at(
    objective: Mapping[str, Weighted], share: float, units: Mapping[str, float]
) -> dict[str, float]:
    """Return what each term's mean is multiplied by after a share of the steps.

    ``units`` are the lengths that "gradient" weights are given in, by term.
    """
    return {name: entry.at(share) * units.get(name, 1.0) for name, entry in objective.items()}


def _back(total: Tensor) -> None:
    """Take the gradient, unless nothing that was weighted has one."""
    if total.requires_grad:
        total.backward()


def _leaves(parts: list[Views]) -> Views:
    """Join the parts' embeddings and make them, and what scales them, the leaves of a graph."""
    joined = {name: torch.cat([p[name] for p in parts]) for name in ROWS if name in parts[0]}
    joined |= {name: parts[0][name].detach().clone() for name in SCALARS if name in parts[0]}
    return {n: v.requires_grad_() if v.is_floating_point() else v for n, v in joined.items()}


def _carried(views: Views, leaves: Views, rows: slice, is_last: bool) -> Tensor:
    """Return a number whose gradient is that of the coupled terms, by way of this part."""
    total = torch.zeros((), device=views["pairs"].device)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        if name in EMBEDDINGS:
            total = total + (views[name] * leaf.grad[rows]).sum()
        elif is_last:
            total = total + views[name] * leaf.grad
    return total


class _Watched(dict[str, Tensor]):
    """Views that remember which of them were used."""

    def __init__(self, views: Views) -> None:
        super().__init__(views)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.used.add(name.removeprefix("all_"))
        return super().__getitem__(name)


def _nothing(views: Views, used: Set[str]) -> Tensor:
    """Return 0 with a graph to the views that no term used.

    An engine waits for the gradient of every parameter behind what the model gave.
    """
    total = torch.zeros((), device=views["pairs"].device)
    for name, view in views.items():
        if view.requires_grad and name not in used:
            total = total + 0 * view.sum()
    return total
