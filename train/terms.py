"""The terms of an objective: pure functions of encoded views that return (sum, count).

Losses are sums with their counts, so that micro-batches and ranks add up exactly.
Shapes: B batch, E embedding, N patches, P values in a patch, M hidden tokens, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Views = dict[str, Tensor]
"""What the planned views gave, by name: see ``Model.forward``."""

Loss = Callable[[Views], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Term:
    """A loss and the views it looks at."""

    views: frozenset[str]
    loss: Loss


def info_nce(views: Views) -> tuple[Tensor, Tensor]:
    """Tell each pair's picture and caption from those of the other pairs, both ways.

    Source: Radford et al. 2021 (CLIP), figure 3.
    """
    logits_BB = views["logit_scale"].exp() * views["image"] @ views["text"].T
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    both = F.cross_entropy(logits_BB, own_B, reduction="sum") + F.cross_entropy(
        logits_BB.T, own_B, reduction="sum"
    )
    return both / 2, torch.tensor(len(logits_BB), device=logits_BB.device)


def pixels(views: Views) -> tuple[Tensor, Tensor]:
    """Predict the hidden patches: the mean squared error of each, visible ones left out.

    Source: He et al. 2021 (MAE), section 3.
    """
    hidden_BN = views["hidden_patches"]
    error_BN = (views["predicted_patches"] - views["target_patches"]).square().mean(dim=2)
    return torch.where(hidden_BN, error_BN, 0).sum(), hidden_BN.sum()


def tokens(views: Views) -> tuple[Tensor, Tensor]:
    """Predict the hidden caption tokens: cross-entropy over the vocabulary, in nats.

    Source: Geng et al. 2022 (M3AE), section 3; the views hold hidden positions only.
    """
    target_M = views["hidden_tokens"]
    loss = F.cross_entropy(views["token_logits"], target_M, reduction="sum")
    return loss, torch.tensor(len(target_M), device=target_M.device)


TERMS: Mapping[str, Term] = {
    "InfoNCE": Term(frozenset({"image", "text"}), info_nce),
    "Pixels": Term(frozenset({"masked image"}), pixels),
    "Tokens": Term(frozenset({"masked text"}), tokens),
}


def plan_views(weights: Mapping[str, float]) -> frozenset[str]:
    """Return the views that the terms need, each once; weight 0 needs none."""
    return frozenset().union(*(TERMS[name].views for name, weight in weights.items() if weight))


def evaluate_terms(weights: Mapping[str, float], views: Views) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted total and each term's own mean."""
    means = {}
    for name, weight in weights.items():
        if weight:
            total, count = TERMS[name].loss(views)
            means[name] = total / count.clamp(min=1)
    return torch.stack([weights[name] * mean for name, mean in means.items()]).sum(), means
