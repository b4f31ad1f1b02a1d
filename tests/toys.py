"""The training of a run on a toy world, and what is measured of it afterwards."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from breadth.loaders.batch import Batch
from breadth.train.evaluate.probe import Split, probe
from breadth.train.inputs import draw_inputs
from breadth.train.recipe import TrainRecipe
from breadth.train.seeds import generator
from breadth.train.terms import Pixels
from breadth.train.trainee import Trainee, make_trainee
from breadth.train.update import take_step

from .toy_worlds import (
    KINDS,
    STRIPES,
    TEXTURES,
    UNKNOWN,
    UNSEEN,
    WORD,
    Pairs,
    captions_of,
    glyph_pairs,
    linked_pairs,
    stripe_batches,
    stripe_pairs,
    texture_batches,
    texture_pairs,
    whole,
)

CPU = torch.device("cpu")
SMALL = {
    "width": 32,
    "depth": 2,
    "heads": 2,
    "text_width": 32,
    "text_depth": 1,
    "text_heads": 2,
    "embedding": 32,
    "decoder_width": 32,
    "decoder_depth": 1,
    "decoder_heads": 2,
}


def toy_recipe(**options) -> TrainRecipe:
    """Return a recipe for pictures of 16 patches and towers of two blocks."""
    defaults = {"name": "toy", "terms": {"InfoNCE": 1}, "size": SMALL, "steps": 300}
    shape = {"image_px": 16, "patch_px": 4, "context_length": 10, "batch_pairs": 64}
    rates = {"lr": 3e-3, "weight_decay": 0.01}
    return TrainRecipe(**{**defaults, **shape, **rates, **options})


def fit(recipe: TrainRecipe, pairs_of: Callable[[int], Pairs], vocabulary: int) -> Trainee:
    """Train on the batch that ``pairs_of`` has for each step; what train() does without a disk."""
    trainee = make_trainee(recipe, vocabulary, CPU)
    carry_on(trainee, pairs_of)
    return trainee


def carry_on(trainee: Trainee, pairs_of: Callable[[int], Pairs]) -> None:
    """Take a recipe's steps."""
    while trainee.step < trainee.recipe.steps:
        images, tokens = pairs_of(trainee.step)
        uids = [f"{row:032x}" for row in range(len(images))]
        take_step(trainee, Batch(uids, images, tokens, np.arange(len(images))))
    trainee.model.eval()


def zero_shot(trainee: Trainee, seed: int, each: int = 80) -> float:
    """Return how often an unseen colour with a glyph finds its caption among all 36."""
    colour_n, glyph_n = UNSEEN.repeat_interleave(each, 0).T
    images, _ = glyph_pairs(colour_n, glyph_n, generator(seed, "unseen"))
    kinds = torch.arange(KINDS)
    words = torch.cartesian_prod(kinds, KINDS + kinds)
    found = embedded(trainee, images) @ captioned(trainee, captions_of(words)).T
    return share(found.argmax(dim=1) == colour_n * KINDS + glyph_n)


def share(hits: Tensor) -> float:
    """Return the share of true ones."""
    return hits.double().mean().item()


@torch.no_grad()
def embedded(trainee: Trainee, images: Tensor) -> Tensor:
    """Embed pictures."""
    return trainee.model.embed_patches(trainee.model.patches(images))


@torch.no_grad()
def captioned(trainee: Trainee, tokens: Tensor) -> Tensor:
    """Embed captions."""
    return trainee.model.embed_tokens(tokens)


def recall(trainee: Trainee, seed: int) -> float:
    """Return how often an unseen latent's picture finds its caption among the 32 unseen ones."""
    images, tokens = linked_pairs(UNKNOWN, generator(seed, "unseen"))
    found = embedded(trainee, images) @ captioned(trainee, tokens).T
    return share(found.argmax(dim=1) == torch.arange(len(UNKNOWN)))


def named(trainee: Trainee, pairs_of: Callable[[int], Pairs]) -> float:
    """Return how often a fresh picture finds its one word."""
    images, tokens = pairs_of(-1)
    words = captioned(trainee, captions_of(torch.arange(KINDS)[:, None]))
    found = (embedded(trainee, images) @ words.T).argmax(dim=1)
    return share(found == tokens[:, 1] - WORD)


def read_off(trainee: Trainee, images: Tensor, kind_n: Tensor) -> dict:
    """Return a linear probe's score: half of the pictures fit it, a sixth choose, a third score."""
    with torch.no_grad():
        features = trainee.model.features(trainee.model.patches(images)).numpy()
    rows = np.arange(len(images))
    split = Split(*np.split(rows, [len(rows) // 2, 2 * len(rows) // 3]))
    return probe(features, kind_n.numpy(), int(kind_n.max()) + 1, split)


def stripes_read(trainee: Trainee, seed: int, pictures: int = 1200) -> float:
    """Return how often a probe reads a picture's stripes, which no caption names."""
    numbers = generator(seed, "probed")
    kind_n = whole(numbers, len(STRIPES), pictures)
    return read_off(trainee, stripe_pairs(kind_n, numbers)[0], kind_n)["value"]


def textures_read(trainee: Trainee, seed: int, pictures: int = 1200) -> float:
    """Return how often a probe reads a picture's texture, which no caption names."""
    numbers = generator(seed, "probed")
    kind_n = whole(numbers, TEXTURES, pictures)
    return read_off(trainee, texture_pairs(kind_n, numbers)[0], kind_n)["value"]


def patch_named(trainee: Trainee, seed: int, pictures: int = 400) -> float:
    """Return how often a fresh picture of a texture finds the colour of its one coloured patch."""
    return named(trainee, texture_batches(seed, pictures))


@torch.no_grad()
def filled_in(trainee: Trainee, seed: int, pictures: int = 400) -> float:
    """Return the loss on hidden patches over that of the mean visible colour in their place."""
    pairs = stripe_batches(seed, pictures)(-1)
    inputs = draw_inputs(trainee.recipe, *pairs, 10**6, vocabulary=trainee.vocabulary).on(CPU)
    total, count = Pixels().loss(trainee.model(inputs))
    hidden_BN = inputs.masks["masked image"].hidden_BL
    pixels = trainee.model.patches(pairs[0]).unflatten(2, (3, -1))
    seen_BN1 = ~hidden_BN[..., None]
    colour = (pixels.mean(dim=3) * seen_BN1).sum(1, keepdim=True) / seen_BN1.sum(1, keepdim=True)
    flat = (pixels - colour[..., None]).square().flatten(2).mean(dim=2)[hidden_BN].mean()
    return (total / count / flat).item()


@torch.no_grad()
def guessed(trainee: Trainee, pairs: Pairs) -> float:
    """Return how often the likeliest word is the hidden one."""
    inputs = draw_inputs(trainee.recipe, *pairs, 10**6, vocabulary=trainee.vocabulary)
    views = trainee.model(inputs.on(CPU))
    return share(views["token_logits"].argmax(dim=1) == views["hidden_tokens"])


@torch.no_grad()
def crops_found(trainee: Trainee, seed: int) -> float:
    """Return how often a crop finds the other one of its picture among those of all 36 kinds."""
    colour_n, glyph_n = torch.cartesian_prod(torch.arange(KINDS), torch.arange(KINDS)).T
    hits = []
    for step in range(10):
        pairs = glyph_pairs(colour_n, glyph_n, generator(seed, "fresh crops", step))
        inputs = draw_inputs(
            trainee.recipe, *pairs, 10**6 + step, vocabulary=trainee.vocabulary
        ).on(CPU)
        views = trainee.model(inputs)
        found = (views["crop_1"] @ views["crop_2"].T).argmax(dim=1)
        hits.append(found == torch.arange(len(found)))
    return share(torch.cat(hits))
