"""The decoders: what was hidden, from what the towers saw of masked views; and the caption writer.

Shapes: B batch, N patches, T caption tokens, L positions of either, K kept tokens, D width, P
values in a patch, M places in captions, V vocabulary.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture
from .blocks import Stack, grid_positions, line_positions
from .mask import Mask, restore
from .pool import AttentionPool
from .recipe import TrainRecipe
from .size import Size


class DecoderInput(nn.Module):
    """Bring one tower's kept tokens to the decoder's width and put them back in place."""

    positions_LD: Tensor

    def __init__(self, tower_width: int, width: int, positions_LD: Tensor, prefix: int = 0) -> None:
        super().__init__()
        self.prefix = prefix
        self.project = nn.Linear(tower_width, width)
        self.filler = nn.Parameter(torch.zeros(width))
        self.kind = nn.Parameter(torch.zeros(width))
        self.register_buffer("positions_LD", positions_LD, persistent=False)

    def forward(self, kept_BKD: Tensor, mask: Mask) -> Tensor:
        """Return [B, prefix + L, D] with the learned filler where the tower did not see."""
        projected_BKD = self.project(kept_BKD)
        restored_BLD = restore(projected_BKD[:, self.prefix :], mask, self.filler)
        restored_BLD = restored_BLD + self.positions_LD[: restored_BLD.shape[1]]
        return torch.cat([projected_BKD[:, : self.prefix], restored_BLD], dim=1) + self.kind


class Decoder(nn.Module):
    """Predict what is hidden from all masked views at once, or from each apart.

    With one masked view it is MAE's or M3AE's for captions alone, with both it is joint.
    Source: He et al. 2021 (MAE), section 3; Geng et al. 2022 (M3AE), put on two towers by Weers
    et al. 2023 (MAE-CLIP).
    """

    def __init__(
        self,
        size: Size,
        recipe: TrainRecipe,
        vocabulary: int,
        views: frozenset[str],
        text_width: int,
    ) -> None:
        super().__init__()
        width, architecture = size.decoder_width, recipe.towers_architecture
        self.is_joint = recipe.decoder == "joint"
        self.stack = Stack(width, size.decoder_depth, size.decoder_heads, architecture)
        if "masked image" in views:
            grid = grid_positions(recipe.grid, width, architecture)
            prefix = int(architecture.class_token)
            self.image = DecoderInput(size.width, width, grid, prefix)
            self.patch_out = nn.Linear(width, 3 * recipe.patch_px**2)
        if "masked text" in views:
            line = line_positions(recipe.context_length, width, architecture.position_scale)
            self.text = DecoderInput(text_width, width, line)
            self.token_out = nn.Linear(width, vocabulary)

    def forward(
        self, image_BKD: Tensor | None, text_BKD: Tensor | None, masks: Mapping[str, Mask]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the decoded patches [B, N, D] and caption tokens [B, T, D], each where given."""
        inputs, attends = [], []
        if image_BKD is not None:
            inputs.append(self.image(image_BKD, masks["masked image"]))
            attends.append(inputs[0].new_ones(inputs[0].shape[:2], dtype=torch.bool))
        if text_BKD is not None:
            mask = masks["masked text"]
            inputs.append(self.text(text_BKD, mask))
            attends.append(mask.visible_BL | mask.hidden_BL)
        decoded = self._decode(inputs, attends, has_padding=text_BKD is not None)
        patches_BND = decoded.pop(0)[:, self.image.prefix :] if image_BKD is not None else None
        return patches_BND, decoded[0] if text_BKD is not None else None

    def _decode(
        self, inputs: list[Tensor], attends: list[Tensor], has_padding: bool
    ) -> list[Tensor]:
        if not self.is_joint:
            return [self.stack(one, may) for one, may in zip(inputs, attends, strict=True)]
        attends_BL = torch.cat(attends, dim=1) if has_padding else None
        decoded_BLD = self.stack(torch.cat(inputs, dim=1), attends_BL)
        return list(decoded_BLD.split([one.shape[1] for one in inputs], dim=1))


class Captioner(nn.Module):
    """Write the next caption token from the caption tower's tokens so far and the picture's.

    Source: Yu et al. 2022 (CoCa), section 3.2: the picture is asked by learned queries, the
    caption's causal tower goes on in blocks that also look at the answers.
    """

    def __init__(self, size: Size, recipe: TrainRecipe, vocabulary: int, text_width: int) -> None:
        super().__init__()
        architecture: Architecture = recipe.towers_architecture
        queries = recipe.caption_queries
        self.pool = AttentionPool(size.width, size.heads, architecture, queries)
        heads, depth = size.text_heads, size.text_depth
        self.stack = Stack(text_width, depth, heads, architecture, memory_width=size.width)
        self.token_out = nn.Linear(text_width, vocabulary)

    def forward(self, image_BLD: Tensor, text_BTD: Tensor, places_M: Tensor) -> Tensor:
        """Return the logits [M, V] of the tokens after the places, flat indices into [B, T]."""
        decoded_BTD = self.stack(text_BTD, causal=True, memory_BSD=self.pool(image_BLD))
        return self.token_out(decoded_BTD.flatten(0, 1)[places_M])


class TokenHead(nn.Module):
    """Name the hidden tokens from what the caption tower made of a corrupted caption.

    Source: Devlin et al. 2018 (BERT), as its code has it: linear, activation, norm, vocabulary.
    """

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.token_out = nn.Linear(width, vocabulary)

    def forward(self, text_MD: Tensor) -> Tensor:
        """Return logits [M, V]."""
        return self.token_out(self.norm(F.gelu(self.dense(text_MD))))


class Projector(nn.Module):
    """Bring pooled crops to the space in which SimCLR compares them: [B, D] to [B, E] of norm 1.

    Source: Chen et al. 2020 (SimCLR), section 4.2; LayerNorm for BatchNorm, so that neither
    micro-batches nor ranks change what it computes.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.norm = nn.LayerNorm(4 * width)
        self.down = nn.Linear(4 * width, embedding)

    def forward(self, pooled_BD: Tensor) -> Tensor:
        """Return rows of norm 1."""
        return F.normalize(self.down(F.gelu(self.norm(self.up(pooled_BD)))), dim=1)


def patch_targets(patches_BNP: Tensor, recipe: TrainRecipe) -> Tensor:
    """Return what Pixels predicts: normalised pixels, or each patch brought to variance 1.

    Source: He et al. 2021 (MAE), section 4.1.
    """
    if recipe.pixel_target == "raw":
        return patches_BNP.detach()
    mean_BN1, spread_BN1 = patch_spread(patches_BNP, recipe)
    return ((patches_BNP - mean_BN1) / spread_BN1).detach()


def patch_spread(patches_BNP: Tensor, recipe: TrainRecipe) -> tuple[Tensor, Tensor]:
    """Return each patch's mean and standard deviation, [B, N, 1]: what "patch" takes out of it.

    The variance is unbiased, and of at least the floor because the noise of a flat patch would
    otherwise be the target.
    """
    variance = patches_BNP.var(dim=2, keepdim=True).clamp(min=recipe.variance_floor)
    return patches_BNP.mean(dim=2, keepdim=True), (variance + PIXEL_EPS).sqrt()


PIXEL_EPS = 1e-6  # MAE's
