"""Where in a picture a run sees what a caption says: one map for each picture and caption.

Shapes: B pictures, N patches, D width, E embedding, S tokens along a side (N = S * S).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from breadth.loaders.errors import Refused

from ..checkpoint import Run
from ..model import Model
from .drawn_scores import MAPS

_AT_ONCE = 64  # bounds memory: Grad-CAM keeps one block's activations


def heat_maps(
    run: Run, images_BCHW: np.ndarray, captions: Sequence[str], method: str
) -> np.ndarray:
    """Return the heat of each token of each picture for its own caption: float32 [B, S, S].

    ``method`` is one of METHODS; signs and scale are the method's. Raises Refused where the run
    compares no pictures with captions. Cost: one forward pass; Grad-CAM one more through the last
    block, and back.
    """
    run.require_joint_space()
    run.require_pictures(images_BCHW)
    if method not in METHODS:
        raise Refused(f"there is no map {method!r}; there are {', '.join(METHODS)}")
    captions_BE = torch.from_numpy(run.embed_captions(captions))
    rows = []
    for start in range(0, len(images_BCHW), _AT_ONCE):
        few = slice(start, start + _AT_ONCE)
        images = torch.from_numpy(np.ascontiguousarray(images_BCHW[few])).to(run.device)
        heat_BN = METHODS[method](run.model, images, captions_BE[few].to(run.device))
        rows.append(heat_BN.float().cpu().numpy())
    side = run.recipe.image_px // run.recipe.patch_px
    return np.concatenate(rows).reshape(-1, side, side)


@torch.no_grad()
def patch_cosine(model: Model, images_BCHW: Tensor, captions_BE: Tensor) -> Tensor:
    """Embed every patch as if it were the picture; return its cosine with the caption: [B, N].

    Source: MaskCLIP (Zhou et al. 2022, arXiv 2112.01071), section 3.2, for any pool.
    """
    patches_BNE = F.normalize(_embed_each(model, images_BCHW), dim=2)
    return torch.einsum("bne,be->bn", patches_BNE, captions_BE)


@torch.no_grad()
def patch_share(model: Model, images_BCHW: Tensor, captions_BE: Tensor) -> Tensor:
    """Return what each patch adds to the picture's cosine with the caption: [B, N].

    Where the picture is the mean of its patches (pool gap) the sum over patches is that cosine.
    """
    patches_BNE = _embed_each(model, images_BCHW)
    pooled_BE = model.image_head(model.features(model.patches(images_BCHW)))
    products_BN = torch.einsum("bne,be->bn", patches_BNE, captions_BE)
    length = patches_BNE.shape[1] * pooled_BE.norm(dim=1, keepdim=True)
    return products_BN / length.clamp(min=1e-12)


def grad_cam(model: Model, images_BCHW: Tensor, captions_BE: Tensor) -> Tensor:
    """Weigh the channels before the last block by their mean gradient, keep what adds: [B, N].

    Source: Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2; the score is the cosine
    of picture and caption, the activations are the patch tokens that the last block is given.
    """
    with torch.no_grad():
        states = model.image.states(model.patches(images_BCHW))
    with torch.enable_grad():
        last_BLD = states[-2].detach().requires_grad_()
        pooled_BD = model.pool(model.image.stack(last_BLD, first=len(states) - 2))
        embedded_BE = F.normalize(model.image_head(pooled_BD), dim=1)
        (slope_BLD,) = torch.autograd.grad((embedded_BE * captions_BE).sum(), last_BLD)
    first = model.image.prefix
    weights_BD = slope_BLD[:, first:].mean(dim=1)
    return torch.einsum("bnd,bd->bn", last_BLD.detach()[:, first:], weights_BD).relu()


METHODS: Mapping[str, Callable[[Model, Tensor, Tensor], Tensor]] = dict(
    zip(MAPS, (patch_cosine, patch_share, grad_cam), strict=True)
)


def _embed_each(model: Model, images_BCHW: Tensor) -> Tensor:
    """Put each patch token alone through the head: [B, N, E].

    Pools that only select or average leave a lone patch as it is. One with weights of its own
    moves it to the space that the head reads, so the patch goes through it.
    """
    tokens_BLD = model.image(model.patches(images_BCHW))
    patches_BND = tokens_BLD[:, model.image.prefix :]
    if model.recipe.pool == "map":
        batch, count, width = patches_BND.shape
        alone = patches_BND.reshape(batch * count, 1, width)
        patches_BND = model.attention_pool(alone).reshape(batch, count, width)
    return model.image_head(patches_BND)
