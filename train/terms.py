"""The terms of an objective: pure functions of encoded views that return (sum, count).

Losses are sums with their counts, so that micro-batches and ranks add up exactly. A term of your
own is one class like these in a file of yours, named in a recipe as ``"package.module:Class" = 1``.
Shapes: b pairs of this rank, B pairs of all, E embedding, N patches, P values in a patch, M
caption tokens, V vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

Views = dict[str, Tensor]
"""What the planned views gave, by name: see ``Model.forward``."""

VIEWS = frozenset(
    {"image", "text", "caption", "masked image", "masked text", "corrupted text", "two crops"}
)
"""What a term may ask to be encoded."""

EQUAL_CAPTIONS = "equal_captions must be negative or ignored"
IGNORED = -100
"""The target of a place that is no token: padding that keeps shapes equal."""


@dataclass(frozen=True)
class Term(ABC):
    """A loss, the views it looks at, and whether it compares pairs with each other.

    Its fields are its options in a recipe. A ``coupled`` term gets the embeddings of all ranks as
    ``all_<name>`` beside this rank's own, which are rows ``first`` to ``first + b`` of them; any
    other term is given micro-batches.
    """

    coupled: ClassVar[bool] = False

    @property
    @abstractmethod
    def views(self) -> frozenset[str]:
        """The names of the views it needs."""

    @abstractmethod
    def loss(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the sum over this rank's pairs, patches or tokens, and how many they are."""

    def count(self, views: Views) -> Tensor:
        """Return the count alone, from what is known before anything is encoded."""
        return views["pairs"]


@dataclass(frozen=True)
class InfoNCE(Term):
    """Tell each pair's picture and caption from those of the other pairs, both ways.

    Source: Radford et al. 2021 (CLIP), figure 3; ``label_smoothing`` Jia et al. 2021 (ALIGN).
    ``equal_captions`` "negative" takes another pair with the same caption for a wrong answer as
    CLIP does, "ignored" leaves it out.
    """

    label_smoothing: float = 0.0
    equal_captions: str = "negative"

    coupled = True
    views = frozenset({"image", "text"})

    def __post_init__(self) -> None:
        """Refuse options that no loss has."""
        check(0 <= self.label_smoothing < 1, "label_smoothing must be at least 0 and below 1")
        check(self.equal_captions in ("negative", "ignored"), EQUAL_CAPTIONS)

    def loss(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return half the cross-entropies of pictures and of captions; the count is b."""
        scale, own_b = views["logit_scale"].exp(), own_rows(views, views["image"])
        picture_asks = self._one_way(scale * views["image"] @ views["all_text"].T, own_b, views)
        caption_asks = self._one_way(scale * views["text"] @ views["all_image"].T, own_b, views)
        return (picture_asks + caption_asks) / 2, own_b.new_full((), len(own_b))

    def _one_way(self, logits_bB: Tensor, own_b: Tensor, views: Views) -> Tensor:
        if self.equal_captions == "ignored":
            group_b, group_B = views["caption_group"], views["all_caption_group"]
            rows = torch.arange(logits_bB.shape[1], device=own_b.device)
            equal_bB = (group_b[:, None] == group_B) & (own_b[:, None] != rows)
            logits_bB = logits_bB.masked_fill(equal_bB, -torch.inf)
        return smoothed_cross_entropy(logits_bB, own_b, self.label_smoothing)


def smoothed_cross_entropy(logits_bB: Tensor, own_b: Tensor, smoothing: float) -> Tensor:
    """Return the summed cross-entropy with smoothed labels; answers at minus infinity get none."""
    if not smoothing:
        return F.cross_entropy(logits_bB, own_b, reduction="sum")
    log_p_bB = logits_bB.log_softmax(dim=1)
    possible_bB = logits_bB > -torch.inf
    evenly_b = torch.where(possible_bB, log_p_bB, 0).sum(dim=1) / possible_bB.sum(dim=1)
    right_b = log_p_bB.gather(1, own_b[:, None])[:, 0]
    return -((1 - smoothing) * right_b + smoothing * evenly_b).sum()


@dataclass(frozen=True)
class Sigmoid(Term):
    """Say of every picture with every caption whether they are a pair, each by itself.

    Source: Zhai et al. 2023 (SigLIP), section 3.2.
    """

    coupled = True
    views = frozenset({"image", "text"})

    def loss(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the sum over b pictures and B captions; the count is b."""
        logits_bB = views["logit_scale"].exp() * views["image"] @ views["all_text"].T
        own_b = own_rows(views, views["image"])
        signs_bB = torch.full_like(logits_bB, -1).scatter(1, own_b[:, None], 1.0)
        total = -F.logsigmoid(signs_bB * (logits_bB + views["logit_bias"])).sum()
        return total, own_b.new_full((), len(own_b))


@dataclass(frozen=True)
class NTXent(Term):
    """Tell the other crop of the same picture from all crops of the others.

    Source: Chen et al. 2020 (SimCLR), equation 1; beside InfoNCE it is SLIP (Mu et al. 2021).
    """

    temperature: float = 0.1

    coupled = True
    views = frozenset({"two crops"})

    def __post_init__(self) -> None:
        """Refuse options that no loss has."""
        check(self.temperature > 0, "temperature must be above 0")

    def loss(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the sum over 2b crops; the count is 2b."""
        every_2BE = torch.cat([views["all_crop_1"], views["all_crop_2"]])
        own_b, pairs = own_rows(views, views["crop_1"]), len(views["all_crop_1"])
        total = torch.zeros((), device=own_b.device, dtype=every_2BE.dtype)
        for name, self_b, other_b in (
            ("crop_1", own_b, own_b + pairs),
            ("crop_2", own_b + pairs, own_b),
        ):
            logits_b2B = views[name] @ every_2BE.T / self.temperature
            logits_b2B = logits_b2B.scatter(1, self_b[:, None], -torch.inf)  # itself is no answer
            total = total + F.cross_entropy(logits_b2B, other_b, reduction="sum")
        return total, own_b.new_full((), 2 * len(own_b))

    def count(self, views: Views) -> Tensor:
        """Count crops."""
        return 2 * views["pairs"]


@dataclass(frozen=True)
class Pixels(Term):
    """Predict the hidden patches: the mean squared error of each, visible ones left out.

    Source: He et al. 2021 (MAE), section 3.
    """

    views = frozenset({"masked image"})

    def loss(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the sum over hidden patches, and their number."""
        error_bN = (views["predicted_patches"] - views["target_patches"]).square().mean(dim=2)
        return torch.where(views["hidden_patches"], error_bN, 0).sum(), self.count(views)

    def count(self, views: Views) -> Tensor:
        """Count hidden patches."""
        return views["hidden_patches"].sum()


@dataclass(frozen=True)
class Tokens(Term):
    """Predict the hidden caption tokens: cross-entropy over the vocabulary, in nats.

    ``masking`` "dropped" hides tokens from the tower and asks the decoder, after Geng et al. 2022
    (M3AE), section 3; "corrupted" shows the tower 80 % of them as [MASK], 10 % as another token
    and 10 % as they are, after Devlin et al. 2018 (BERT), section 3.1. The share that is hidden is
    the recipe's ``text_mask``.
    """

    masking: str = "dropped"

    def __post_init__(self) -> None:
        """Refuse options that no loss has."""
        check(self.masking in ("dropped", "corrupted"), "masking must be dropped or corrupted")

    @property
    def views(self) -> frozenset[str]:
        """The masked captions, or the corrupted ones."""
        return frozenset({"masked text" if self.masking == "dropped" else "corrupted text"})

    def loss(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the sum over hidden tokens, and their number."""
        return summed_cross_entropy(views["token_logits"], views["hidden_tokens"])

    def count(self, views: Views) -> Tensor:
        """Count hidden tokens."""
        return (views["hidden_tokens"] != IGNORED).sum()


@dataclass(frozen=True)
class Caption(Term):
    """Write the caption: each next token from those before it and the picture, in nats.

    Source: Yu et al. 2022 (CoCa), section 3.2.
    """

    views = frozenset({"image", "text", "caption"})

    def loss(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the sum over the tokens after the first, and their number."""
        return summed_cross_entropy(views["caption_logits"], views["caption_targets"])

    def count(self, views: Views) -> Tensor:
        """Count the tokens that are to be written."""
        return (views["caption_targets"] != IGNORED).sum()


def summed_cross_entropy(logits_MV: Tensor, target_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of the places that have a target, and how many they are."""
    total = F.cross_entropy(logits_MV, target_M, reduction="sum", ignore_index=IGNORED)
    return total, (target_M != IGNORED).sum()


def check(holds: bool, rule: str) -> None:
    """Raise ValueError with the rule unless it holds."""
    if not holds:
        raise ValueError(rule)


def own_rows(views: Views, own_bE: Tensor) -> Tensor:
    """Return where this rank's pairs are among all: int64 [b]."""
    return torch.arange(len(own_bE), device=own_bE.device) + views["first"]


TERMS: dict[str, type[Term]] = {
    term.__name__: term for term in (InfoNCE, Sigmoid, NTXent, Pixels, Tokens, Caption)
}
