"""Toy worlds of which the best possible answer is known, and the training of a run on them.

Shapes: n pairs, H height, W width, T caption tokens, L words, V kinds of words.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from breadth.loaders.batch import Batch
from breadth.loaders.tokenize import BOS, EOS, MASK
from breadth.train.evaluate.probe import Split, probe
from breadth.train.inputs import draw_inputs
from breadth.train.recipe import TrainRecipe
from breadth.train.seeds import generator
from breadth.train.terms import Pixels
from breadth.train.trainee import Trainee, make_trainee
from breadth.train.update import take_step

CPU = torch.device("cpu")
WORD = MASK + 1  # the first token that is a word
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

Pairs = tuple[Tensor, Tensor]
"""Pictures uint8 [n, 3, H, W] and captions int64 [n, T]."""


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
        uids = [str(row) for row in range(len(images))]
        take_step(trainee, Batch(uids, images, tokens, np.arange(len(images))), Path())
    trainee.model.eval()


def captions_of(words_nL: Tensor) -> Tensor:
    """Put begin and end around words that count from 0: [n, L + 2]."""
    ends = words_nL.new_tensor([BOS, EOS]).expand(len(words_nL), 2)
    return torch.cat([ends[:, :1], words_nL + WORD, ends[:, 1:]], dim=1)


def whole(numbers: torch.Generator, below: int, *shape: int) -> Tensor:
    """Draw whole numbers from 0 to ``below``."""
    return torch.randint(below, shape, generator=numbers)


def noisy(pictures: Tensor, numbers: torch.Generator, spread: float = 20.0) -> Tensor:
    """Add noise to pictures [n, 3, H, W] of 0 to 255 and round: uint8."""
    noise = torch.randn(pictures.shape, generator=numbers) * spread
    return (pictures.float() + noise).clamp(0, 255).byte()


COLOURS = torch.tensor(
    [[230, 40, 40], [40, 200, 40], [50, 60, 230], [220, 210, 40], [200, 50, 210], [40, 210, 210]]
)
GLYPHS = torch.tensor(
    [
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
        [[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]],
        [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]],
        [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]],
        [[1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1]],
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]],
    ]
)
KINDS = len(COLOURS)  # of colours, and as many of glyphs


UNSEEN = torch.tensor([[0, 0], [2, 2], [4, 4]])  # colours with glyphs that no batch has


def glyph_pairs(colour_n: Tensor, glyph_n: Tensor, numbers: torch.Generator) -> Pairs:
    """Draw a coloured glyph of 8 px in a quarter of a picture of 16; the caption names both."""
    glyphs = GLYPHS[glyph_n].repeat_interleave(2, 1).repeat_interleave(2, 2)
    drawn = glyphs[:, None] * COLOURS[colour_n][:, :, None, None]
    at_n = whole(numbers, 4, len(drawn))
    cells = torch.full((len(drawn), 4, 3, 8, 8), 90)
    cells[torch.arange(len(drawn)), at_n] = drawn
    rows = cells.view(-1, 2, 2, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, 16, 16)
    return noisy(rows, numbers), captions_of(torch.stack([colour_n, KINDS + glyph_n], dim=1))


def glyph_batches(seed: int, pairs: int, noise: float = 0.0) -> Callable[[int], Pairs]:
    """Return batches of all colours with all glyphs but the unseen; a share has wrong captions."""
    every = torch.cartesian_prod(torch.arange(KINDS), torch.arange(KINDS))
    unseen = (every[:, None] == UNSEEN).all(dim=2).any(dim=1)
    seen = every[~unseen]

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "glyphs", step)
        colour_n, glyph_n = seen[whole(numbers, len(seen), pairs)].T
        images, tokens = glyph_pairs(colour_n, glyph_n, numbers)
        wrong = int(noise * pairs)
        tokens[:wrong] = tokens[:wrong].roll(1, 0)
        return images, tokens

    return pairs_of


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


ORDER = torch.randperm(256, generator=generator(0, "latents"))
KNOWN, UNKNOWN = ORDER[:224], ORDER[224:]  # latents


def linked_pairs(latent_n: Tensor, numbers: torch.Generator) -> Pairs:
    """Paint each quarter in one of four colours, which the caption names in order: 256 latents."""
    digits_n4 = torch.stack([latent_n // 4**place % 4 for place in range(4)], dim=1)
    cells = COLOURS[digits_n4].view(-1, 2, 2, 3).permute(0, 3, 1, 2)
    pictures = cells.repeat_interleave(8, 2).repeat_interleave(8, 3)
    return noisy(pictures, numbers), captions_of(digits_n4 + 4 * torch.arange(4))


def linked_batches(seed: int, pairs: int, *, shuffled: bool = False) -> Callable[[int], Pairs]:
    """Return batches of the known latents; shuffled ones have any other's caption."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "linked", step)
        images, tokens = linked_pairs(KNOWN[whole(numbers, len(KNOWN), pairs)], numbers)
        return images, tokens[torch.randperm(pairs, generator=numbers)] if shuffled else tokens

    return pairs_of


def recall(trainee: Trainee, seed: int) -> float:
    """Return how often an unseen latent's picture finds its caption among the 32 unseen ones."""
    images, tokens = linked_pairs(UNKNOWN, generator(seed, "unseen"))
    found = embedded(trainee, images) @ captioned(trainee, tokens).T
    return share(found.argmax(dim=1) == torch.arange(len(UNKNOWN)))


def needle_batches(seed: int, pairs: int, side: int) -> Callable[[int], Pairs]:
    """Return pictures of side x side patches of 4 px: one has a colour to name, others are dull."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "needle", step)
        colour_n, at_n = whole(numbers, KINDS, pairs), whole(numbers, side**2, pairs)
        cells = 64 + whole(numbers, 129, pairs, side**2, 3)
        cells[torch.arange(pairs), at_n] = COLOURS[colour_n]
        pictures = cells.view(pairs, side, side, 3).permute(0, 3, 1, 2)
        pictures = pictures.repeat_interleave(4, 2).repeat_interleave(4, 3)
        return noisy(pictures, numbers, 5.0), captions_of(colour_n[:, None])

    return pairs_of


def named(trainee: Trainee, pairs_of: Callable[[int], Pairs], kinds: int) -> float:
    """Return how often a fresh picture finds its one word."""
    images, tokens = pairs_of(-1)
    words = captioned(trainee, captions_of(torch.arange(kinds)[:, None]))
    found = (embedded(trainee, images) @ words.T).argmax(dim=1)
    return share(found == tokens[:, 1] - WORD)


BROAD, FINE = torch.tensor([1, 1, -1, -1]), torch.tensor([1, -1, 1, -1])
STRIPES = torch.stack(
    [BROAD.expand(4, 4), FINE.expand(4, 4), BROAD.expand(4, 4).T, FINE.expand(4, 4).T]
)
"""Lighter and darker patches: stripes down or across, broad or fine."""


def stripe_pairs(kind_n: Tensor, numbers: torch.Generator) -> Pairs:
    """Draw 4 x 4 patches of one colour in stripes; the caption names the colour.

    Every patch is lighter or darker by chance too. One patch tells nothing of the stripes, nor does
    the mean over patches: only which is where does.
    """
    pairs = len(kind_n)
    level_n44 = 0.6 + 0.2 * STRIPES[kind_n] + 0.1 * torch.randn(pairs, 4, 4, generator=numbers)
    colour_n = whole(numbers, KINDS, pairs)
    pictures = COLOURS[colour_n][:, :, None, None] * level_n44[:, None]
    pictures = pictures.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return noisy(pictures, numbers, 5.0), captions_of(colour_n[:, None])


def stripe_batches(seed: int, pairs: int) -> Callable[[int], Pairs]:
    """Return batches of stripes."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "stripes", step)
        return stripe_pairs(whole(numbers, len(STRIPES), pairs), numbers)

    return pairs_of


def tint_batches(seed: int, pairs: int) -> Callable[[int], Pairs]:
    """Return pictures of one colour, which is the caption's only word: nothing else tells it."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "tints", step)
        colour_n = whole(numbers, KINDS, pairs)
        pictures = COLOURS[colour_n][:, :, None, None].expand(-1, -1, 16, 16)
        return noisy(pictures, numbers), captions_of(colour_n[:, None])

    return pairs_of


def coloured_batches(seed: int, pairs: int) -> Callable[[int], Pairs]:
    """Return glyphs of which the caption names the colour alone."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "coloured", step)
        images, tokens = glyph_pairs(*whole(numbers, KINDS, 2, pairs), numbers)
        return images, torch.cat([tokens[:, :2], tokens[:, 3:]], dim=1)

    return pairs_of


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


def glyph_read(trainee: Trainee, seed: int, pictures: int = 1200) -> float:
    """Return how often a probe reads which glyph a picture has."""
    numbers = generator(seed, "probed")
    colour_n, glyph_n = whole(numbers, KINDS, 2, pictures)
    return read_off(trainee, glyph_pairs(colour_n, glyph_n, numbers)[0], glyph_n)["value"]


@torch.no_grad()
def filled_in(trainee: Trainee, pairs: Pairs) -> tuple[float, float]:
    """Return the loss on hidden patches, and that of the mean visible pixel in their place."""
    inputs = draw_inputs(trainee.recipe, *pairs, 10**6, vocabulary=trainee.vocabulary).on(CPU)
    views = trainee.model(inputs)
    total, count = Pixels().loss(views)
    hidden_BN1 = inputs.masks["masked image"].hidden_BL[..., None]
    pixels = trainee.model.patches(pairs[0]).unflatten(2, (3, -1))
    seen = (pixels.mean(3) * ~hidden_BN1).sum(1, keepdim=True) / (~hidden_BN1).sum(1, keepdim=True)
    flat = (pixels - seen[..., None]).square().flatten(2).mean(2)[hidden_BN1[..., 0]].mean()
    return (total / count).item(), flat.item()


@torch.no_grad()
def guessed(trainee: Trainee, pairs: Pairs) -> float:
    """Return how often the likeliest word is the hidden one."""
    inputs = draw_inputs(trainee.recipe, *pairs, 10**6, vocabulary=trainee.vocabulary)
    views = trainee.model(inputs.on(CPU))
    return share(views["token_logits"].argmax(dim=1) == views["hidden_tokens"])


def _papers() -> Tensor:
    """Return eight patterns of 4 x 4 signs [8, 4, 4], balanced and orthogonal: Hadamard's."""
    signs = torch.ones(1, 1)
    for _ in range(4):
        signs = torch.cat([torch.cat([signs, signs]), torch.cat([signs, -signs])], dim=1)
    return signs[[1, 2, 4, 8, 6, 9, 11, 15]].view(8, 4, 4)


PAPERS = _papers()


def paper_pairs(kind_n: Tensor, numbers: torch.Generator, depth: float = 4.0) -> Pairs:
    """Draw wallpaper: a faint pattern, the same in every patch, under noise; the caption: colour.

    The noise is ten times as strong, but what patches have in common is the pattern.
    """
    colour_n = whole(numbers, KINDS, len(kind_n))
    middle = 128 + 0.4 * (COLOURS[colour_n] - 128)
    pictures = middle[:, :, None, None] + depth * PAPERS[kind_n].repeat(1, 4, 4)[:, None]
    return noisy(pictures, numbers, 40.0), captions_of(colour_n[:, None])


def paper_batches(seed: int, pairs: int) -> Callable[[int], Pairs]:
    """Return batches of wallpaper."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "papers", step)
        return paper_pairs(whole(numbers, len(PAPERS), pairs), numbers)

    return pairs_of


def paper_read(trainee: Trainee, seed: int, pictures: int = 1800) -> float:
    """Return how often a probe reads a wallpaper's pattern, which no caption names."""
    numbers = generator(seed, "probed")
    kind_n = whole(numbers, len(PAPERS), pictures)
    return read_off(trainee, paper_pairs(kind_n, numbers)[0], kind_n)["value"]


def grating_pairs(kind_n: Tensor, numbers: torch.Generator) -> Pairs:
    """Draw stripes in one of four directions that begin anywhere; the caption names the colour."""
    pairs = len(kind_n)
    colour_n = whole(numbers, KINDS, pairs)
    angle = kind_n * torch.pi / 4
    at = torch.arange(16.0)
    down, across = torch.sin(angle)[:, None, None], torch.cos(angle)[:, None, None]
    begin = 2 * torch.pi * torch.rand(pairs, 1, 1, generator=numbers)
    wave = torch.sin(2 * torch.pi / 6 * (down * at[:, None] + across * at) + begin)
    pictures = COLOURS[colour_n][:, :, None, None] * (0.6 + 0.2 * wave[:, None])
    return noisy(pictures, numbers), captions_of(colour_n[:, None])


def grating_batches(seed: int, pairs: int) -> Callable[[int], Pairs]:
    """Return batches of stripes."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "gratings", step)
        return grating_pairs(whole(numbers, 4, pairs), numbers)

    return pairs_of


def grating_read(trainee: Trainee, seed: int, pictures: int = 1200) -> float:
    """Return how often a probe reads the direction of stripes, which no caption names."""
    numbers = generator(seed, "probed")
    kind_n = whole(numbers, 4, pictures)
    return read_off(trainee, grating_pairs(kind_n, numbers)[0], kind_n)["value"]
