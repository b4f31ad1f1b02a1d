"""Gratings and band filters, judged by a classifier that knows all about them."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from breadth.loaders.errors import Refused
from breadth.loaders.gratings import COARSE, DIRECTIONS, Gratings, between, fine, wave_vector
from breadth.train.evaluate.band_filter import high_pass, keep_band, low_pass

N, PX = 600, 32


@pytest.fixture(scope="module")
def drawn():
    """Pictures [n, 3, px, px] and classes, by whether the bands agree."""
    worlds = {agree: Gratings(3, agree).draw(range(N), PX) for agree in (False, True)}
    return {k: (images.transpose(0, 3, 1, 2), told) for k, (images, told) in worlds.items()}


def _matched(images, radius):
    """Name the direction whose cosine and sine, at any phase, have the most in common with it."""
    y, x = np.mgrid[0:PX, 0:PX] / PX
    grey = images.mean(axis=1)
    energy = []
    for direction in range(DIRECTIONS):
        down, across = wave_vector(radius, direction)
        turn = 2 * np.pi * (down * y + across * x)
        parts = [(grey * wave(turn)).sum((1, 2)) ** 2 for wave in (np.cos, np.sin)]
        energy.append(parts[0] + parts[1])
    return np.argmax(energy, axis=0)


def _discriminant(images, labels):
    """Fit LDA on the log power at every frequency of half of the pictures; test on the rest."""
    power = np.abs(np.fft.rfft2(images.mean(axis=1))) ** 2
    logs = np.log(power + 1).reshape(N, -1)[:, 1:]
    half = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(logs[::2], labels[::2])
    return (half.predict(logs[1::2]) == labels[1::2]).mean()


def _chance(n):
    return 0.25, 4 * np.sqrt(0.25 * 0.75 / n)


@pytest.mark.parametrize(("task", "keeps", "loses"), [("low", 0, 1), ("high", 1, 0)])
def test_one_band_tells_the_label_and_the_other_does_not(drawn, task, keeps, loses):
    """A matched filter and LDA name nearly all in the right band, and guess in the other."""
    images, told = drawn[False]
    radius = COARSE if task == "low" else fine(PX)
    filters = (low_pass, high_pass)
    right, wrong = (filters[band](images, between(PX)) for band in (keeps, loses))
    assert (_matched(right, radius) == told[task]).mean() > 0.99
    assert _discriminant(right, told[task]) > 0.99
    chance, margin = _chance(N)
    assert abs((_matched(wrong, radius) == told[task]).mean() - chance) < margin
    chance, margin = _chance(N / 2)
    assert abs(_discriminant(wrong, told[task]) - chance) < margin


def test_where_bands_agree_either_tells_the_label(drawn):
    """The one label is read off the low band and off the high band alone."""
    images, told = drawn[True]
    for keep, radius in ((low_pass, COARSE), (high_pass, fine(PX))):
        filtered = keep(images, between(PX))
        assert (_matched(filtered, radius) == told["both"]).mean() > 0.99
        assert _discriminant(filtered, told["both"]) > 0.99


def test_gratings_are_drawn_by_index_alone(drawn):
    """Other company changes nothing, and values seldom reach the ends where waves would mix."""
    images, told = drawn[False]
    again, classes = Gratings(3).draw([7, 3], PX)
    assert (again.transpose(0, 3, 1, 2) == images[[7, 3]]).all()
    assert classes["low"].tolist() == told["low"][[7, 3]].tolist()
    assert np.isin(images, (0, 255)).mean() < 1e-4
    shares = np.bincount(told["low"] * DIRECTIONS + told["high"], minlength=16) / N
    assert np.abs(shares - 1 / 16).max() < 5 * np.sqrt(15) / 16 / np.sqrt(N)


@pytest.mark.parametrize("px", [24, 32, 64, 224])
def test_gratings_lie_in_their_bands_at_every_size(px):
    """The coarse directions are below the cutoff, the fine ones above it and below the finest."""
    coarse, finest = (
        [np.hypot(*wave_vector(radius, d)) for d in range(DIRECTIONS)] for radius in (3, fine(px))
    )
    assert max(coarse) < between(px) < min(finest) and max(finest) < px / 2
    assert len({wave_vector(fine(px), d) for d in range(DIRECTIONS)}) == DIRECTIONS


def test_pictures_too_small_for_two_bands_are_refused():
    """The message says how large they must be."""
    with pytest.raises(Refused, match="24 pixels"):
        Gratings().draw([0], 16)


def test_a_band_is_what_the_sums_of_fourier_say():
    """Against sums written out, frequency by frequency, on a picture of 8 x 8."""
    rng = np.random.default_rng(0)
    image = rng.integers(110, 146, (1, 3, 8, 8)).astype(np.uint8)
    y, x = np.mgrid[0:8, 0:8]
    kept = np.zeros((3, 8, 8))
    for down in range(-4, 4):
        for across in range(-4, 4):
            if (down, across) == (0, 0) or 1.5 <= np.hypot(down, across) < 3:
                wave = np.exp(2j * np.pi * (down * y + across * x) / 8)
                amount = (image[0] * wave.conj()).sum((1, 2)) / 64
                kept += (amount[:, None, None] * wave).real
    assert np.abs(keep_band(image, 1.5, 3)[0] - kept).max() <= 0.5 + 1e-9


def test_the_two_bands_and_the_mean_make_the_picture(drawn):
    """Low plus high less the mean gives every pixel back within rounding."""
    images = drawn[False][0][:50]
    mean = images.mean(axis=(2, 3), keepdims=True)
    summed = low_pass(images, between(PX)) + high_pass(images, between(PX)).astype(float) - mean
    assert np.abs(summed - images).max() <= 1 + 1e-9
