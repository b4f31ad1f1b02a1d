"""Pools from tokens to one vector."""

import pytest
import torch

from breadth.train.pool import is_pool, pool_tokens

TOKENS = torch.randn(4, 10, 6, generator=torch.Generator().manual_seed(1))


def test_max_is_topk_of_one():
    """The maximum is the mean of the one largest value of each channel."""
    assert torch.equal(pool_tokens(TOKENS, "max"), pool_tokens(TOKENS, "topk:1"))


def test_gap_is_topk_of_all():
    """The mean over all patches is the mean of as many largest values as there are patches."""
    torch.testing.assert_close(pool_tokens(TOKENS, "gap"), pool_tokens(TOKENS, "topk:9"))


@pytest.mark.parametrize("name", ["gap", "max", "topk:3"])
def test_only_cls_looks_at_the_class_token(name):
    """Another class token and another order of patches change nothing but ``cls``."""
    other = TOKENS.flip(1).clone()
    changed = torch.cat([TOKENS[:, :1] + 100, other[:, :-1]], dim=1)
    torch.testing.assert_close(pool_tokens(changed, name), pool_tokens(TOKENS, name))
    assert torch.equal(pool_tokens(TOKENS, "cls"), TOKENS[:, 0])


def test_the_gradient_of_max_reaches_one_patch_a_channel():
    """Each channel learns from its winner only."""
    tokens = TOKENS.clone().requires_grad_()
    pool_tokens(tokens, "max").sum().backward()
    assert torch.equal(tokens.grad.sum(dim=1), torch.ones(4, 6))
    assert ((tokens.grad != 0).sum(dim=1) == 1).all()


@pytest.mark.parametrize("name", ["mean", "topk", "topk:0", "topk:x", "max:2", ""])
def test_other_names_are_no_pools(name):
    """A recipe may name only what exists."""
    assert not is_pool(name)
    with pytest.raises(ValueError):
        pool_tokens(TOKENS, name)
