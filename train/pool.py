"""Pools: from a picture's tokens to one vector. The class token comes first.

Shapes: B batch, L = 1 + N tokens, D width.
"""

from torch import Tensor

POOLS = ("cls", "gap", "max", "topk:K")


def is_pool(name: str) -> bool:
    """Tell whether a recipe may name this pool."""
    kind, _, count = name.partition(":")
    if kind == "topk":
        return count.isdecimal() and int(count) >= 1
    return name in POOLS[:3]


def pool_tokens(tokens_BLD: Tensor, name: str) -> Tensor:
    """Pool [B, 1 + N, D] to [B, D]; all but ``cls`` look at the patch tokens only.

    ``max`` is the largest value of each channel, ``topk:K`` the mean of its K largest.
    Source: CLIPpy (Ranasinghe et al. 2022), maximum over patch tokens without the class token.
    """
    if not is_pool(name):
        raise ValueError(f"no pool is called {name!r}")
    kind, _, count = name.partition(":")
    patches_BND = tokens_BLD[:, 1:]
    if kind == "cls":
        return tokens_BLD[:, 0]
    if kind == "gap":
        return patches_BND.mean(dim=1)
    if kind == "max":
        return patches_BND.amax(dim=1)
    k = min(int(count), patches_BND.shape[1])
    return patches_BND.topk(k, dim=1).values.mean(dim=1)
