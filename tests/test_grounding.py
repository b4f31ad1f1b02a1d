"""Pointing and energy by brute force, and a run that is known to look at the right place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from breadth.loaders.scene_drawing import COLOURS, boxes
from breadth.loaders.world import World, scene
from breadth.train.evaluate.grounding import energy, grounding, pointing, randomised
from breadth.train.evaluate.heat_maps import METHODS

from .made_runs import Told, told, untrained

WORLD = World(seed=8)
SCENES = [scene(WORLD, i) for i in range(40)]


class ColourTower(nn.Module):
    """Every pixel is a token that is large in the channels of colours that it is near."""

    prefix = 1

    def forward(self, patches):
        tones = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
        near = (torch.cdist(patches, tones) / -15).exp()
        return torch.cat([torch.zeros_like(near[:, :1]), near], dim=1)

    def states(self, patches):
        return [self(patches), self(patches)]

    def stack(self, tokens, first=0):
        return tokens


class ColourModel(nn.Module):
    """A model whose maps are known: the nearness of each pixel to the colour that is named."""

    def __init__(self, recipe):
        super().__init__()
        self.recipe, self.image, self.image_head = recipe, ColourTower(), nn.Identity()

    def patches(self, images):
        return images.flatten(2).transpose(1, 2).float()

    def features(self, patches):
        return self.pool(self.image(patches))

    def pool(self, tokens):
        return tokens[:, 1:].mean(dim=1)


class ColourRun(Told):
    """A run that reads of a caption only which colour it names."""

    def embed_captions(self, captions):
        names = list(COLOURS)
        named = [next(n for n in names if f" {n} " in caption) for caption in captions]
        return np.eye(len(names), dtype=np.float32)[[names.index(n) for n in named]]


def _colour_run(px=32):
    made = told((), {}, px)
    recipe = replace(made.recipe, patch_px=1)
    values = {**made.__dict__, "recipe": recipe, "model": ColourModel(recipe)}
    return ColourRun(**values)


def test_a_run_that_looks_at_the_named_thing_is_always_right():
    """A model whose heat is nearness to the named colour hits every box by every map."""
    result = grounding(_colour_run(), SCENES[:24])
    for method in METHODS:
        for thing in ("main", "companions"):
            found = result["maps"][method][thing]
            # By direction alone a smoothed rim may tie with the thing itself.
            assert found["pointing"]["value"] >= (0.99 if method == "cosine" else 1)
            assert found["energy"]["value"] > 1.3 * found["energy"]["chance"]


def test_the_middle_is_measured_as_by_hand():
    """Pointing at the middle hits where the four middle pixels touch a box, energy is a bell's."""
    px = 24
    rows = grounding(_colour_run(px), SCENES[:10])["rows"]
    first = rows["method"] == "cosine"
    bell = np.array(
        [
            [np.exp(-8 * ((x + 0.5) / px - 0.5) ** 2 - 8 * ((y + 0.5) / px - 0.5) ** 2)]
            for y in range(px)
            for x in range(px)
        ]
    ).reshape(px, px)
    bell -= bell.min()
    for number, thing, hit, share in zip(
        *(rows[n][first] for n in ("scene", "thing", "pointing_middle", "energy_middle")),
        strict=True,
    ):
        corners = boxes(SCENES[number], px)
        corners = corners[:1] if thing == "main" else corners[1:]

        def inside(y, x, corners=corners):
            return any(a < x + 1 and x < c and b < y + 1 and y < d for a, b, c, d in corners)

        assert hit == np.mean([inside(y, x) for y in (11, 12) for x in (11, 12)])
        here = sum(bell[y, x] for y in range(px) for x in range(px) if inside(y, x))
        assert share == pytest.approx(here / bell.sum(), abs=1e-5)


def test_ties_count_by_expectation():
    """Of equally hot pixels each is pointed at with equal chance; a flat map scores the area."""
    target = np.zeros((3, 4, 4), bool)
    target[:, :2, :2] = True
    maps = np.zeros((3, 4, 4), np.float32)
    maps[0, 0, 0] = maps[0, 3, 3] = maps[0, 3, 2] = 5
    maps[1, 1, 1] = 1e-3
    maps[1, 3, 3] = 0.9e-3
    assert pointing(maps, target) == pytest.approx([1 / 3, 1, 4 / 16])
    assert energy(maps, target) == pytest.approx([1 / 3, 1 / 1.9, 4 / 16])
    assert energy(maps - 7, target) == pytest.approx(energy(maps, target), abs=1e-3)


def test_random_weights_forget_what_was_learnt_and_leave_the_run_alone():
    """All matrices differ from the run's, equal seeds give equal ones, the run keeps its own."""
    run = untrained()
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    one, same, other = (dict(randomised(run, s).model.named_parameters()) for s in (1, 1, 2))
    for name, own in run.model.named_parameters():
        assert torch.equal(own, before[name]) and torch.equal(one[name], same[name])
        if own.ndim == 2:
            assert not torch.equal(own, one[name]) and not torch.equal(one[name], other[name])


def test_scores_are_means_of_the_rows():
    """Every number can be made again from the rows: values, errors and paired differences."""
    result = grounding(untrained(), SCENES[:12])
    rows = result["rows"]
    assert {len(column) for column in rows.values()} == {len(rows["scene"])}
    for method in METHODS:
        for thing in ("main", "companions"):
            own = (rows["method"] == method) & (rows["thing"] == thing)
            for name in ("pointing", "energy"):
                found, values = result["maps"][method][thing][name], rows[name][own]
                assert found["value"] == pytest.approx(values.mean())
                assert found["standard_error"] == pytest.approx(values.std() / own.sum() ** 0.5)
                assert found["chance"] == pytest.approx(rows["area"][own].mean())
                gained = values - rows[f"{name}_random"][own]
                assert found["above_random"]["value"] == pytest.approx(gained.mean())
                error = gained.std() / own.sum() ** 0.5
                assert found["above_random"]["standard_error"] == pytest.approx(error)


def test_a_run_that_has_learnt_nothing_is_no_better_than_random_weights():
    """Its pointing at companions lies within four errors of that of random weights."""
    found = grounding(untrained(), SCENES)["maps"]["cosine"]["companions"]["pointing"]
    assert abs(found["above_random"]["value"]) < 4 * found["above_random"]["standard_error"]
