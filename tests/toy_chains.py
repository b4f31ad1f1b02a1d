"""Toy captions from Markov chains, and what the best possible reader knows of them: brute force.

Shapes: n captions, L words, V kinds of words, X all ways to fill L words.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from breadth.loaders.tokenize import MASK
from breadth.train.inputs import CORRUPTED, REPLACED, Inputs, draw_inputs
from breadth.train.seeds import generator
from breadth.train.trainee import Trainee

from .toy_worlds import COLOURS, WORD, Pairs, captions_of, noisy, whole
from .toys import CPU

CHAIN = (
    torch.tensor(
        [[1, 14, 4, 1], [1, 1, 14, 4], [4, 1, 1, 14], [14, 4, 1, 1]],
        dtype=torch.float64,
    )
    / 20
)
"""Which word follows which; every word is as likely as any other, at the first place too."""
V = len(CHAIN)
H_FIRST = math.log(V)
H_NEXT = -(CHAIN[0] * CHAIN[0].log()).sum().item()


class Beside(NamedTuple):
    """A mean in nats beside what it should be, and the standard error of their difference."""

    found: float
    expected: float
    standard_error: float

    @property
    def errors(self) -> float:
        """How many standard errors lie between them."""
        return abs(self.found - self.expected) / self.standard_error


def beside(found_n: Tensor, expected_n: Tensor) -> Beside:
    """Compare by caption."""
    apart_n = found_n.double() - expected_n
    error = apart_n.std().item() / math.sqrt(len(apart_n))
    return Beside(found_n.mean().item(), expected_n.mean().item(), error)


def walk(words: int, backwards_n: Tensor, numbers: torch.Generator) -> Tensor:
    """Draw captions of a chain, or of the chain read backwards: [n, L]."""
    at_n = whole(numbers, V, len(backwards_n))
    walked = [at_n]
    for _ in range(words - 1):
        rows = torch.where(backwards_n[:, None], CHAIN.T[at_n], CHAIN[at_n])
        at_n = rows.multinomial(1, generator=numbers)[:, 0]
        walked.append(at_n)
    return torch.stack(walked, dim=1)


def chain_pairs(words: int, pairs: int, numbers: torch.Generator, *, both: bool) -> Pairs:
    """Draw captions; with ``both`` the picture's colour says whether the chain runs backwards."""
    backwards_n = whole(numbers, 2, pairs).bool() & both
    colours = COLOURS[backwards_n.long()][:, :, None, None].expand(-1, -1, 8, 8)
    return noisy(colours, numbers), captions_of(walk(words, backwards_n, numbers))


def chain_batches(seed: int, pairs: int, words: int, *, both: bool = False) -> Callable:
    """Return batches of pictures with captions of a chain."""

    def pairs_of(step: int) -> Pairs:
        return chain_pairs(words, pairs, generator(seed, "chain", step), both=both)

    return pairs_of


@torch.no_grad()
def seen_by(trainee: Trainee, pairs: Pairs) -> tuple[Inputs, dict[str, Tensor]]:
    """Return what was drawn for fresh pairs, and the model's views of them."""
    inputs = draw_inputs(trainee.recipe, *pairs, 10**6, vocabulary=trainee.vocabulary)
    return inputs, trainee.model(inputs.on(CPU))


def costs(logits_MV: Tensor, target_M: Tensor, captions: int) -> Tensor:
    """Return the cross-entropy of equally many places in each caption: its mean, [n]."""
    each_M = torch.nn.functional.cross_entropy(logits_MV, target_M, reduction="none")
    return each_M.view(captions, -1).mean(dim=1)


def written(trainee: Trainee, pairs: Pairs) -> Beside:
    """Return the cross-entropy of fresh captions beside the entropy of picture and chain."""
    _, views = seen_by(trainee, pairs)
    captions, words = len(pairs[1]), pairs[1].shape[1] - 2
    found_n = costs(views["caption_logits"], views["caption_targets"], captions)
    entropy = (H_FIRST + (words - 1) * H_NEXT) / (words + 1)  # the end is certain
    return beside(found_n, torch.full_like(found_n, entropy, dtype=torch.float64))


def mended(trainee: Trainee, pairs: Pairs) -> Beside:
    """Return the cross-entropy of fresh hidden words beside the entropy of their posterior."""
    inputs, views = seen_by(trainee, pairs)
    captions = len(pairs[1])
    found_n = costs(views["token_logits"], views["hidden_tokens"], captions)
    hidden_nL = inputs.masks["masked text"].hidden_BL[:, 1:-1]
    shown = pairs[1] if inputs.corrupted_BT is None else inputs.corrupted_BT
    shown_nL = shown[:, 1:-1]
    if inputs.corrupted_BT is None:
        shown_nL = shown_nL.masked_fill(hidden_nL, MASK)
        likely = [dropped_posterior(row, at) for row, at in zip(shown_nL, hidden_nL, strict=True)]
    else:
        likely = [corrupted_posterior(row, at) for row, at in zip(shown_nL, hidden_nL, strict=True)]
    entropy_nk = torch.stack([torch.special.entr(p_kV).sum(dim=1) for p_kV in likely])
    return beside(found_n, entropy_nk.mean(dim=1))


@functools.cache
def every_caption(words: int) -> tuple[Tensor, Tensor]:
    """Return all captions of so many words [X, L] and how likely the chain makes them [X]."""
    every_XL = torch.tensor(list(itertools.product(range(V), repeat=words)))
    return every_XL, CHAIN[every_XL[:, :-1], every_XL[:, 1:]].prod(dim=1) / V


def posterior(weight_X: Tensor, every_XL: Tensor, place: int) -> Tensor:
    """Return how likely each word is at a place [V], of captions with weights."""
    likely_V = torch.zeros(V, dtype=torch.float64).index_add(0, every_XL[:, place], weight_X)
    return likely_V / likely_V.sum()


def dropped_posterior(shown_L: Tensor, hidden_L: Tensor) -> Tensor:
    """Return p(word | visible words) at each hidden place [k, V], summed over all captions."""
    every_XL, p_X = every_caption(len(shown_L))
    fits_X = ((every_XL + WORD == shown_L) | hidden_L).all(dim=1)
    places = hidden_L.nonzero()[:, 0].tolist()
    return torch.stack([posterior(p_X * fits_X, every_XL, place) for place in places])


def corrupted_posterior(shown_L: Tensor, hidden_L: Tensor) -> Tensor:
    """Return p(word | corrupted caption, place is asked for) at each hidden place [k, V].

    Which other places were corrupted nobody says: summed over all of them and all captions.
    """
    words, hidden = len(shown_L), int(hidden_L.sum())
    every_XL, p_X = every_caption(words)
    same_XL = (every_XL + WORD == shown_L).double()
    other = (shown_L >= WORD).double() * REPLACED / V
    hidden_XL = CORRUPTED * (shown_L == MASK) + other + (1 - CORRUPTED - REPLACED) * same_XL
    likely = []
    for place in hidden_L.nonzero()[:, 0].tolist():
        weight_X = torch.zeros_like(p_X)
        for chosen in itertools.combinations(range(words), hidden):
            if place in chosen:
                is_hidden_L = torch.zeros(words, dtype=torch.bool)
                is_hidden_L[list(chosen)] = True
                weight_X += torch.where(is_hidden_L, hidden_XL, same_XL).prod(dim=1)
        likely.append(posterior(p_X * weight_X, every_XL, place))
    return torch.stack(likely)
