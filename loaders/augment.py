"""Change whole batches where they are trained on: mirror, vary the colours, normalise.

What is drawn for a picture is a hash of its position and the seed, so it is the same on any rank,
device and after any resume, and new in every epoch. Crops are drawn while decoding (``crop``).
"""

# B pictures, H height, W width

import numpy as np
import torch
from torch import Tensor

from .shuffle import keys_of, mixed

GREY = (0.299, 0.587, 0.114)  # of red, green, blue (BT.601)


def mirror(images_B3HW: Tensor, positions: np.ndarray, seed: int) -> Tensor:
    """Exchange left and right in half of the pictures: [B, 3, H, W] of the same type."""
    chosen = _drawn("mirror", positions, seed, images_B3HW) < 0.5
    return torch.where(chosen, images_B3HW.flip(3), images_B3HW)


def vary_colours(
    images_B3HW: Tensor, positions: np.ndarray, seed: int, strength: float = 0.4
) -> Tensor:
    """Vary brightness, contrast and saturation, each by a factor of 1 - strength to 1 + strength.

    Takes uint8, or floats of 0 to 1; returns float32 of 0 to 1, [B, 3, H, W]. Source: ColorJitter
    of torchvision, but in this order always and without its change of hue.
    """
    pictures = _scaled(images_B3HW)
    factors = [
        1 + strength * (2 * _drawn(what, positions, seed, pictures) - 1)
        for what in ("brightness", "contrast", "saturation")
    ]
    return jitter(pictures, *factors)


def jitter(
    pictures_B3HW: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor
) -> Tensor:
    """Change floats of 0 to 1 by factors [B, 1, 1, 1], in this order; a saturation of 0 is grey."""
    pictures = (pictures_B3HW * brightness).clamp(0, 1)
    middle = _grey(pictures).mean((2, 3), keepdim=True)
    pictures = torch.lerp(middle, pictures, contrast).clamp(0, 1)
    return torch.lerp(_grey(pictures), pictures, saturation).clamp(0, 1)


def normalise(
    images_B3HW: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Bring uint8, or floats of 0 to 1, to (value - mean) / std by channel: float32 [B, 3, H, W].

    Memory stays in the order it has, channels last for a stream's batches.
    """
    shift, scale = (torch.tensor(v, device=images_B3HW.device).view(3, 1, 1) for v in (mean, std))
    return (_scaled(images_B3HW) - shift) / scale


def _scaled(images_B3HW: Tensor) -> Tensor:
    return images_B3HW.float() / 255 if images_B3HW.dtype == torch.uint8 else images_B3HW


def _grey(pictures_B3HW: Tensor) -> Tensor:
    # Numbers, not a tensor of them: to bring one to a GPU the host would wait for it.
    red, green, blue = (share * of for share, of in zip(GREY, pictures_B3HW.unbind(1), strict=True))
    return (red + green + blue)[:, None]


def _drawn(what: str, positions: np.ndarray, seed: int, images_B3HW: Tensor) -> Tensor:
    """Draw a number of [0, 1) for each position: float32 [B, 1, 1, 1], on the pictures' device."""
    bits = mixed(positions, keys_of(f"{what}/{seed}", 1)[0]) >> np.uint64(40)
    drawn = torch.from_numpy((bits / 2**24).astype(np.float32))
    return drawn.view(-1, 1, 1, 1).to(images_B3HW.device)
