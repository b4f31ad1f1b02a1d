"""The parts of a transformer: block, stack, fixed positions, patches.

Shapes: B batch, L tokens of any kind, S tokens looked at, N patches, D width, P values in a patch.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .architecture import Architecture

BREADTH = Architecture()

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),  # CLIP's weights were trained with it
}


class Attention(nn.Module):
    """Mix tokens by scaled dot products, head by head, their own or those of a memory."""

    def __init__(self, width: int, heads: int, memory_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(memory_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, memory_BSD: Tensor) -> Tensor:
        """Return [B, L, D]: each token's mixture of the memory."""
        batch, length, width = x_BLD.shape
        heads, each = self.heads, width // self.heads
        query = self.query(x_BLD).view(batch, length, heads, each).transpose(1, 2)
        pairs = self.key_value(memory_BSD).view(batch, memory_BSD.shape[1], 2, heads, each)
        key, value = pairs.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attend, then mix channels; normalise before each.

    With a ``memory_width`` it also looks at tokens of that width between the two.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        architecture: Architecture = BREADTH,
        memory_width: int = 0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.activation = ACTIVATIONS[architecture.activation]
        self.attention_norm = nn.LayerNorm(width, eps=architecture.eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        if memory_width:
            self.memory_norm = nn.LayerNorm(width, eps=architecture.eps)
            self.memory = Attention(width, heads, memory_width)
        self.mlp_norm = nn.LayerNorm(width, eps=architecture.eps)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(
        self,
        x_BLD: Tensor,
        attends_BL: Tensor | None,
        causal: bool = False,
        memory_BSD: Tensor | None = None,
    ) -> Tensor:
        """Return tokens of the same shape; where given, ``attends_BL`` False hides a key.

        A causal block sees what comes before alone, so that padding at the end needs no hiding.
        """
        x_BLD = x_BLD + self.out(self.attend(self.attention_norm(x_BLD), attends_BL, causal))
        if memory_BSD is not None:
            x_BLD = x_BLD + self.memory(self.memory_norm(x_BLD), memory_BSD)
        return x_BLD + self.down(self.activation(self.up(self.mlp_norm(x_BLD))))

    def attend(self, x_BLD: Tensor, attends_BL: Tensor | None, causal: bool) -> Tensor:
        """Mix tokens by scaled dot products, head by head."""
        batch, length, width = x_BLD.shape
        qkv = self.qkv(x_BLD).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mask = None if attends_BL is None or causal else attends_BL[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        return mixed.transpose(1, 2).reshape(batch, length, width)


class Stack(nn.Module):
    """Blocks in a row with a last normalisation.

    ``recomputes`` makes training hold each block's input alone and compute the rest once more.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        architecture: Architecture = BREADTH,
        memory_width: int = 0,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, heads, architecture, memory_width) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=architecture.eps)
        self.recomputes = False

    def forward(
        self,
        x_BLD: Tensor,
        attends_BL: Tensor | None = None,
        *,
        first: int = 0,
        causal: bool = False,
        memory_BSD: Tensor | None = None,
    ) -> Tensor:
        """Return tokens of the same shape, those that come before block ``first`` given."""
        for block in self.blocks[first:]:
            given = (x_BLD, attends_BL, causal, memory_BSD)
            if self.recomputes and torch.is_grad_enabled():
                x_BLD = checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BLD = block(*given)
        return self.norm(x_BLD)

    def states(self, x_BLD: Tensor) -> list[Tensor]:
        """Return the tokens before the first block and after each, not normalised."""
        states = [x_BLD]
        for block in self.blocks:
            states.append(block(states[-1], None))
        return states

    def quieten(self) -> None:
        """Scale fresh weights so that each block begins near the identity.

        Source: GPT-2 (Radford et al. 2019), section 2.3. In 400 steps of the demo it gives 3
        points of zero-shot accuracy.
        """
        scale = (2 * len(self.blocks)) ** -0.5
        for name, weight in self.named_parameters():
            if name.endswith((".out.weight", ".down.weight")):
                weight.data.mul_(scale)


def line_positions(length: int, width: int, scale: float = BREADTH.position_scale) -> Tensor:
    """Return fixed sine-cosine positions, float32 [length, width].

    Source: Vaswani et al. 2017, section 3.5, at a smaller scale.
    """
    frequency = torch.exp(torch.arange(width // 2) * (-math.log(10_000.0) / (width // 2)))
    angle = torch.arange(length)[:, None] * frequency[None, :]
    return scale * torch.cat([angle.sin(), angle.cos()], dim=1)


def grid_positions(side: int, width: int, architecture: Architecture = BREADTH) -> Tensor:
    """Return fixed positions of a square grid, row by row: float32 [side * side, width].

    Source: He et al. 2021 (MAE), appendix: half of the channels code the row, half the column.
    """
    line = line_positions(side, width // 2, architecture.position_scale)
    rows = line[:, None, :].expand(side, side, width // 2)
    columns = line[None, :, :].expand(side, side, width // 2)
    halves = [columns, rows] if architecture.columns_first else [rows, columns]
    return torch.cat(halves, dim=2).reshape(side * side, width)


def patchify(images_BCHW: Tensor, patch_px: int) -> Tensor:
    """Cut pictures into square patches: [B, N, P] with P = 3 * patch_px**2, row by row."""
    batch, channels, height, width = images_BCHW.shape
    rows, columns = height // patch_px, width // patch_px
    grid = images_BCHW.reshape(batch, channels, rows, patch_px, columns, patch_px)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def unpatchify(patches_BNP: Tensor, patch_px: int) -> Tensor:
    """Put the patches of square pictures together again: the inverse of ``patchify``."""
    batch, patches, _ = patches_BNP.shape
    side = math.isqrt(patches)
    grid = patches_BNP.reshape(batch, side, side, 3, patch_px, patch_px)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, 3, side * patch_px, side * patch_px)
