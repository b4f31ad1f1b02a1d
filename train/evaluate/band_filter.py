"""Take a band of frequencies out of pictures, in cycles per picture in any direction."""

import numpy as np


def keep_band(images_nCHW: np.ndarray, low: float, high: float) -> np.ndarray:
    """Keep frequencies from ``low`` up to, not including, ``high``, and the mean.

    uint8, same shape. An ideal filter: what is kept keeps size and phase. Values are rounded and
    held to 0 to 255.
    """
    height, width = images_nCHW.shape[-2:]
    radius = np.hypot(
        np.fft.fftfreq(height, 1 / height)[:, None], np.fft.rfftfreq(width, 1 / width)
    )
    kept = (radius >= low) & (radius < high)
    kept[0, 0] = True
    spectrum = np.fft.rfft2(images_nCHW) * kept
    filtered = np.fft.irfft2(spectrum, s=(height, width))
    return np.clip(np.round(filtered), 0, 255).astype(np.uint8)


def low_pass(images_nCHW: np.ndarray, cutoff: float) -> np.ndarray:
    """Keep what is coarser than ``cutoff`` cycles per picture."""
    return keep_band(images_nCHW, 0, cutoff)


def high_pass(images_nCHW: np.ndarray, cutoff: float) -> np.ndarray:
    """Keep ``cutoff`` cycles per picture and what is finer; brightness stays."""
    return keep_band(images_nCHW, cutoff, np.inf)
