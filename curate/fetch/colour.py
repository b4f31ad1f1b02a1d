"""Bring colours to sRGB: profiles, inks and transparency."""

import io
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

ALMOST = 2
"""Levels of 255 by which a profile's colours may differ from sRGB's and still be taken for them."""

_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Bring grey, BGR or CMYK pixels to sRGB (grey stays grey) by their ICC profile.

    A profile that cannot be read, or is of another colour space than the pixels, is not used, as
    browsers do; CMYK then loses light to each ink. Cost: 0.3 ms for 256 x 256 where the profile
    is not sRGB already.
    """
    channels = _channels(pixels)
    transform = _transform(profile, channels) if profile else None
    if transform is None:
        return _without_ink(pixels) if channels == 4 else pixels
    source = pixels[:, :, ::-1] if channels == 3 else pixels
    size = (pixels.shape[1], pixels.shape[0])
    picture = Image.frombytes(_MODES[channels], size, np.ascontiguousarray(source).tobytes())
    changed = np.asarray(ImageCms.applyTransform(picture, transform))
    return changed[:, :, 1].copy() if channels == 1 else cv2.cvtColor(changed, cv2.COLOR_RGB2BGR)


def is_srgb(pixels: np.ndarray, profile: bytes) -> bool:
    """Say whether pixels with this profile, or none (""), are in sRGB or a grey of it already."""
    channels = _channels(pixels)
    return channels != 4 and not (profile and _transform(profile, channels))


def _channels(pixels: np.ndarray) -> int:
    return 1 if pixels.ndim == 2 else int(pixels.shape[2])


def _without_ink(cmyk: np.ndarray) -> np.ndarray:
    """Bring CMYK without a profile to BGR: each ink takes its part of the light away."""
    light = 255 - cmyk.astype(np.uint16)
    return ((light[:, :, 2::-1] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _transform(profile: bytes, channels: int) -> Any:
    """Return the transform to sRGB; None where it would change nothing or the profile is no use."""
    mode = _MODES[channels]
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    before = _lattice() if mode == "RGB" else np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    picture = Image.frombytes(mode, (before.shape[1], 1), before.tobytes())
    after = np.asarray(ImageCms.applyTransform(picture, transform))
    return None if np.abs(after.astype(int) - before).max() <= ALMOST else transform


def _lattice() -> np.ndarray:
    """Return 18 steps of each colour with those of the others: uint8 [1, 5832, 3]."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
