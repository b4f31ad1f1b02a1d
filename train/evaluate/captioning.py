"""Judge a captioner: by the names its captions use, and by what the right caption costs it."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from breadth.loaders.tokenize import encode

from ..checkpoint import Run
from ..inputs import Inputs

_AT_ONCE = 32  # captions: 32 of 64 tokens from 32,000 kinds are 260 MB of logits


def first_named(text: str, names: Sequence[str]) -> str | None:
    """Return the name that a text uses first, of names at one place the longest, else None.

    A scene's caption names its main object before all others.
    """
    longest_first = sorted(names, key=len, reverse=True)
    words = "|".join(re.escape(name.lower()) for name in longest_first)
    found = re.search(rf"(?<!\w)(?:{words})(?!\w)", text.lower())
    if found is None:
        return None
    return next(name for name in longest_first if name.lower() == found[0])


def plain(text: str) -> str:
    """Return a caption in lower case with single spaces, as captions are compared."""
    return " ".join(text.lower().split())


def chance_of_equal(captions: Sequence[str]) -> float:
    """Return how often a caption equals that of a picture drawn from the same ones."""
    counts = np.array(list(Counter(map(plain, captions)).values()))
    return float(((counts / len(captions)) ** 2).sum())


@torch.inference_mode()
def caption_loss(
    run: Run, images_nCHW: np.ndarray, captions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what writing each picture's own caption costs, in nats, and its number of tokens.

    Each token is predicted from the picture and the right tokens before it, as the term Caption.
    """
    tokens_nT = encode(run.tokenizer, list(captions), run.recipe.context_length)
    parts = [
        _summed_by_caption(
            run, torch.from_numpy(images_nCHW[rows]), torch.as_tensor(tokens_nT[rows])
        )
        for rows in (slice(at, at + _AT_ONCE) for at in range(0, len(captions), _AT_ONCE))
    ]
    loss_n, count_n = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return loss_n, count_n


def _summed_by_caption(run: Run, images_BCHW: Tensor, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    inputs, model = Inputs(images_BCHW, tokens_BT).on(run.device), run.model
    places_M = inputs.places["before"]
    image_BLD = model.image(model.patches(inputs.images_BCHW))
    text_BTD, _ = model.text(inputs.tokens_BT)
    logits_MV = model.captioner(image_BLD, text_BTD, places_M).float()
    loss_M = F.cross_entropy(logits_MV, inputs.known["caption_targets"], reduction="none")
    caption_M, pairs = places_M // tokens_BT.shape[1], len(tokens_BT)
    loss_B = torch.bincount(caption_M, loss_M, minlength=pairs)
    return loss_B, torch.bincount(caption_M, minlength=pairs)
