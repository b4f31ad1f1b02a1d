"""A small model and a small batch, for tests that compute what another library computes."""

import torch
from torch import Tensor

from breadth.loaders.tokenize import BOS, EOS, PAD
from breadth.train.recipe import TrainRecipe

CPU = torch.device("cpu")
VOCABULARY, PAIRS, CONTEXT = 300, 6, 12
SIZE = {
    "width": 32,
    "depth": 2,
    "heads": 4,
    "text_width": 48,
    "text_depth": 3,
    "text_heads": 2,
    "embedding": 16,
    "decoder_width": 24,
    "decoder_depth": 2,
    "decoder_heads": 3,
}
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}


def make_recipe(**options: object) -> TrainRecipe:
    given = {"name": "p", "steps": 10, "size": SIZE, "image_px": 32, "batch_pairs": PAIRS}
    return TrainRecipe.from_options({**given, "context_length": CONTEXT, **options})


def make_batch() -> tuple[Tensor, Tensor]:
    """Draw pictures, and captions of unequal length."""
    draws = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (PAIRS, 3, 32, 32), generator=draws, dtype=torch.uint8)
    tokens = torch.randint(4, VOCABULARY, (PAIRS, CONTEXT), generator=draws)
    tokens[:, 0] = BOS
    for row in range(PAIRS):
        end = 4 + row
        tokens[row, end], tokens[row, end + 1 :] = EOS, PAD
    return images, tokens
