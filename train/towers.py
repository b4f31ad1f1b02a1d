"""The two towers: a picture's patches and a caption's tokens, each through a stack.

Shapes: B batch, N patches, T caption tokens, K kept tokens, D width, P values in a patch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from breadth.loaders.tokenize import EOS, PAD

from .architecture import Architecture
from .blocks import Stack, grid_positions, line_positions
from .mask import Mask, take


class ImageTower(nn.Module):
    """The patches it is given, after a class token where the architecture has one.

    ``prefix`` is the number of tokens before those of the patches.
    """

    positions_ND: Tensor

    def __init__(
        self, stack: Stack, width: int, grid: int, patch_px: int, architecture: Architecture
    ) -> None:
        super().__init__()
        self.prefix = int(architecture.class_token)
        self.patch = nn.Linear(3 * patch_px**2, width, bias=architecture.patch_bias)
        if architecture.class_token:
            self.class_token = nn.Parameter(torch.zeros(width))
        if architecture.learned_positions:
            self.positions_ND = nn.Parameter(torch.zeros(grid**2, width))
            if architecture.class_token:
                self.class_position = nn.Parameter(torch.zeros(width))
        else:
            positions = grid_positions(grid, width, architecture)
            self.register_buffer("positions_ND", positions, persistent=False)
        if architecture.norm_first:
            self.first_norm = nn.LayerNorm(width, eps=architecture.eps)
        self.stack = stack

    def forward(self, patches_BNP: Tensor, mask: Mask | None = None) -> Tensor:
        """Return [B, prefix + N, D], or with K for N: hidden patches never enter."""
        return self.stack(self.enter(patches_BNP, mask))

    def states(self, patches_BNP: Tensor) -> list[Tensor]:
        """Return the tokens [B, prefix + N, D] before the first block and after each."""
        return self.stack.states(self.enter(patches_BNP, None))

    def enter(self, patches_BNP: Tensor, mask: Mask | None) -> Tensor:
        """Return the tokens that the stack is given."""
        positions_BND = self.positions_ND.expand(len(patches_BNP), -1, -1)
        if mask is not None:
            patches_BNP = take(patches_BNP, mask.keep_BK)
            positions_BND = take(positions_BND, mask.keep_BK)
        tokens_BND = self.patch(patches_BNP) + positions_BND
        if self.prefix:
            first_D: Tensor = self.class_token
            if hasattr(self, "class_position"):
                first_D = first_D + self.class_position
            first_B1D = first_D.to(tokens_BND.dtype).expand(len(tokens_BND), 1, -1)
            tokens_BND = torch.cat([first_B1D, tokens_BND], dim=1)
        if hasattr(self, "kind"):
            tokens_BND = tokens_BND + self.kind
        return self.first_norm(tokens_BND) if hasattr(self, "first_norm") else tokens_BND


class TextTower(nn.Module):
    """The caption tokens it is given, through a stack."""

    positions_TD: Tensor

    def __init__(
        self,
        stack: Stack,
        width: int,
        vocabulary: int,
        context_length: int,
        architecture: Architecture,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.token = nn.Embedding(vocabulary, width)
        if architecture.learned_positions:
            self.positions_TD = nn.Parameter(torch.zeros(context_length, width))
        else:
            positions = line_positions(context_length, width, architecture.position_scale)
            self.register_buffer("positions_TD", positions, persistent=False)
        self.stack = stack

    def forward(self, tokens_BT: Tensor, mask: Mask | None = None) -> tuple[Tensor, Tensor]:
        """Return [B, T or K, D] and which of them are real: hidden tokens never enter.

        What is left of a masked caption is seen both ways, also by a causal tower.
        """
        entered_BTD, real_BT = self.enter(tokens_BT, mask)
        causal = self.architecture.causal_text and mask is None
        attends_BT = None if self.architecture.padding_seen and mask is None else real_BT
        return self.stack(entered_BTD, attends_BT, causal=causal), real_BT

    def enter(self, tokens_BT: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor]:
        """Return the tokens that the stack is given, and which of them are real."""
        positions_BTD = self.positions_TD[: tokens_BT.shape[1]].expand(len(tokens_BT), -1, -1)
        real_BT = tokens_BT != PAD
        if mask is not None:
            tokens_BT = tokens_BT.gather(1, mask.keep_BK)
            positions_BTD = take(positions_BTD, mask.keep_BK)
            real_BT = mask.seen_BK
        entered_BTD = self.token(tokens_BT) + positions_BTD
        return (entered_BTD + self.kind if hasattr(self, "kind") else entered_BTD), real_BT

    def pool(self, tokens_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        """Pool a caption's tokens to [B, D]: their mean, the first, the end's or the very last."""
        if self.architecture.text_pool == "begin":
            return tokens_BTD[:, 0]
        if self.architecture.text_pool == "last":
            return tokens_BTD[:, -1]
        if self.architecture.text_pool == "end":
            end_B = (tokens_BT == EOS).int().argmax(dim=1)
            return tokens_BTD[torch.arange(len(end_B), device=end_B.device), end_B]
        real_BT = tokens_BT != PAD
        total_BD = torch.where(real_BT[..., None], tokens_BTD, 0).sum(dim=1)
        return total_BD / real_BT.sum(dim=1, keepdim=True).clamp(min=1)


def share_tower(image: ImageTower, text: TextTower, width: int) -> None:
    """Make both towers one: the same stack, and a learned kind that says which one a token is of.

    Source: Geng et al. 2022 (M3AE), section 3.
    """
    text.stack = image.stack
    image.kind = nn.Parameter(torch.zeros(width))
    text.kind = nn.Parameter(torch.zeros(width))


def joint_pass(
    image: ImageTower,
    text: TextTower,
    patches_BNP: Tensor,
    tokens_BT: Tensor,
    masks: Mapping[str, Mask],
) -> tuple[Tensor, Tensor]:
    """Return what one shared stack makes of visible patches and tokens that see each other."""
    image_BKD = image.enter(patches_BNP, masks["masked image"])
    text_BKD, seen_BK = text.enter(tokens_BT, masks["masked text"])
    kept = image_BKD.shape[1]
    attends_BL = torch.cat([seen_BK.new_ones(image_BKD.shape[:2]), seen_BK], dim=1)
    both_BLD = image.stack(torch.cat([image_BKD, text_BKD], dim=1), attends_BL)
    return both_BLD[:, :kept], both_BLD[:, kept:]
