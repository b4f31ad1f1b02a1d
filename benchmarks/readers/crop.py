"""Decode a JPEG and bring a random piece of it to a square, as scripts of the peers' users do."""

import math
import random
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Draw left, top, width, height as torchvision's RandomResizedCrop does."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left = random.randint(0, width - across)
            return left, random.randint(0, height - down), across, down
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def with_simplejpeg(px: int) -> Callable[..., np.ndarray]:
    """Return a function of a file's bytes to uint8 [px, px, 3]: simplejpeg, resized by OpenCV."""

    def crop(encoded: bytes, out: np.ndarray | None = None) -> np.ndarray:
        pixels = simplejpeg.decode_jpeg(encoded, "RGB")
        left, top, width, height = random_box(pixels.shape[1], pixels.shape[0])
        piece = pixels[top : top + height, left : left + width]
        return cv2.resize(piece, (px, px), dst=out, interpolation=cv2.INTER_LINEAR)

    return crop


def of_picture(picture: Image.Image, px: int) -> np.ndarray:
    """Crop and resize what Pillow has decoded, with Pillow."""
    left, top, width, height = random_box(*picture.size)
    box = (left, top, left + width, top + height)
    return np.asarray(picture.resize((px, px), Image.Resampling.BILINEAR, box=box))


def stack(pieces: Sequence[np.ndarray]) -> torch.Tensor:
    """Make a batch of pieces, as ``default_collate`` does, in one copy."""
    return torch.from_numpy(np.stack(pieces))
