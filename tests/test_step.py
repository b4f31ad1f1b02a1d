"""The gradient of a step: the same however the batch is cut, for towers and logit scale."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from breadth.loaders.batch import Batch
from breadth.train.crops import cut
from breadth.train.gradients import compare, gradient_units, term_gradients
from breadth.train.inputs import draw_inputs
from breadth.train.model import build_model
from breadth.train.objective import read_terms
from breadth.train.step import Step, weights_at
from breadth.train.terms import IGNORED
from breadth.train.trainee import make_trainee
from breadth.train.update import take_step

from .test_terms import CPU, JOINT, make_batch, make_recipe

FAMILY = {
    "clip": {"terms": {"InfoNCE": 1}},
    "align": {"terms": {"InfoNCE": {"label_smoothing": 0.1, "equal_captions": "ignored"}}},
    "siglip": {"terms": {"Sigmoid": 1}, "architecture": "siglip", "pool": "map"},
    "flip": {"terms": {"InfoNCE": 1}, "architecture": "clip", "pool": "cls", "patch_dropout": 0.5},
    "mae": {"terms": {"Pixels": 1}, "architecture": "mae", "pixel_target": "patch"},
    "bert": {"terms": {"Tokens": {"masking": "corrupted"}}, "text_mask": 0.15},
    "m3ae": {"terms": {"Pixels": 1, "Tokens": 0.5}, "towers": "shared"},
    "simclr": {"terms": {"NTXent": 1}},
    "slip": {"terms": {"InfoNCE": 1, "NTXent": 1}, "pool": "max"},
    "coca": {"terms": {"InfoNCE": 1, "Caption": 2}, "architecture": "coca"},
    "maeclip": {"terms": JOINT, "pool": "topk:2"},
}


def gradients(options, dtype, micro):
    """Return means and gradients of one batch of 8 pairs cut into micro-batches."""
    recipe = make_recipe(**options, batch_pairs=8, micro_batch_pairs=micro)
    model = build_model(recipe, 300).to(dtype)
    inputs = draw_inputs(recipe, *make_batch(8), 3, vocabulary=300)
    means = Step(recipe, model, CPU).backward(inputs, weights_at(recipe.objective, 0, {}))
    return means, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_micro_batches_give_the_gradient_of_the_whole(name, dtype, tolerance):
    """Four micro-batches, or eight of one pair, equal one batch in loss and every gradient."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        means, whole = gradients(FAMILY[name], dtype, 0)
        for micro in (2, 1):
            cut_means, cut = gradients(FAMILY[name], dtype, micro)
            assert cut.keys() == whole.keys()
            for key, value in whole.items():
                scale = max(1.0, value.abs().max().item())
                assert (cut[key] - value).abs().max().item() < tolerance * scale, key
            for key, value in means.items():
                assert cut_means[key].item() == pytest.approx(value.item(), rel=1e-5)
    finally:
        torch.set_default_dtype(default)


def test_the_gradient_is_that_of_the_weighted_means():
    """Autograd on the explicit sum of weights times means gives the same, term by term."""
    recipe = make_recipe(batch_pairs=8)
    model, inputs = (
        build_model(recipe, 300),
        draw_inputs(make_recipe(), *make_batch(8), 0, vocabulary=300),
    )
    step, weights = Step(recipe, model, CPU), {"InfoNCE": 0.5, "Pixels": 2.0, "Tokens": 0.0}
    step.backward(inputs, weights)
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    views = step._gathered(model(inputs.on(CPU)))
    losses = {n: e.term.loss(views) for n, e in recipe.objective.items()}
    total = sum(weights[n] * total / count for n, (total, count) in losses.items())
    expected = torch.autograd.grad(total, list(model.parameters()))
    for (name, value), other in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-7, msg=name)


def test_weights_follow_their_points():
    """Straight lines between the points, the last weight after them."""
    terms = {"InfoNCE": 1, "Pixels": {"weight": [[0.2, 0.0], [0.6, 4.0]]}}
    objective = read_terms(terms)
    found = [weights_at(objective, share, {})["Pixels"] for share in (0, 0.2, 0.3, 0.6, 1.0)]
    assert found == pytest.approx([0, 0, 1, 4, 4])
    assert weights_at(objective, 0.6, {"Pixels": 0.5})["Pixels"] == 2.0


def test_gradient_units_make_terms_equally_long():
    """Weighed in units of gradient, each term pulls the encoder as hard as the first."""
    pixels = {"weight": 1, "unit": "gradient"}
    recipe = make_recipe(terms={"InfoNCE": 1, "Pixels": pixels, "Tokens": 1}, batch_pairs=8)
    model = build_model(recipe, 300)
    step = Step(recipe, model, CPU)
    inputs = draw_inputs(recipe, *make_batch(8), 0, vocabulary=300)
    each = term_gradients(step, model, inputs)
    units = gradient_units(step, each)
    assert units.keys() == {"Pixels"}
    lengths = {name: g.norm().item() for name, g in each.items()}
    assert units["Pixels"] * lengths["Pixels"] == pytest.approx(lengths["InfoNCE"])
    said = compare(each)
    cosine = torch.nn.functional.cosine_similarity(each["InfoNCE"], each["Pixels"], dim=0)
    assert said["cosine/InfoNCE/Pixels"] == pytest.approx(cosine.item(), abs=1e-6)
    assert all(p.grad is None for p in model.parameters())


def logged(**options):
    """Return the log line of the second of ten steps, and the lengths that weights are given in."""
    trainee = make_trainee(make_recipe(**options, batch_pairs=8, steps=10), 300, CPU)
    images, tokens = make_batch(8)
    batch = Batch([f"{n:032x}" for n in range(8)], images, tokens, np.arange(8))
    taken = [take_step(trainee, batch) for _ in range(2)][1]
    return taken.metrics(trainee), trainee.units


def test_weights_that_change_are_logged():
    """A schedule's weight at the step, a gradient's in units of loss; a constant one never."""
    tokens = {"weight": 2, "unit": "gradient"}
    falls = {"weight": [[0, 1], [1, 0]]}
    row, units = logged(terms={"InfoNCE": 1, "Pixels": falls, "Tokens": tokens})
    weights = {key: value for key, value in row.items() if key.startswith("weight/")}
    assert weights == {"weight/Pixels": pytest.approx(0.9), "weight/Tokens": 2 * units["Tokens"]}
    parts = row["InfoNCE"] + 0.9 * row["Pixels"] + weights["weight/Tokens"] * row["Tokens"]
    assert row["loss"] == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize(
    ("terms", "uses"), [({"InfoNCE": 1, "Caption": 1}, True), ({"Caption": 1}, False)]
)
def test_the_logit_scale_is_logged_where_a_term_uses_it(terms, uses):
    """A captioner alone has one too, which nothing teaches."""
    assert ("logit_scale" in logged(terms=terms, architecture="coca")[0]) == uses


def test_the_sum_of_the_terms_gradients_is_the_step_s():
    """What is logged by term adds up to what the optimiser is given."""
    recipe = make_recipe(batch_pairs=8)
    model = build_model(recipe, 300)
    step = Step(recipe, model, CPU)
    inputs = draw_inputs(recipe, *make_batch(8), 0, vocabulary=300)
    each = term_gradients(step, model, inputs)
    step.backward(inputs, {"InfoNCE": 1.0, "Pixels": 1.0, "Tokens": 0.5})
    encoder = [p.grad for n, p in model.named_parameters() if not n.startswith("decoder.")]
    whole = torch.cat([g.flatten() for g in encoder])
    added = each["InfoNCE"] + each["Pixels"] + 0.5 * each["Tokens"]
    torch.testing.assert_close(added, whole, rtol=1e-4, atol=1e-6)


def test_a_placebo_s_gradient_reaches_no_tower():
    """Encoder gradients are CLIP's bit for bit; the decoder has its own."""
    clip, placebo = make_recipe(terms={"InfoNCE": 1}), make_recipe(placebo=True)
    found = {}
    for name, recipe in (("clip", clip), ("placebo", placebo)):
        model = build_model(replace(recipe, batch_pairs=8), 300)
        inputs = draw_inputs(recipe, *make_batch(8), 0, vocabulary=300)
        Step(recipe, model, CPU).backward(inputs, weights_at(recipe.objective, 0, {}))
        found[name] = {n: p.grad for n, p in model.named_parameters()}
    assert all(torch.equal(value, found["placebo"][n]) for n, value in found["clip"].items())
    decoder = {n: g for n, g in found["placebo"].items() if n.startswith("decoder.")}
    assert decoder and all(g is not None and g.any() for g in decoder.values())


@pytest.mark.parametrize("name", ["clip", "maeclip", "coca"])
def test_recomputed_activations_change_no_bit(name):
    """Blocks that are computed twice give the gradient of blocks that are kept."""
    _, kept = gradients(FAMILY[name], torch.float32, 0)
    _, again = gradients({**FAMILY[name], "recomputes": True}, torch.float32, 0)
    assert all(torch.equal(value, again[key]) for key, value in kept.items())


@pytest.mark.parametrize("name", ["maeclip", "bert", "coca", "m3ae"])
def test_padding_for_compiled_code_changes_no_gradient(name):
    """Places and slots that are there for equal shapes alone add nothing."""
    whole_means, whole = gradients(FAMILY[name], torch.float32, 0)
    means, padded = gradients({**FAMILY[name], "compiled": True}, torch.float32, 0)
    assert padded.keys() == whole.keys()
    for key, value in whole.items():
        torch.testing.assert_close(padded[key], value, rtol=1e-4, atol=1e-6, msg=key)
    for key, value in whole_means.items():
        assert means[key].item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("text_mask", [0.75, 0.15])
def test_shapes_for_compiled_code_are_few(text_mask):
    """Over 20 batches of captions of all lengths the tower's slots are one number, places few."""
    recipe = make_recipe(batch_pairs=8, compiled=True, text_mask=text_mask)
    slots, places = set(), set()
    for seed in range(20):
        inputs = draw_inputs(recipe, *make_batch(8, seed), seed, vocabulary=300)
        moved = inputs.on(CPU, padded=True)
        slots.add(moved.masks["masked text"].keep_BK.shape[1])
        places |= {len(flat) for flat in moved.places.values()}
        hidden = inputs.masks["masked text"].hidden_BL.sum()
        assert (moved.known["hidden_tokens"] != IGNORED).sum() == hidden
    assert len(slots) == 1
    assert places <= {8, 16, 24, 32, 40, 48, 56, 64, 72}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["clip", "siglip", "slip", "maeclip", "coca"])
def test_a_step_never_waits_for_the_device(name):
    """From pictures in memory to the updated weights, torch reports no synchronisation."""
    recipe = make_recipe(**FAMILY[name], batch_pairs=8)
    trainee = make_trainee(recipe, 300, torch.device("cuda"))
    images, tokens = make_batch(8)
    batch = Batch([f"{n:032x}" for n in range(8)], images, tokens, np.arange(8))
    take_step(trainee, batch)  # the first one makes the optimiser's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        take_step(trainee, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Lifted(TorchDispatchMode):
    """Counts tensors made of Python's numbers, each of which a GPU's host would wait for."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation is torch.ops.aten.lift_fresh.default
        return operation(*args, **(kwargs or {}))


def test_crops_are_cut_without_numbers_from_the_host():
    """Nothing that must be copied to the device is made on the way."""
    recipe = make_recipe(terms={"NTXent": 1}, batch_pairs=4)
    images, captions = make_batch(4)
    crop = draw_inputs(recipe, images, captions, 0, vocabulary=300).crops[0]
    with Lifted() as lifted:
        cut(images, crop)
    assert lifted.count == 0


def test_crops_are_cut_in_full_precision():
    """In a run of bfloat16, too, where a grid of that precision is half a pixel off."""
    recipe = make_recipe(terms={"NTXent": 1}, batch_pairs=4)
    images, captions = make_batch(4)
    crop = draw_inputs(recipe, images, captions, 0, vocabulary=300).crops[0]
    expected = cut(images, crop)
    with torch.autocast("cpu", torch.bfloat16):
        found = cut(images, crop)
    assert torch.equal(found, expected)
