"""Every toy run: a recipe, its world, what is measured afterwards, and how long it trains.

``make proofs`` runs each on five seeds; tests/test_toys.py runs most of them once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from breadth.train.seeds import generator
from breadth.train.trainee import Trainee

from . import toy_chains, toy_worlds, toys
from .toy_worlds import KINDS, WORD, Pairs

LATENT = {"image_px": 16, "patch_px": 16, "context_length": 6, "lr": 5e-3}  # one patch
QUARTERS = {"image_px": 16, "patch_px": 8}
NEEDLE = {"size": {**toys.SMALL, "depth": 1}, "batch_pairs": 32, "context_length": 3}
STRIPES = {"context_length": 3, "architecture": "mae", "image_mask": 0.5, "lr": 5e-3}
TEXTURES = {"image_px": 32, "patch_px": 8, "crop_area": 0.3, "steps": 600}
CHAIN = {"image_px": 8, "patch_px": 8}
DEEP_TEXT = {"size": {**toys.SMALL, "text_depth": 2}, "architecture": "mae", "lr": 7e-3}
JOINT = {"Pixels": 1, "Tokens": 0.5}

Batches = Callable[[int], Pairs]


@dataclass(frozen=True)
class ToyRun:
    """What to train on, what to measure, and with which options.

    ``batches`` and ``measure`` are given the seed; the captions have so many kinds of ``words``.
    """

    batches: Callable[[int], Batches]
    measure: Callable[[Trainee, int], Any]
    words: int
    options: dict[str, Any]


def train_toy(name: str, seed: int, **options: Any) -> Trainee:
    """Train a toy run of a seed, with other options where given."""
    run = TOYS[name]
    recipe = toys.toy_recipe(**{**run.options, **options, "seed": seed})
    return toys.fit(recipe, run.batches(seed), WORD + run.words)


def result(name: str, seed: int) -> Any:
    """Train a toy run of a seed and measure it on pairs that it has not seen."""
    return TOYS[name].measure(train_toy(name, seed), seed)


def _linked(*, shuffled: bool) -> ToyRun:
    def batches(seed: int) -> Batches:
        return toy_worlds.linked_batches(seed, 64, shuffled=shuffled)

    return ToyRun(batches, toys.recall, 16, {**LATENT, "steps": 120})


def _unseen(steps: int, noise: float = 0.0, **options: Any) -> ToyRun:
    def batches(seed: int) -> Batches:
        return toy_worlds.glyph_batches(seed, 64, noise)

    options = {**QUARTERS, "context_length": 4, "steps": steps, **options}
    return ToyRun(batches, toys.zero_shot, 2 * KINDS, options)


def _crops() -> ToyRun:
    def batches(seed: int) -> Batches:
        return toy_worlds.glyph_batches(seed, 64)

    options = {**QUARTERS, "context_length": 4, "crop_area": 0.5, "steps": 150}
    return ToyRun(batches, toys.crops_found, 2 * KINDS, {**options, "terms": {"NTXent": 1}})


def _needle(pool: str, side: int) -> ToyRun:
    def batches(seed: int, pairs: int = 32) -> Batches:
        return toy_worlds.needle_batches(seed, pairs, side)

    def measure(trainee: Trainee, seed: int) -> float:
        return toys.named(trainee, batches(seed, 400))

    options = {**NEEDLE, "pool": pool, "image_px": 4 * side, "steps": 150}
    return ToyRun(batches, measure, KINDS, options)


def _tint(**options: Any) -> ToyRun:
    def batches(seed: int, pairs: int = 64) -> Batches:
        return toy_worlds.tint_batches(seed, pairs)

    def measure(trainee: Trainee, seed: int) -> float:
        return toys.guessed(trainee, batches(seed, 600)(-1))

    options = {**QUARTERS, "context_length": 3, "steps": 100, **options}
    return ToyRun(batches, measure, KINDS, options)


def _stripes(measure: Callable[[Trainee, int], float], **terms: float) -> ToyRun:
    def batches(seed: int) -> Batches:
        return toy_worlds.stripe_batches(seed, 64)

    options = {**STRIPES, "final_lr": 0.5, "steps": 700, "terms": terms}
    return ToyRun(batches, measure, KINDS, options)


def _textures(measure: Callable[[Trainee, int], float], **terms: float) -> ToyRun:
    def batches(seed: int) -> Batches:
        return toy_worlds.texture_batches(seed, 64)

    options = {**TEXTURES, "context_length": 3, "architecture": "mae", "lr": 5e-3, "terms": terms}
    return ToyRun(batches, measure, KINDS, options)


def _chain(
    words: int, measure: Callable[..., Any], *, both: bool = False, **options: Any
) -> ToyRun:
    def batches(seed: int) -> Batches:
        return toy_chains.chain_batches(seed, 64, words, both=both)

    def measured(trainee: Trainee, seed: int) -> Any:
        numbers = generator(seed, "fresh captions")
        return measure(trainee, toy_chains.chain_pairs(words, 600, numbers, both=both))

    options = {**CHAIN, "context_length": words + 2, **options}
    return ToyRun(batches, measured, toy_chains.V, options)


def _mended(**options: Any) -> ToyRun:
    return _chain(4, toy_chains.mended, **DEEP_TEXT, text_mask=0.5, steps=600, **options)


COCA = {"architecture": "coca", "terms": {"InfoNCE": 1, "Caption": 2}, "caption_queries": 2}

TOYS: dict[str, ToyRun] = {
    "linked: clip": _linked(shuffled=False),
    "linked: clip, captions shuffled": _linked(shuffled=True),
    "unseen: clip": _unseen(150),
    "unseen: align, 30 % wrong captions": _unseen(
        300, 0.3, architecture="align", terms={"InfoNCE": {"label_smoothing": 0.1}}
    ),
    "unseen: siglip": _unseen(
        300, architecture="siglip", pool="map", terms={"Sigmoid": 1}, lr=5e-3
    ),
    "unseen: flip": _unseen(200, patch_dropout=0.25),
    "unseen: coca": _unseen(150, **COCA),
    **{
        f"needle: {pool}, {side**2} patches": _needle(pool, side)
        for side in (2, 6)
        for pool in ("gap", "map", "max")
    },
    "tint: m3ae": _tint(towers="shared", terms=JOINT),
    "tint: two towers, joint decoder": _tint(terms=JOINT),
    "tint: two towers, decoder apart": _tint(terms=JOINT, decoder="apart"),
    "tint: tokens alone": _tint(terms={"Tokens": 1}),
    "crops: simclr": _crops(),
    "omitted stripes, probed: clip": _stripes(toys.stripes_read, InfoNCE=1),
    "omitted stripes, probed: maeclip, w = 1": _stripes(toys.stripes_read, InfoNCE=1, Pixels=1),
    "omitted stripes, probed: mae": _stripes(toys.stripes_read, Pixels=1),
    "omitted stripes, loss over mean patch's: mae": _stripes(toys.filled_in, Pixels=1),
    "omitted textures, probed: clip": _textures(toys.textures_read, InfoNCE=1),
    "omitted textures, probed: slip": _textures(toys.textures_read, InfoNCE=1, NTXent=1),
    "omitted textures, probed: simclr": _textures(toys.textures_read, NTXent=1),
    "omitted textures, colour named: clip": _textures(toys.patch_named, InfoNCE=1),
    "omitted textures, colour named: slip": _textures(toys.patch_named, InfoNCE=1, NTXent=1),
    "chain: coca": _chain(8, toy_chains.written, both=True, steps=300, lr=5e-3, **COCA),
    "chain: words dropped": _mended(terms={"Tokens": 1}),
    "chain: words corrupted": _mended(terms={"Tokens": {"masking": "corrupted"}}),
}
"""By name: the world, then what learns it."""
