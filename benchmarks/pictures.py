"""Draw JPEGs that cost a decoder what photographs cost it: scenes of the world under 1/f noise."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

from breadth.loaders.world import World, picture, scene

WIDTH, HEIGHT = 640, 480
QUALITY = 85  # with 4:2:0, what most of the web's photographs have
_FIELD = (1024, 1536)  # px; crops of it differ from picture to picture, and it is drawn once
_CONTRAST = 28.0  # grey levels, the median: the mean file then has about 72 KB
_SPREAD = 0.5  # of the contrast's logarithm, so that sizes differ as photographs' do


def draw(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write ``count`` files and return them.

    Cost: about 10 ms a picture and core. The same count and seed draw the same pictures.
    """
    noise = _noise(np.random.default_rng([seed, 0]))
    world = World(seed=seed)

    def write(index: int) -> Path:
        encoded = _encoded(world, index, noise, np.random.default_rng([seed, 1, index]))
        file = folder / f"{index:06d}.jpg"
        file.write_bytes(encoded)
        return file

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(write, range(count)))


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Return float32 [h, w, 3] in grey levels of deviation 1: light, and two smoother colours."""
    light, one, other = (_field(rng, exponent) for exponent in (1.2, 1.4, 1.4))
    colours = one[..., None] * np.array([1, -0.3, -0.7], np.float32)
    colours += other[..., None] * np.array([-0.4, 0.8, -0.4], np.float32)
    return np.asarray(light[..., None] + np.float32(0.25) * colours)


def _field(rng: np.random.Generator, exponent: float) -> np.ndarray:
    """Return noise whose amplitude falls as 1/f^exponent, as that of natural pictures does."""
    height, width = _FIELD
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    phase = np.exp(2j * np.pi * rng.random(frequency.shape))
    field = np.fft.irfft2(phase * frequency**-exponent, _FIELD)
    return (field / field.std()).astype(np.float32)


def _encoded(world: World, index: int, noise: np.ndarray, rng: np.random.Generator) -> bytes:
    above = (WIDTH - HEIGHT) // 2  # scenes are square
    drawn = picture(scene(world, index), WIDTH)[above : above + HEIGHT]
    top, left = (int(rng.integers(n)) for n in (_FIELD[0] - HEIGHT, _FIELD[1] - WIDTH))
    grain = noise[top : top + HEIGHT, left : left + WIDTH]
    contrast = np.float32(_CONTRAST * np.exp(_SPREAD * rng.normal()))
    pixels = np.clip(0.6 * drawn.astype(np.float32) + 50 + contrast * grain, 0, 255)
    return simplejpeg.encode_jpeg(
        pixels.astype(np.uint8), quality=QUALITY, colorspace="RGB", colorsubsampling="420"
    )
