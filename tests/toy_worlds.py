"""Toy worlds: pictures and captions drawn from a seed and a step, of which all is known.

Shapes: n pairs, H height, W width, T caption tokens, L words.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from breadth.loaders.tokenize import BOS, EOS, MASK
from breadth.train.seeds import generator

WORD = MASK + 1  # the first token that is a word
Pairs = tuple[Tensor, Tensor]
"""Pictures uint8 [n, 3, H, W] and captions int64 [n, T]."""


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


WAVES = torch.tensor(
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5), 0.0], [1.0, 0.0, 1.0]]
)
"""Across, down, slanted, crossed: a wave's direction (x, y), and whether another goes down."""
PERIODS = torch.tensor([5.0, 11.0])  # px; a crop of 0.3 of the area shows them at most 2.1 times
TEXTURES = len(WAVES) * len(PERIODS)  # the same after a mirror, and known by any large enough crop


def waves(kind_n: Tensor, numbers: torch.Generator) -> Tensor:
    """Draw waves of variance 1/2 [n, 32, 32]; where they begin and how they slant is chance."""
    pairs = len(kind_n)
    across_n, down_n, crossed_n = WAVES[kind_n // len(PERIODS)].T.view(3, -1, 1, 1)
    slant_n = 2 * whole(numbers, 2, pairs, 1, 1) - 1
    x = 2 * math.pi / PERIODS[kind_n % len(PERIODS)].view(-1, 1, 1) * torch.arange(32)
    y = x.transpose(1, 2)
    first_n, second_n = 2 * math.pi * torch.rand(2, pairs, 1, 1, generator=numbers)
    drawn = torch.sin(slant_n * across_n * x + down_n * y + first_n)
    return drawn * torch.where(crossed_n > 0, math.sqrt(2) * torch.sin(y + second_n), 1)


def texture_pairs(kind_n: Tensor, numbers: torch.Generator) -> Pairs:
    """Draw grey waves under noise, and one patch of 16 in a colour that the caption names.

    All else is chance: two crops of a picture share its texture always, and the colour where both
    have the patch and neither is grey.
    """
    pairs = len(kind_n)
    drawn = 40 * waves(kind_n, numbers)
    grey = 88 + 80 * torch.rand(pairs, 1, 1, generator=numbers) + drawn
    at_n, colour_n = whole(numbers, 16, pairs), whole(numbers, KINDS, pairs)
    is_patch = (torch.arange(16) == at_n[:, None]).view(-1, 1, 4, 4)
    is_patch = is_patch.repeat_interleave(8, 2).repeat_interleave(8, 3)
    colours = COLOURS[colour_n][:, :, None, None].float()
    pictures = torch.where(is_patch, colours, grey[:, None])
    return noisy(pictures, numbers, 40.0), captions_of(colour_n[:, None])


def texture_batches(seed: int, pairs: int) -> Callable[[int], Pairs]:
    """Return batches of textures."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "textures", step)
        return texture_pairs(whole(numbers, TEXTURES, pairs), numbers)

    return pairs_of


def tint_batches(seed: int, pairs: int) -> Callable[[int], Pairs]:
    """Return pictures of one colour, which is the caption's only word: nothing else tells it."""

    def pairs_of(step: int) -> Pairs:
        numbers = generator(seed, "tints", step)
        colour_n = whole(numbers, KINDS, pairs)
        pictures = COLOURS[colour_n][:, :, None, None].expand(-1, -1, 16, 16)
        return noisy(pictures, numbers), captions_of(colour_n[:, None])

    return pairs_of
