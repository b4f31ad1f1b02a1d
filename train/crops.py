"""Two crops of each picture with colours of their own: the views of SimCLR, cut on the device.

Shapes: B batch, H height, W width.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from breadth.loaders.augment import jitter

GREY_SHARE = 0.2
BLUR_SHARE = 0.5
JITTER = 0.4
DRAWS = 11  # numbers that one crop takes


class Crop(NamedTuple):
    """What was drawn for one crop of each pair; every row is a pair's.

    ``box_B4`` is the middle (x, y) and the half size (x, y; x negative where mirrored) in
    coordinates from -1 to 1; ``factors_B3`` change brightness, contrast and saturation;
    ``is_grey_B`` drops colour; ``sigma_B`` is the blur's, in shares of the side, 0 for none.
    """

    box_B4: Tensor
    factors_B3: Tensor
    is_grey_B: Tensor
    sigma_B: Tensor


def draw_crop(uniform_BX: Tensor, least_area: float) -> Crop:
    """Make crops of uniform numbers [B, DRAWS]; ``least_area`` is the least share of the picture.

    Source: Chen et al. 2020 (SimCLR), appendix A: random resized crop, mirror, colour jitter, grey,
    blur; jitter is always on and has no change of hue.
    """
    area, ratio, across, down, flip, *colour, grey, blur, sigma = uniform_BX.unbind(dim=1)
    share = least_area + (1 - least_area) * area
    shape = torch.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * ratio)
    half = [(share * shape).sqrt().clamp(max=1), (share / shape).sqrt().clamp(max=1)]
    middle = [(2 * at - 1) * (1 - h) for at, h in ((across, half[0]), (down, half[1]))]
    half[0] = torch.where(flip < 0.5, half[0], -half[0])
    return Crop(
        torch.stack([*middle, *half], dim=1),
        1 + JITTER * (2 * torch.stack(colour, dim=1) - 1),
        grey < GREY_SHARE,
        torch.where(blur < BLUR_SHARE, (0.1 + 1.9 * sigma) / 224, 0),
    )


def cut(images_BCHW: Tensor, crop: Crop) -> Tensor:
    """Cut, blur and colour uint8 pictures: float32 [B, 3, H, W] of 0 to 1, of their size."""
    kind = images_BCHW.device.type
    if not torch.amp.is_autocast_available(kind):
        return _cut(images_BCHW, crop)
    with torch.autocast(kind, enabled=False):  # a grid of bfloat16 is half a pixel off
        return _cut(images_BCHW, crop)


def _cut(images_BCHW: Tensor, crop: Crop) -> Tensor:
    x, y, half_x, half_y = crop.box_B4.unbind(dim=1)
    zero = torch.zeros_like(x)
    theta_B23 = torch.stack([half_x, zero, x, zero, half_y, y], dim=1).view(-1, 2, 3)
    pictures = images_BCHW.float() / 255
    grid = F.affine_grid(theta_B23.float(), list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    return _colour(_blur(pictures, crop.sigma_B.float()), crop)


def _colour(pictures: Tensor, crop: Crop) -> Tensor:
    brightness, contrast, saturation = (
        f.view(-1, 1, 1, 1) for f in crop.factors_B3.float().unbind(1)
    )
    saturation = torch.where(crop.is_grey_B.view(-1, 1, 1, 1), 0, saturation)
    return jitter(pictures, brightness, contrast, saturation)


def _blur(pictures: Tensor, sigma_B: Tensor) -> Tensor:
    """Blur each picture by its own Gaussian, first along, then across."""
    batch, channels, height, width = pictures.shape
    reach = max(1, math.ceil(2 / 224 * 2 * width))  # two of the largest sigmas
    away = torch.arange(-reach, reach + 1, device=pictures.device)
    sigma = (sigma_B * width).clamp(min=1e-3)[:, None]
    kernel = torch.exp(-0.5 * (away / sigma) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)
    flat = pictures.reshape(1, batch * channels, height, width)
    for shape, pad in (((1, -1), (reach, reach, 0, 0)), ((-1, 1), (0, 0, reach, reach))):
        filters = kernel.view(batch * channels, 1, *shape)
        flat = F.conv2d(F.pad(flat, pad, mode="replicate"), filters, groups=batch * channels)
    return flat.view(batch, channels, height, width)
