"""Masks: what is hidden, what is kept, and the way back."""

import torch

from breadth.train.mask import hide_patches, hide_tokens, kept_patches, restore, take

DRAWS = torch.Generator().manual_seed(0)


def captions():
    """Return tokens of captions with 0 to 12 words, padded to 16."""
    tokens = torch.zeros(13, 16, dtype=torch.long)
    for words, row in enumerate(tokens):
        row[: words + 2] = torch.tensor([1, *range(10, 10 + words), 2])
    return tokens


def test_three_quarters_of_the_patches_are_hidden():
    """Every picture hides the same number, and what is not hidden is visible."""
    mask = hide_patches(torch.rand(5, 16, generator=DRAWS), 0.75)
    assert mask.hidden_BL.sum(dim=1).tolist() == [12] * 5
    assert torch.equal(mask.visible_BL, ~mask.hidden_BL)
    assert not torch.equal(mask.hidden_BL[0], mask.hidden_BL[1])


def test_as_many_patches_are_kept_as_in_mae():
    """Of a grid whose share is no whole number, the kept ones are rounded down."""
    assert [kept_patches(n, 0.75) for n in (16, 49, 196, 2)] == [4, 12, 49, 1]


def test_restore_puts_kept_patches_back():
    """Visible positions get their own values again, hidden ones the filler."""
    values = torch.randn(5, 16, 3, generator=DRAWS)
    mask = hide_patches(torch.rand(5, 16, generator=DRAWS), 0.75)
    restored = restore(take(values, mask.keep_BK), mask, torch.full((3,), 7.0))
    assert torch.equal(restored[mask.visible_BL], values[mask.visible_BL])
    assert (restored[mask.hidden_BL] == 7).all()


def test_restore_puts_kept_words_back():
    """Captions of all lengths come back in place; padding is filled too."""
    tokens = captions()
    values = torch.randn(13, 16, 3, generator=DRAWS)
    mask = hide_tokens(torch.rand(13, 16, generator=DRAWS), tokens, 0.75)
    restored = restore(take(values, mask.keep_BK), mask, torch.full((3,), 7.0))
    assert torch.equal(restored[mask.visible_BL], values[mask.visible_BL])
    assert (restored[~mask.visible_BL] == 7).all()
    kept = tokens.gather(1, mask.keep_BK)[mask.seen_BK]
    assert sorted(kept.tolist()) == sorted(tokens[mask.visible_BL].tolist())


def test_words_are_hidden_by_share_and_padding_never():
    """A caption hides its share of words, at least one; begin, end and padding stay."""
    tokens = captions()
    mask = hide_tokens(torch.rand(13, 16, generator=DRAWS), tokens, 0.75)
    shares = [round(0.75 * words) for words in range(13)]
    assert mask.hidden_BL.sum(dim=1).tolist() == [0, 1, *shares[2:]]
    assert (tokens[mask.hidden_BL] > 3).all()
    assert torch.equal(mask.visible_BL | mask.hidden_BL, tokens != 0)
    assert not (mask.visible_BL & mask.hidden_BL).any()
