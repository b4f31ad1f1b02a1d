"""The decoder: from what the towers saw of the masked views to what was hidden.

Shapes: B batch, N patches, T caption tokens, L positions of either, K kept tokens, D width, P
values in a patch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .blocks import Stack, grid_positions, line_positions
from .mask import Mask, restore
from .recipe import Size, TrainRecipe
from .terms import plan_views


class DecoderInput(nn.Module):
    """Bring one tower's kept tokens to the decoder's width and put them back in place."""

    positions_LD: Tensor

    def __init__(self, tower_width: int, width: int, positions_LD: Tensor) -> None:
        super().__init__()
        self.project = nn.Linear(tower_width, width)
        self.filler = nn.Parameter(torch.zeros(width))
        self.kind = nn.Parameter(torch.zeros(width))
        self.register_buffer("positions_LD", positions_LD, persistent=False)

    def forward(self, kept_BKD: Tensor, mask: Mask) -> Tensor:
        """Return [B, L, D] with the learned filler at the positions the tower did not see."""
        restored_BLD = restore(self.project(kept_BKD), mask, self.filler)
        return restored_BLD + self.positions_LD[: restored_BLD.shape[1]] + self.kind


class Decoder(nn.Module):
    """Predict what is hidden from all masked views at once.

    With one masked view it is MAE's or BERT's, with both it is joint.
    Source: Geng et al. 2022 (M3AE), put on two towers by Weers et al. 2023 (MAE-CLIP).
    """

    def __init__(self, size: Size, recipe: TrainRecipe, vocabulary: int) -> None:
        super().__init__()
        views, width = plan_views(recipe.weights), size.decoder_width
        self.stack = Stack(width, size.decoder_depth, size.decoder_heads)
        if "masked image" in views:
            grid = grid_positions(recipe.image_px // recipe.patch_px, width)
            self.image = DecoderInput(size.width, width, grid)
            self.patch_out = nn.Linear(width, 3 * recipe.patch_px**2)
        if "masked text" in views:
            line = line_positions(recipe.context_length, width)
            self.text = DecoderInput(size.text_width, width, line)
            self.token_out = nn.Linear(width, vocabulary)

    def forward(
        self, image_BKD: Tensor | None, text_BKD: Tensor | None, masks: Mapping[str, Mask]
    ) -> tuple[Tensor, Tensor]:
        """Return the decoded patches [B, N, D] and caption tokens [B, T, D]; N or T may be 0.

        ``image_BKD`` comes without its class token.
        """
        inputs, attends, patches = [], [], 0
        if image_BKD is not None:
            inputs.append(self.image(image_BKD, masks["masked image"]))
            patches = inputs[0].shape[1]
            attends.append(torch.ones_like(masks["masked image"].visible_BL))
        if text_BKD is not None:
            mask = masks["masked text"]
            inputs.append(self.text(text_BKD, mask))
            attends.append(mask.visible_BL | mask.hidden_BL)
        attends_BL = torch.cat(attends, dim=1) if text_BKD is not None else None
        decoded_BLD = self.stack(torch.cat(inputs, dim=1), attends_BL)
        return decoded_BLD[:, :patches], decoded_BLD[:, patches:]


def patch_targets(patches_BNP: Tensor, recipe: TrainRecipe) -> Tensor:
    """Return what Pixels predicts: normalised pixels, or each patch brought to variance 1.

    Source: He et al. 2021 (MAE), section 4.1; unbiased variance, with a floor because the
    noise of a flat patch would otherwise be the target.
    """
    if recipe.pixel_target == "raw":
        return patches_BNP
    variance = patches_BNP.var(dim=2, keepdim=True)
    centred = patches_BNP - patches_BNP.mean(dim=2, keepdim=True)
    return centred / (variance + recipe.variance_floor).sqrt()
