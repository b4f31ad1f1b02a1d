"""The spectrum of token maps, against Fourier sums and signals of which it is known."""

import numpy as np
import pytest
import torch

from breadth.loaders.errors import Refused
from breadth.loaders.world import World, picture, scene
from breadth.train.evaluate.drawn_scores import relative_log_amplitude
from breadth.train.evaluate.token_spectrum import (
    map_power,
    powers_by_layer,
    token_spectrum,
)

from .made_runs import untrained

IMAGES = np.stack([picture(scene(World(2), i), 32).transpose(2, 0, 1) for i in range(70)])


def test_power_is_what_the_sums_of_fourier_say():
    """Ring by ring against sums written out, on maps of 8 x 8 with three channels."""
    maps = np.random.default_rng(0).normal(size=(8, 8, 3))
    y, x = np.mgrid[0:8, 0:8]
    rings = {ring: [] for ring in range(5)}
    for down in range(-4, 4):
        for across in range(-4, 4):
            wave = np.exp(-2j * np.pi * (down * y + across * x) / 8)
            ring = round(float(np.hypot(down, across)))
            if ring in rings:
                rings[ring] += [abs((maps[:, :, d] * wave).sum()) ** 2 for d in range(3)]
    assert map_power(maps) == pytest.approx([np.mean(rings[ring]) for ring in range(5)])


def test_white_noise_is_flat():
    """No frequency of noise lies further from the lowest than five standard errors."""
    maps = np.random.default_rng(1).normal(size=(400, 8, 8, 16))
    found = relative_log_amplitude(map_power(maps))
    relative, error = (np.array(found[k]) for k in ("relative_log_amplitude", "standard_error"))
    assert relative[0] == error[0] == 0
    assert (np.abs(relative[1:]) < 5 * error[1:]).all() and error.max() < 0.02


def test_a_smooth_map_falls_off():
    """Noise summed along both sides has less of every higher frequency; stripes have but one."""
    noise = np.random.default_rng(2).normal(size=(100, 16, 16, 8))
    smooth = noise.cumsum(axis=1).cumsum(axis=2)
    falls = relative_log_amplitude(map_power(smooth))["relative_log_amplitude"]
    assert (np.diff(falls) < 0).all() and falls[-1] < -2
    stripes = map_power((-1.0) ** np.arange(8)[None, :, None] + np.zeros((8, 8, 1)))
    assert stripes.argmax() == 4 and stripes[:4].max() < 1e-9 * stripes[4]


def test_errors_are_those_of_leaving_pictures_out():
    """The delta method agrees with the jackknife."""
    powers = np.random.default_rng(3).gamma(2, size=(200, 4)) * [8, 4, 2, 1]
    found = relative_log_amplitude(powers)
    kept = [np.delete(powers, i, axis=0) for i in range(200)]
    left_out = np.array([relative_log_amplitude(k)["relative_log_amplitude"] for k in kept])
    jackknife = np.sqrt(199 * left_out.var(axis=0))
    assert found["standard_error"] == pytest.approx(jackknife, rel=0.05)


def test_every_layer_of_a_run_has_a_spectrum():
    """Before the first block and after each, at each whole frequency; rows rebuild the numbers."""
    found = token_spectrum(untrained(patch_px=4), IMAGES)
    assert len(found["layers"]) == 1 + 3
    assert (found["cycles"], found["pictures"]) == ([0, 1, 2, 3, 4], 70)
    power = found["rows"]["power"].reshape(70, 4, 5)
    for layer, kept in enumerate(found["layers"]):
        again = np.log(power[:, layer].mean(axis=0)) / 2
        assert kept["relative_log_amplitude"] == pytest.approx(again - again[0])


def test_what_a_position_always_is_does_not_count():
    """Large fixed positions change nothing before the first block; the picture's own maps do."""
    run = untrained(patch_px=4)
    plain = powers_by_layer(run, IMAGES)[:, 0]
    run.model.image.positions_ND.mul_(100).add_(torch.randn(64, 64))
    assert powers_by_layer(run, IMAGES)[:, 0] == pytest.approx(plain, rel=1e-3)
    tokens = run.model.image.patch(run.model.patches(torch.from_numpy(IMAGES))).detach().double()
    maps = (tokens - tokens.mean(dim=0)).numpy().reshape(70, 8, 8, 64)
    assert plain == pytest.approx(map_power(maps), rel=1e-3)


def test_too_few_tokens_or_pictures_are_refused():
    """4 x 4 tokens have no spectrum to speak of, one picture no content apart from position."""
    with pytest.raises(Refused, match="4 x 4 tokens"):
        token_spectrum(untrained(patch_px=8), IMAGES)
    with pytest.raises(Refused, match="two pictures"):
        token_spectrum(untrained(patch_px=4), IMAGES[:1])
