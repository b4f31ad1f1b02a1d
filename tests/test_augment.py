"""Augmentation: crops, mirrors and colours that a position draws."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.stats import ks_2samp

from breadth.loaders.augment import mirror, normalise, vary_colours
from breadth.loaders.crop import Box, random_resized_crop
from breadth.loaders.decode import decode_into

from .made_pictures import photo

sides = st.integers(1, 5000)


def drawn_as_torchvision_does(rng: np.random.Generator, width: int, height: int) -> Box:
    """Draw a crop by the published rule, with a generator: the oracle of the distribution."""
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            return Box(int(left), int(top), w, h)
    w, h = (width, round(width / (3 / 4))) if width < height else (round(height * 4 / 3), height)
    return Box((width - w) // 2, (height - h) // 2, w, h)


def batch(pictures: int, px: int = 12) -> tuple[torch.Tensor, np.ndarray]:
    """Return pictures, channels last in memory as a stream's are, and their positions."""
    pixels = np.stack([photo(px, px, seed) for seed in range(pictures)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), np.arange(1000, 1000 + pictures)


def factors_of(positions: np.ndarray, seed: int, strength: float) -> np.ndarray:
    """Find the three factors of each position, by pictures on which they show one by one."""
    flat = torch.full((len(positions), 3, 1, 2), 0.3)
    split, tinted = flat.clone(), flat.clone()
    split[:, :, :, 0], split[:, :, :, 1] = 0.25, 0.35
    tinted[:, 0], tinted[:, 2] = 0.28, 0.32
    flat, split, tinted = (
        vary_colours(p, positions, seed, strength) for p in (flat, split, tinted)
    )
    brightness = flat[:, 0, 0, 0] / 0.3
    contrast = (split[:, 0, 0, 1] - split[:, 0, 0, 0]) / 0.1 / brightness
    saturation = (tinted[:, 2, 0, 0] - tinted[:, 0, 0, 0]) / 0.04 / brightness / contrast
    return torch.stack([brightness, contrast, saturation], 1).double().numpy()


@given(st.integers(0, 2**62), st.integers(0, 2**32), sides, sides)
def test_a_crop_lies_in_the_picture(position: int, seed: int, width: int, height: int) -> None:
    """A crop has pixels, none of them outside, of any picture."""
    left, top, w, h = random_resized_crop(position, seed, width, height)
    assert w > 0
    assert h > 0
    assert 0 <= left <= width - w
    assert 0 <= top <= height - h


@pytest.mark.parametrize(("width", "height"), [(640, 480), (256, 256), (300, 900)])
def test_crops_are_drawn_as_torchvision_draws_them(width: int, height: int) -> None:
    """Places, areas and ratios of many crops are distributed as the published rule has them."""
    rng = np.random.default_rng(0)
    ours = np.array([random_resized_crop(p, 7, width, height) for p in range(4000)], float)
    theirs = np.array([drawn_as_torchvision_does(rng, width, height) for _ in range(4000)], float)
    for of in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2] * b[:, 3]):
        assert ks_2samp(of(ours), of(theirs)).pvalue > 0.001
    assert ks_2samp(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]).pvalue > 0.001


def test_a_crop_depends_on_position_and_seed_alone() -> None:
    """The same position and seed draw the same crop for ever; another of either draws another."""
    drawn = [random_resized_crop(p, 0, 640, 480) for p in range(3)]
    assert drawn == [(323, 131, 157, 197), (196, 12, 329, 299), (4, 78, 220, 271)]
    assert len({random_resized_crop(p, s, 640, 480) for p in range(50) for s in range(50)}) > 2450


@pytest.mark.parametrize(("size", "shape"), [((4000, 10), 4 / 3), ((10, 4000), 3 / 4)])
def test_a_very_long_picture_shows_its_middle(size: tuple[int, int], shape: float) -> None:
    """Where no crop of an allowed ratio is drawn, it is the largest in the middle."""
    left, top, w, h = random_resized_crop(1, 0, *size)
    assert w / h == pytest.approx(shape, rel=0.1)
    assert (left, top) == ((size[0] - w) // 2, (size[1] - h) // 2)
    assert min(w, h) >= 7


def test_crops_reach_every_border() -> None:
    """In a tiny picture each place where a crop fits is drawn, the last row and column too."""
    boxes = {random_resized_crop(p, 0, 3, 3) for p in range(20_000)}
    for w, h in {(box.width, box.height) for box in boxes}:
        places = {(left, top) for left in range(4 - w) for top in range(4 - h)}
        assert {box[:2] for box in boxes if box[2:] == (w, h)} == places


def test_a_scale_bounds_the_area() -> None:
    """With scale 0.9 to 1 no crop loses more than a tenth, but for rounding."""
    areas = [
        w * h
        for p in range(500)
        for _, _, w, h in [random_resized_crop(p, 0, 500, 400, scale=(0.9, 1.0))]
    ]
    assert min(areas) > 0.895 * 500 * 400


def test_the_decoder_shows_the_crop_that_was_drawn() -> None:
    """What is decoded with a crop is that box of the picture, enlarged."""
    sink = io.BytesIO()
    pixels = photo(60, 40)
    Image.fromarray(pixels).save(sink, "PNG")
    out = np.empty((30, 30, 3), np.uint8)
    decode_into(sink.getvalue(), out, lambda width, height: Box(width - 30, height - 30, 30, 30))
    assert (out == pixels[10:40, 30:60]).all()


def test_half_of_the_pictures_are_mirrored() -> None:
    """A position decides whether left and right change places, whatever else is in the batch."""
    images, positions = batch(200)
    mirrored = mirror(images, positions, seed=3)
    is_other = (mirrored != images).any(1).any(1).any(1)
    assert 70 < is_other.sum() < 130
    assert torch.equal(mirrored[is_other], images[is_other].flip(3))
    assert torch.equal(mirror(images[50:60], positions[50:60], seed=3), mirrored[50:60])
    assert not torch.equal(mirror(images, positions, seed=4), mirrored)


def test_colours_vary_as_pillow_would_vary_them() -> None:
    """Brightness, contrast and saturation change by factors that the position draws."""
    images, positions = batch(40, 24)
    varied = vary_colours(images, positions, seed=1, strength=0.5)
    factors = factors_of(positions, seed=1, strength=0.5)
    assert (np.ptp(factors, axis=0) > 0.6).all()
    assert (np.abs(factors - 1) <= 0.5).all()
    assert (np.abs(np.corrcoef(factors.T) - np.eye(3)) < 0.4).all()  # drawn one by one
    for one in range(40):
        expected = Image.fromarray(images[one].permute(1, 2, 0).numpy())
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for kind, factor in zip(kinds, factors[one], strict=True):
            expected = kind(expected).enhance(factor)
        ours = (varied[one].permute(1, 2, 0) * 255).numpy()
        assert np.abs(ours - np.asarray(expected)).max() < 4  # Pillow rounds three times
    assert torch.equal(vary_colours(images[7:9], positions[7:9], 1, 0.5), varied[7:9])
    unchanged = vary_colours(images, positions, 1, 0.0)
    torch.testing.assert_close(unchanged, images.float() / 255, atol=1e-6, rtol=0)


def test_normalising_takes_off_the_mean_of_each_channel() -> None:
    """Pictures become (value / 255 - mean) / std, in the same order in memory."""
    images, _ = batch(3)
    mean, std = (0.5, 0.25, 0.125), (0.5, 0.25, 0.75)
    normal = normalise(images, mean, std)
    expected = (images.double().permute(0, 2, 3, 1) / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(normal.double().permute(0, 2, 3, 1), expected, atol=1e-6, rtol=0)
    assert normal.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(normalise(images.float() / 255, mean, std), normal)
