"""Which tokens a masked view hides: the tower gets the visible ones, the decoder puts them back.

Shapes: B batch, L positions (patches or caption tokens), K kept by the tower, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from breadth.loaders.tokenize import MASK, PAD


class Mask(NamedTuple):
    """One view's mask, made of random numbers by ``hide_patches`` or ``hide_tokens``.

    ``keep_BK`` are the positions the tower is given; ``seen_BK`` is False in slots that a short
    caption leaves empty. ``rank_BL`` is the slot of each position (K or more: not kept).
    ``visible_BL`` and ``hidden_BL`` never overlap; padding is neither.
    """

    keep_BK: Tensor
    seen_BK: Tensor
    rank_BL: Tensor
    visible_BL: Tensor
    hidden_BL: Tensor


def kept_patches(patches: int, ratio: float) -> int:
    """Return how many patches the share ``ratio`` leaves, rounded down as in MAE's code."""
    return max(1, int(patches * (1 - ratio)))


def hide_patches(noise_BL: Tensor, ratio: float) -> Mask:
    """Hide the patches with the largest noise, the same number in every picture."""
    kept = kept_patches(noise_BL.shape[1], ratio)
    order_BL = noise_BL.argsort(dim=1, stable=True)
    rank_BL = order_BL.argsort(dim=1)
    visible_BL = rank_BL < kept
    keep_BK = order_BL[:, :kept]
    return Mask(
        keep_BK, torch.ones_like(keep_BK, dtype=torch.bool), rank_BL, visible_BL, ~visible_BL
    )


def hide_tokens(noise_BL: Tensor, tokens_BL: Tensor, ratio: float) -> Mask:
    """Hide the share ``ratio`` of each caption's own tokens, at least one.

    Begin and end stay visible; padding is neither visible nor hidden, so a long context costs
    a short caption nothing of its share.
    """
    may_hide_BL = tokens_BL > MASK
    real_BL = tokens_BL != PAD
    hidden_B = (may_hide_BL.sum(dim=1) * ratio).round().long()
    hidden_B = torch.maximum(hidden_B, may_hide_BL.any(dim=1).long())
    seen_B = real_BL.sum(dim=1) - hidden_B
    # Sort key: begin and end first, then words in random order, then padding.
    key_BL = noise_BL + may_hide_BL + 2.0 * ~real_BL
    order_BL = key_BL.argsort(dim=1, stable=True)
    rank_BL = order_BL.argsort(dim=1)
    kept = int(seen_B.max())
    slots = torch.arange(kept, device=tokens_BL.device)
    visible_BL = rank_BL < seen_B[:, None]
    return Mask(
        order_BL[:, :kept], slots < seen_B[:, None], rank_BL, visible_BL, real_BL & ~visible_BL
    )


def widen(mask: Mask, slots: int) -> Mask:
    """Give every caption that many slots, the added ones empty, so that shapes stay the same."""
    empty = slots - mask.seen_BK.shape[1]
    order_BL = mask.rank_BL.argsort(dim=1)
    return mask._replace(keep_BK=order_BL[:, :slots], seen_BK=F.pad(mask.seen_BK, (0, empty)))


def take(values_BLX: Tensor, keep_BK: Tensor) -> Tensor:
    """Select the kept positions: [B, L, X] -> [B, K, X]."""
    return values_BLX.gather(1, keep_BK[..., None].expand(-1, -1, values_BLX.shape[2]))


def restore(kept_BKD: Tensor, mask: Mask, filler_D: Tensor) -> Tensor:
    """Put kept tokens back at their positions, ``filler_D`` everywhere else: [B, L, D]."""
    slot_BL = mask.rank_BL.clamp(max=kept_BKD.shape[1] - 1)
    # where(), not a filler slot in the gather: its gradient then is a plain sum, in fixed order.
    return torch.where(mask.visible_BL[..., None], take(kept_BKD, slot_BL), filler_D)
