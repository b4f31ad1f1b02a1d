"""Pools: from a picture's tokens to one vector. The class token, where there is one, comes first.

Shapes: B batch, L = prefix + N tokens, D width, Q queries.
"""

import torch
from torch import Tensor, nn

from .architecture import Architecture
from .blocks import ACTIVATIONS, Attention

POOLS = ("cls", "gap", "max", "map", "topk:K")


def is_pool(name: str) -> bool:
    """Tell whether a recipe may name this pool."""
    kind, _, count = name.partition(":")
    if kind == "topk":
        return count.isdecimal() and int(count) >= 1
    return name in POOLS[:4]


def pool_tokens(tokens_BLD: Tensor, name: str, prefix: int = 1) -> Tensor:
    """Pool [B, prefix + N, D] to [B, D]; all but ``cls`` look at the patch tokens only.

    ``max`` is the largest value of each channel, ``topk:K`` the mean of its K largest; ``map`` has
    weights of its own (``AttentionPool``).
    Source: CLIPpy (Ranasinghe et al. 2022), maximum over patch tokens without the class token.
    """
    if not is_pool(name) or name == "map":
        raise ValueError(f"no pool without weights is called {name!r}")
    kind, _, count = name.partition(":")
    patches_BND = tokens_BLD[:, prefix:]
    if kind == "cls":
        return tokens_BLD[:, 0]
    if kind == "gap":
        return patches_BND.mean(dim=1)
    if kind == "max":
        return patches_BND.max(dim=1).values  # amax would share a tie's gradient out
    k = min(int(count), patches_BND.shape[1])
    return patches_BND.topk(k, dim=1).values.mean(dim=1)


class AttentionPool(nn.Module):
    """Ask all tokens by learned queries, then mix channels; one query makes a picture's vector.

    Source: Lee et al. 2019 (Set Transformer), as the MAP head of Zhai et al. 2022, section 3.2;
    with many queries, the pooler of CoCa (Yu et al. 2022, section 3.2).
    """

    def __init__(self, width: int, heads: int, architecture: Architecture, queries: int = 1):
        super().__init__()
        self.queries_QD = nn.Parameter(torch.zeros(queries, width))
        self.attention = Attention(width, heads, width)
        self.norm = nn.LayerNorm(width, eps=architecture.eps)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.activation = ACTIVATIONS[architecture.activation]

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return [B, Q, D]."""
        queries_BQD = self.queries_QD.expand(len(tokens_BLD), -1, -1)
        asked_BQD = self.attention(queries_BQD, tokens_BLD)
        return asked_BQD + self.down(self.activation(self.up(self.norm(asked_BQD))))
