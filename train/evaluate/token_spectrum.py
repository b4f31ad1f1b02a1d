"""How fast the patch tokens of each layer change across the picture.

Source: Park et al. 2023 (arXiv 2305.00729), section 3.2 and figure 5: the log amplitude of the
Fourier transformed token maps, relative to that of the lowest frequency.
"""

from typing import Any

import numpy as np
import torch

from breadth.loaders.errors import Refused

from ..checkpoint import Run
from .drawn_scores import spectrum

_FEWEST_SIDE = 8
_AT_ONCE = 64


def token_spectrum(run: Run, images_nCHW: np.ndarray) -> dict[str, Any]:
    """Return the relative log amplitude of the patch tokens by layer and frequency.

    ``layers`` has ``relative_log_amplitude`` and its ``standard_error`` over pictures, one value
    for each of ``cycles``, before the first block and after each. Rows: ``power`` [n * layers *
    cycles] with picture, layer and cycles beside it. Raises Refused where a picture has fewer
    than 8 x 8 tokens. Cost: one forward pass, n * depth transforms of D small maps.
    """
    powers_nLF = powers_by_layer(run, images_nCHW)
    columns = np.meshgrid(*map(np.arange, powers_nLF.shape), indexing="ij")
    rows = {
        name: column.ravel()
        for name, column in zip(("picture", "layer", "cycles"), columns, strict=True)
    }
    rows["power"] = powers_nLF.ravel()
    return {**spectrum(rows), "rows": rows}


@torch.inference_mode()
def powers_by_layer(run: Run, images_nCHW: np.ndarray) -> np.ndarray:
    """Return the power of the token maps: float64 [n, layers, frequencies].

    What a position is on the average of all pictures is taken away first: it tells of the position
    code, not of a picture. Two passes, so that memory does not grow with pictures.
    """
    run.require_pictures(images_nCHW)
    side = run.recipe.image_px // run.recipe.patch_px
    if side < _FEWEST_SIDE:
        raise Refused(
            f"{run.path} sees {side} x {side} tokens: a spectrum needs {_FEWEST_SIDE} x "
            f"{_FEWEST_SIDE}; train with a smaller patch_px or a larger image_px"
        )
    if len(images_nCHW) < 2:
        raise Refused("a spectrum needs two pictures at least, to tell position from content")
    starts = range(0, len(images_nCHW), _AT_ONCE)
    chunks = [images_nCHW[start : start + _AT_ONCE] for start in starts]
    mean_LND = sum(_states(run, chunk).sum(axis=1) for chunk in chunks) / len(images_nCHW)
    return np.concatenate([_powers(_states(run, c) - mean_LND[:, None], side) for c in chunks])


def map_power(maps_SSD: np.ndarray) -> np.ndarray:
    """Return the mean power in each ring of frequencies: float64 [..., S // 2 + 1].

    maps: [..., S, S, D]. Ring f holds the frequencies whose radius rounds to f cycles per picture,
    up to the finest along a side; power is averaged over the ring and over D. Power and not
    amplitude, because for noise its mean is the same for real and complex coefficients.
    """
    side = maps_SSD.shape[-2]
    frequency = np.fft.fftfreq(side, 1 / side)
    ring = np.rint(np.hypot(frequency[:, None], frequency[None, :])).astype(int)
    power = (np.abs(np.fft.fft2(maps_SSD, axes=(-3, -2))) ** 2).mean(axis=-1)
    return np.stack([power[..., ring == f].mean(axis=-1) for f in range(side // 2 + 1)], axis=-1)


def _states(run: Run, images_nCHW: np.ndarray) -> np.ndarray:
    """Return the patch tokens by layer: float64 [layers, n, N, D]."""
    images = torch.from_numpy(np.ascontiguousarray(images_nCHW)).to(run.device)
    first = run.model.image.prefix
    states = run.model.image.states(run.model.patches(images))
    return torch.stack([state[:, first:].double().cpu() for state in states]).numpy()


def _powers(tokens_LnND: np.ndarray, side: int) -> np.ndarray:
    layers, pictures, _, width = tokens_LnND.shape
    maps = tokens_LnND.reshape(layers, pictures, side, side, width)
    return map_power(maps).swapaxes(0, 1)
