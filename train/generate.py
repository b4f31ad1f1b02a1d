"""What a run makes of pictures: captions that it writes, patches that it fills in.

Shapes: n pictures, H height, W width, N patches, T caption tokens.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from breadth.loaders.errors import Refused
from breadth.loaders.tokenize import BOS, EOS, PAD

from .blocks import unpatchify
from .checkpoint import EMBED_PAIRS, Run
from .decoder import patch_spread, patch_targets
from .inputs import Inputs
from .mask import hide_patches, hide_tokens
from .seeds import generator


class Reconstruction(NamedTuple):
    """Pictures as they are, as the tower saw them, and filled in: each uint8 [n, 3, H, W].

    ``loss_n`` is each picture's mean squared error over hidden patches in the recipe's target,
    ``flat_loss_n`` what the mean of the visible pixels scores in their place.
    """

    original: np.ndarray
    masked: np.ndarray
    predicted: np.ndarray
    loss_n: np.ndarray
    flat_loss_n: np.ndarray


def describe(run: Run, images_nCHW: np.ndarray) -> list[str]:
    """Write a caption for uint8 pictures [n, 3, H, W], the likeliest token at each step.

    Raises Refused where the run has not learnt to write. Cost: a pass through the caption towers
    for every token.
    """
    if not run.has_captioner:
        raise Refused(f"{run.path} was trained without Caption: it writes none; use a coca run")
    run.require_pictures(images_nCHW)
    captions: list[str] = []
    for start in range(0, len(images_nCHW), EMBED_PAIRS):
        tokens_nT = _written(run, images_nCHW[start : start + EMBED_PAIRS])
        captions += [_text(run, row) for row in tokens_nT.tolist()]
    return captions


@torch.inference_mode()
def _written(run: Run, images_nCHW: np.ndarray) -> Tensor:
    model = run.model
    image_BLD = model.image(model.patches(torch.from_numpy(images_nCHW).to(run.device)))
    tokens_BT = torch.full((len(images_nCHW), 1), BOS, device=run.device)
    ended_B = torch.zeros(len(images_nCHW), dtype=torch.bool, device=run.device)
    for _ in range(run.recipe.context_length - 1):
        text_BTD, _ = model.text(tokens_BT)
        length = tokens_BT.shape[1]
        places_B = torch.arange(len(tokens_BT), device=run.device) * length + length - 1
        next_B = model.captioner(image_BLD, text_BTD, places_B).argmax(dim=1)
        next_B = torch.where(ended_B, PAD, next_B)
        tokens_BT = torch.cat([tokens_BT, next_B[:, None]], dim=1)
        ended_B |= next_B == EOS
        if bool(ended_B.all()):
            break
    return tokens_BT


def _text(run: Run, tokens: list[int]) -> str:
    end = tokens.index(EOS) if EOS in tokens else len(tokens)
    written: str = run.tokenizer.decode(tokens[1:end], skip_special_tokens=True)
    return written.strip()


@torch.inference_mode()
def reconstruct(run: Run, images_nCHW: np.ndarray, seed: int = 0) -> Reconstruction:
    """Hide patches of uint8 pictures [n, 3, H, W] and fill them in.

    Captions are not shown: a joint decoder gets one that is empty. Targets that were normalised by
    patch are brought back with the hidden patch's own mean and variance, which the run does not
    know. Raises Refused where the run has not learnt to fill in, or is given no picture.
    """
    if not run.has_pixels:
        raise Refused(f"{run.path} was trained without Pixels: it fills in nothing; use mae")
    run.require_pictures(images_nCHW)
    if not len(images_nCHW):
        raise Refused("there is no picture to fill in: give one at least")
    noise_nN = torch.rand(
        len(images_nCHW), run.recipe.grid**2, generator=generator(seed, "reconstruct")
    )
    parts = [
        _filled_in(run, images_nCHW[at : at + EMBED_PAIRS], noise_nN[at : at + EMBED_PAIRS])
        for at in range(0, len(images_nCHW), EMBED_PAIRS)
    ]
    return Reconstruction(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _filled_in(run: Run, images_nCHW: np.ndarray, noise_nN: Tensor) -> Reconstruction:
    model, recipe = run.model, run.recipe
    images = torch.from_numpy(images_nCHW)
    empty_BT = torch.full((len(images), recipe.context_length), PAD)
    empty_BT[:, 0], empty_BT[:, 1] = BOS, EOS
    masks = {"masked image": hide_patches(noise_nN, recipe.image_mask)}
    if "masked text" in model.views:
        masks["masked text"] = hide_tokens(torch.zeros(empty_BT.shape), empty_BT, recipe.text_mask)
    inputs = Inputs(images, empty_BT, masks).on(run.device)
    patches_BNP = model.patches(inputs.images_BCHW)
    views = model.decoded(patches_BNP, inputs)
    target_BNP, predicted_BNP = views["target_patches"], views["predicted_patches"].float()
    hidden_BN = inputs.masks["masked image"].hidden_BL
    loss_n = _hidden_mean((predicted_BNP - target_BNP).square(), hidden_BN)
    seen_BN1 = ~hidden_BN[..., None]
    mean_B1P = (patches_BNP * seen_BN1).sum(1, keepdim=True) / seen_BN1.sum(1, keepdim=True)
    flat_BNP = (
        mean_B1P.unflatten(2, (3, -1))
        .mean(3, keepdim=True)
        .expand(-1, -1, 3, mean_B1P.shape[2] // 3)
    )
    flat_BNP = flat_BNP.flatten(2).expand_as(patches_BNP)
    flat_n = _hidden_mean((patch_targets(flat_BNP, recipe) - target_BNP).square(), hidden_BN)
    if recipe.pixel_target == "patch":
        mean_BN1, spread_BN1 = patch_spread(patches_BNP, recipe)
        predicted_BNP = predicted_BNP * spread_BN1 + mean_BN1
    grey_BNP = torch.zeros_like(patches_BNP)
    hidden_BN1 = hidden_BN[..., None]
    return Reconstruction(
        images_nCHW,
        _picture(run, torch.where(hidden_BN1, grey_BNP, patches_BNP)),
        _picture(run, torch.where(hidden_BN1, predicted_BNP, patches_BNP)),
        loss_n.cpu().numpy(),
        flat_n.cpu().numpy(),
    )


def _hidden_mean(error_BNP: Tensor, hidden_BN: Tensor) -> Tensor:
    return (error_BNP.mean(dim=2) * hidden_BN).sum(dim=1) / hidden_BN.sum(dim=1)


def _picture(run: Run, patches_BNP: Tensor) -> np.ndarray:
    """Undo cutting and normalising: uint8 [n, 3, H, W]."""
    pictures = unpatchify(patches_BNP, run.recipe.patch_px)
    pictures = pictures * run.model.pixel_std + run.model.pixel_mean
    levels: np.ndarray = (pictures.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return levels
