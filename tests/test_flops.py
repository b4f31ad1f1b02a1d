"""Counted operations against torch's own counter, and the speed that is made of them."""

import time
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from breadth.train import speed
from breadth.train.flops import full_lengths, lengths_of, pair_flops
from breadth.train.inputs import draw_inputs
from breadth.train.model import Model
from breadth.train.recipe import load_recipe, shipped_recipes
from breadth.train.speed import DATA_SHEETS, Meter, Peak, device_peak
from breadth.train.step import Step, weights_at

from .test_terms import make_recipe

META = torch.device("meta")
PAIRS = 4
NANO = {"size": "nano", "image_px": 32, "patch_px": 8, "context_length": 16, "vocabulary": 512}
MORE = {
    "apart": {"terms": {"Pixels": 1, "Tokens": 1}, "decoder": "apart"},
    "words": {"terms": {"Tokens": 1}},
    "49 patches": {"terms": {"Pixels": 1}, "image_px": 56, "patch_px": 8},
    "map": {"terms": {"InfoNCE": 1, "NTXent": 1}, "pool": "map", "patch_dropout": 0.5},
    "writer": {"terms": {"Caption": 1}, "architecture": "coca", "patch_dropout": 0.5},
}


def shipped(name, size):
    """Return a shipped recipe of that size; SigLIP's own table is its small."""
    recipe = load_recipe(name)
    if size == "nano":
        recipe = replace(recipe, **NANO)
    elif recipe.architecture != "siglip":
        recipe = replace(recipe, size=size)
    return replace(recipe, precision="float32", batch_pairs=PAIRS)


def captions(recipe):
    """Return captions of falling length."""
    tokens = torch.full((PAIRS, recipe.context_length), 9)
    tokens[:, 0] = 1
    for row in range(PAIRS):
        end = recipe.context_length - 1 - row
        tokens[row, end] = 2
        tokens[row, end + 1 :] = 0
    return tokens


def counted(recipe):
    """Return what torch counts in a step on no device, with attention written out, a pair."""
    with META:
        model = Model(recipe, recipe.vocabulary)
    images = torch.zeros(PAIRS, 3, recipe.image_px, recipe.image_px, dtype=torch.uint8)
    inputs = draw_inputs(recipe, images, captions(recipe), 0, vocabulary=recipe.vocabulary)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        weights = weights_at(recipe.objective, 0, {})
        Step(recipe, model, META).backward(inputs, weights)
    return counter.get_total_flops() / PAIRS, lengths_of(inputs)


SHIPPED = [(name, size) for name in shipped_recipes() for size in ("nano", "small")]
SHIPPED = [(name, size) for name, size in SHIPPED if size == "nano" or name[:4] != "demo"]


@pytest.mark.parametrize(("name", "size"), SHIPPED)
def test_shipped_recipes_cost_what_torch_counts(name, size):
    """Within 1 %; the difference is the blur of crops, which is no matrix of the model."""
    recipe = shipped(name, size)
    expected, lengths = counted(recipe)
    assert pair_flops(recipe, recipe.vocabulary, lengths) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", MORE)
def test_other_choices_cost_what_torch_counts(name):
    """Decoders apart, captions alone, attention pools and dropped patches."""
    recipe = make_recipe(**MORE[name], batch_pairs=PAIRS)
    expected, lengths = counted(recipe)
    assert pair_flops(recipe, 300, lengths) == pytest.approx(expected, rel=0.01)


def test_full_captions_are_the_longest():
    """The lengths that are taken without a batch are those of captions that fill the context."""
    recipe = make_recipe()
    tokens = torch.full((4, 10), 9)
    tokens[:, 0], tokens[:, -1] = 1, 2
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    inputs = draw_inputs(recipe, images, tokens, 0, vocabulary=300)
    assert lengths_of(inputs) == full_lengths(recipe)


def test_speed_is_pairs_by_time_and_flops(monkeypatch):
    """Over two ranks, without the time of a checkpoint; the peak is said once."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meter = Meter(Peak(4.0, "somebody"), world=2)
    meter.add(60)
    meter.add(40)
    now[0] += 5
    meter.pause(3)
    read = meter.read(1e10)
    assert read == {
        "samples_per_s": 50.0,
        "tflop_per_s": 0.5,
        "mfu": 0.0625,
        "peak": "2 x 4 TFLOP/s (somebody)",
    }
    meter.add(10)
    now[0] += 1
    assert meter.read(1e10) == {"samples_per_s": 10.0, "tflop_per_s": 0.1, "mfu": 0.0125}


def test_the_peak_is_the_data_sheet_s_or_measured(monkeypatch):
    """A known card by its name, the longer one first; else as quick as matrices are multiplied."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 PCIe")
    peak = device_peak(torch.device("cuda"), "bfloat16")
    assert peak.tflop_per_s == DATA_SHEETS["H100 PCIe"]
    assert "data sheet" in peak.origin
    measured = device_peak(torch.device("cpu"), "float32")
    assert 1e-4 < measured.tflop_per_s < 100
    assert "measured" in measured.origin


@pytest.mark.parametrize(
    ("card", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_a_card_is_known_by_whole_words(monkeypatch, card, known):
    """A name that only begins as one of the data sheets' is measured."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: card)
    monkeypatch.setattr(speed, "_measured", lambda *_: Peak(1.0, "measured"))
    expected = DATA_SHEETS[known] if known else 1.0
    assert device_peak(torch.device("cuda"), "bfloat16").tflop_per_s == expected
