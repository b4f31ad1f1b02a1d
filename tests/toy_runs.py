"""Every toy run: a recipe, its world, what is measured afterwards, and how long it trains.

``make proofs`` runs each on five seeds; tests/test_toys.py runs most of them once, shorter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from breadth.train.seeds import generator
from breadth.train.trainee import Trainee, start_from

from . import toys, toys_words
from .toys import WORD, toy_recipe

LATENT = {"image_px": 16, "patch_px": 16}  # one patch, so that nothing but the pairs is to learn
QUARTERS = {"image_px": 16, "patch_px": 8, "context_length": 4}
NEEDLE = {"size": {**toys.SMALL, "depth": 1}, "batch_pairs": 32}
CHAINS = {"image_px": 8, "patch_px": 8, "caption_queries": 2, "lr": 5e-3}
TEXTURE = {"context_length": 3, "lr": 5e-3}
CROPS = {"context_length": 3, "patch_px": 4, "crop_area": 0.5}
JOINT = {"Pixels": 1, "Tokens": 0.5}
CORRUPTED = {"Tokens": {"masking": "corrupted"}}


@dataclass(frozen=True)
class ToyRun:
    """What to train on, with which options, for how many steps, and what to measure.

    ``batches`` and ``measure`` are given the seed; ``after`` is the run whose weights it begins
    with; ``best`` says in words what the measure is at best, ``chance`` what it is by chance.
    """

    batches: Callable[[int], Callable[[int], toys.Pairs]]
    measure: Callable[[Trainee, int], Any]
    words: int
    steps: int
    options: dict[str, Any] = field(default_factory=dict)
    after: str = ""


def train_toy(name: str, seed: int, steps: int = 0) -> Trainee:
    """Train a toy run of a seed, for its own number of steps or another."""
    run = TOYS[name]
    steps = steps or run.steps
    recipe = toy_recipe(**{**run.options, "seed": seed, "steps": steps})
    trainee = toys.make_trainee(recipe, WORD + run.words, toys.CPU)
    if run.after:
        start_from(trainee, train_toy(run.after, seed).model.state_dict())
    toys.carry_on(trainee, run.batches(seed))
    return trainee


def result(name: str, seed: int, steps: int = 0) -> Any:
    """Train a toy run of a seed and measure it on pairs that it has not seen."""
    return TOYS[name].measure(train_toy(name, seed, steps), seed)


def fresh(batches: Callable[[int], Callable[[int], toys.Pairs]], seed: int) -> toys.Pairs:
    """Return one large batch that no run has trained on."""
    return batches(seed)(-1)


def _linked(shuffled: bool = False) -> ToyRun:
    def batches(seed: int) -> Callable[[int], toys.Pairs]:
        return toys.linked_batches(seed, 64, shuffled=shuffled)

    return ToyRun(batches, toys.recall, 16, 120, {**LATENT, "lr": 5e-3, "context_length": 6})


def _unseen(steps: int, noise: float = 0.0, **options: Any) -> ToyRun:
    def batches(seed: int) -> Callable[[int], toys.Pairs]:
        return toys.glyph_batches(seed, 64, noise)

    return ToyRun(batches, toys.zero_shot, 12, steps, {**QUARTERS, **options})


def _needle(pool: str, side: int) -> ToyRun:
    def batches(seed: int) -> Callable[[int], toys.Pairs]:
        return toys.needle_batches(seed, 32, side)

    def measure(trainee: Trainee, seed: int) -> float:
        return toys.named(trainee, toys.needle_batches(seed, 400, side), toys.KINDS)

    options = {**NEEDLE, "pool": pool, "image_px": 4 * side, "context_length": 3}
    return ToyRun(batches, measure, toys.KINDS, 150, options)


def _tint(**options: Any) -> ToyRun:
    def measure(trainee: Trainee, seed: int) -> float:
        return toys.guessed(trainee, toys.tint_batches(seed, 600)(-1))

    options = {**QUARTERS, "context_length": 3, **options}
    return ToyRun(lambda seed: toys.tint_batches(seed, 64), measure, toys.KINDS, 100, options)


def _stripes(steps: int, **options: Any) -> ToyRun:
    return ToyRun(
        lambda seed: toys.stripe_batches(seed, 64),
        toys.stripes_read,
        toys.KINDS,
        steps,
        {**TEXTURE, **options},
    )


def _filled(steps: int, **options: Any) -> ToyRun:
    def measure(trainee: Trainee, seed: int) -> float:
        found, flat = toys.filled_in(trainee, toys.stripe_batches(seed, 400)(-1))
        return found / flat

    return ToyRun(
        lambda seed: toys.stripe_batches(seed, 64),
        measure,
        toys.KINDS,
        steps,
        {**TEXTURE, **options},
    )


def _glyphs(steps: int, **terms: float) -> ToyRun:
    return ToyRun(
        lambda seed: toys.coloured_batches(seed, 64),
        toys.glyph_read,
        toys.KINDS,
        steps,
        {**CROPS, "terms": terms},
    )


def _chain(
    words: int, steps: int, measure: Callable[..., Any], *, both: bool = False, **options: Any
) -> ToyRun:
    def measured(trainee: Trainee, seed: int) -> Any:
        numbers = generator(seed, "fresh captions")
        return measure(trainee, toys_words.chain_pairs(words, 600, numbers, both=both))

    return ToyRun(
        lambda seed: toys_words.chain_batches(seed, 64, words, both=both),
        measured,
        toys_words.V,
        steps,
        {**CHAINS, "context_length": words + 2, **options},
    )


TOYS: dict[str, ToyRun] = {
    "linked: clip": _linked(),
    "linked: clip, captions shuffled": _linked(shuffled=True),
    "unseen: clip": _unseen(150),
    "unseen: align, 30 % wrong captions": _unseen(
        300, 0.3, architecture="align", terms={"InfoNCE": {"label_smoothing": 0.1}}
    ),
    "unseen: siglip": _unseen(200, architecture="siglip", pool="map", terms={"Sigmoid": 1}),
    "unseen: flip": _unseen(200, patch_dropout=0.25),
    "unseen: coca": _unseen(
        150, architecture="coca", caption_queries=2, terms={"InfoNCE": 1, "Caption": 2}
    ),
    **{
        f"needle: {pool}, {side**2} patches": _needle(pool, side)
        for side in (2, 6)
        for pool in ("gap", "map", "max")
    },
    "tint: m3ae": _tint(towers="shared", terms=JOINT),
    "tint: two towers, joint decoder": _tint(terms=JOINT),
    "tint: two towers, decoder apart": _tint(terms=JOINT, decoder="apart"),
    "tint: tokens alone": _tint(terms={"Tokens": 1}),
    "chain: coca": _chain(
        8,
        300,
        toys_words.written,
        both=True,
        architecture="coca",
        terms={"InfoNCE": 1, "Caption": 2},
    ),
}
"""By name: the world, then what learns it."""
