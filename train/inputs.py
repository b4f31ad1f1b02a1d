"""What a step is given: pictures, captions, and everything that was drawn for them.

All draws are made for the whole batch and cut afterwards, so that neither ranks nor micro-batches
change them. Shapes: B pairs, N patches, T caption tokens, M hidden places.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from breadth.loaders.tokenize import MASK, PAD

from .crops import DRAWS, Crop, draw_crop
from .mask import Mask, hide_patches, hide_tokens, widen
from .recipe import TrainRecipe
from .seeds import generator
from .terms import IGNORED, Views

CORRUPTED, REPLACED = 0.8, 0.1  # shares of hidden tokens; BERT, section 3.1
MOST_TOKENS = 4096  # of a context, for the hash of a caption


@dataclass(frozen=True)
class Inputs:
    """One batch or a part of it, uint8 [B, 3, H, W] and int64 [B, T], with its draws by view.

    ``places`` are flat indices into [B, T] at which tokens are predicted, by view, and ``known`` is
    what terms count by; both are there on a device (``on``), not before.
    """

    images_BCHW: Tensor
    tokens_BT: Tensor
    masks: Mapping[str, Mask] = field(default_factory=dict)
    crops: tuple[Crop, ...] = ()
    corrupted_BT: Tensor | None = None
    places: Mapping[str, Tensor] = field(default_factory=dict)
    known: Views = field(default_factory=dict)

    def part(self, start: int, stop: int) -> "Inputs":
        """Return some of the pairs."""
        rows = slice(start, stop)
        return replace(
            self,
            images_BCHW=self.images_BCHW[rows],
            tokens_BT=self.tokens_BT[rows],
            masks={name: Mask(*(t[rows] for t in mask)) for name, mask in self.masks.items()},
            crops=tuple(Crop(*(t[rows] for t in crop)) for crop in self.crops),
            corrupted_BT=None if self.corrupted_BT is None else self.corrupted_BT[rows],
        )

    def on(self, device: torch.device, *, padded: bool = False) -> "Inputs":
        """Return them on a device; what needs a look at the values is done here, before.

        ``padded`` fills up places so that shapes are few, as compiled code wants them.
        """
        places, known = _places(self, padded)

        def moved(tensor: Tensor) -> Tensor:
            # From pinned memory a copy waits neither for the device nor holds up the host.
            pinned = tensor.pin_memory() if device.type == "cuda" else tensor
            return pinned.to(device, non_blocking=True)

        return Inputs(
            moved(self.images_BCHW),
            moved(self.tokens_BT),
            {name: Mask(*map(moved, mask)) for name, mask in self.masks.items()},
            tuple(Crop(*map(moved, crop)) for crop in self.crops),
            None if self.corrupted_BT is None else moved(self.corrupted_BT),
            {name: moved(flat) for name, flat in places.items()},
            {name: moved(value) for name, value in known.items()},
        )


def draw_inputs(
    recipe: TrainRecipe,
    images_BCHW: Tensor,
    tokens_BT: Tensor,
    step: int,
    *,
    vocabulary: int,
    rank: int = 0,
) -> Inputs:
    """Draw masks, crops and corruptions for a rank's share of a step's batch, on the CPU.

    ``tokens_BT`` come at full length; they are cut to the longest caption unless padding counts.
    """
    views, pairs = recipe.views, max(recipe.batch_pairs, len(tokens_BT))
    first = rank * len(tokens_BT)

    def uniform(stream: str, *shape: int) -> Tensor:
        drawn = torch.rand(pairs, *shape, generator=generator(recipe.seed, stream, step))
        return drawn[first : first + len(tokens_BT)]

    length = tokens_BT.shape[1]
    if not recipe.keeps_length:
        length = int((tokens_BT != PAD).sum(dim=1).max())
    tokens_BT = tokens_BT[:, :length]
    masks, corrupted_BT = {}, None
    if "masked image" in views:
        masks["masked image"] = hide_patches(uniform("patches", recipe.grid**2), recipe.image_mask)
    if recipe.patch_dropout and "image" in views:
        noise_BN = uniform("dropped patches", recipe.grid**2)
        masks["image"] = hide_patches(noise_BN, recipe.patch_dropout)
    if views & {"masked text", "corrupted text"}:
        # The whole context is drawn, so that a mask does not depend on the longest caption.
        noise_BT = uniform("words", recipe.context_length)[:, :length]
        mask = hide_tokens(noise_BT, tokens_BT, recipe.text_mask)
        masks["masked text"] = widen(mask, _most_seen(recipe)) if recipe.compiled else mask
    if "corrupted text" in views:
        what_BT2 = uniform("corruption", recipe.context_length, 2)[:, :length]
        hidden_BT = masks["masked text"].hidden_BL
        corrupted_BT = corrupt(tokens_BT, hidden_BT, what_BT2, vocabulary)
    crops: tuple[Crop, ...] = ()
    if "two crops" in views:
        names = ("crop 1", "crop 2")
        crops = tuple(draw_crop(uniform(name, DRAWS), recipe.crop_area) for name in names)
    return Inputs(images_BCHW, tokens_BT, masks, crops, corrupted_BT)


def corrupt(tokens_BT: Tensor, hidden_BT: Tensor, what_BT2: Tensor, vocabulary: int) -> Tensor:
    """Replace 80 % of the hidden tokens by [MASK], 10 % by any other kind of token, leave 10 %.

    ``what_BT2`` are uniform numbers: which of the three, and which token.
    Source: Devlin et al. 2018 (BERT), section 3.1.
    """
    which_BT, token_BT = what_BT2.unbind(dim=2)
    words = vocabulary - (MASK + 1)
    other_BT = MASK + 1 + (token_BT * words).long().clamp(max=words - 1)
    changed_BT = torch.where(which_BT < CORRUPTED + REPLACED, other_BT, tokens_BT)
    changed_BT = torch.where(which_BT < CORRUPTED, MASK, changed_BT)
    return torch.where(hidden_BT, changed_BT, tokens_BT)


def caption_groups(tokens_BT: Tensor) -> Tensor:
    """Return a number for each caption that is equal for equal captions: int64 [B]."""
    draws = generator(0, "caption groups")
    factors = torch.randint(2**62, (MOST_TOKENS,), generator=draws) | 1
    # Padding is 0 and adds nothing; the sum wraps around: a hash of 64 bits.
    return (tokens_BT * factors[: tokens_BT.shape[1]]).sum(dim=1)


def _most_seen(recipe: TrainRecipe) -> int:
    """Return how many tokens of a caption a masked view keeps at most."""
    words = torch.arange(1, recipe.context_length - 1)
    hidden = (words * recipe.text_mask).round().long().clamp(min=1)
    return 2 + int((words - hidden).max())


def _places(inputs: Inputs, padded: bool) -> tuple[dict[str, Tensor], Views]:
    """Return where tokens are predicted, and what is known of the views before they are encoded."""
    tokens_BT = inputs.tokens_BT
    places, known = {}, {"pairs": torch.tensor(len(tokens_BT))}
    known["caption_group"] = caption_groups(tokens_BT)
    if "masked image" in inputs.masks:
        known["hidden_patches"] = inputs.masks["masked image"].hidden_BL
    if "masked text" in inputs.masks:
        hidden_BT = inputs.masks["masked text"].hidden_BL
        places["hidden"], known["hidden_tokens"] = _targets(hidden_BT, tokens_BT, padded)
    following_BT = torch.cat([tokens_BT[:, 1:], torch.full_like(tokens_BT[:, :1], PAD)], dim=1)
    before = _targets(following_BT != PAD, following_BT, padded)
    places["before"], known["caption_targets"] = before
    return places, known


def _targets(chosen_BT: Tensor, tokens_BT: Tensor, padded: bool) -> tuple[Tensor, Tensor]:
    """Return the chosen places as flat indices [M], and the tokens there, or no target at all.

    Where padded, M is a multiple of B.
    """
    flat_M = chosen_BT.flatten().nonzero()[:, 0]
    target_M = tokens_BT.flatten()[flat_M]
    if padded:
        empty = -len(flat_M) % len(tokens_BT)
        flat_M, target_M = F.pad(flat_M, (0, empty)), F.pad(target_M, (0, empty), value=IGNORED)
    return flat_M, target_M
