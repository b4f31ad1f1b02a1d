"""Blocks, stacks, positions and patches."""

import torch

from breadth.train.blocks import Block, Stack, grid_positions, line_positions, patchify, unpatchify


def test_unpatchify_is_the_inverse_of_patchify():
    """Cutting a picture and putting it together gives the picture."""
    images = torch.randn(2, 3, 12, 12)
    assert torch.equal(unpatchify(patchify(images, 4), 4), images)


def test_a_patch_holds_its_square_of_the_picture():
    """Patch 5 of a 3 x 3 grid is the second row's last square."""
    images = torch.randn(1, 3, 12, 12)
    assert torch.equal(patchify(images, 4)[0, 5], images[0, :, 4:8, 8:12].reshape(-1))


def test_block_equals_the_formula_in_double_precision():
    """One head at a time, softmax written out, gives the same tokens."""
    torch.manual_seed(0)
    block, x = Block(8, 2).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    normed = block.attention_norm(x)
    query, key, value = block.qkv(normed).split(8, dim=2)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / 2.0
        heads.append(scores.softmax(dim=2) @ value[..., head])
    y = x + block.out(torch.cat(heads, dim=2))
    up = block.up(block.mlp_norm(y))
    expected = y + block.down(torch.nn.functional.gelu(up))
    torch.testing.assert_close(block(x, None), expected)


def test_padding_changes_nothing():
    """Tokens that may not be attended to leave the others as they are, whatever they hold."""
    torch.manual_seed(0)
    stack, x = Stack(8, 2, 2), torch.randn(3, 6, 8)
    attends = torch.arange(6).expand(3, 6) < 4
    padded = stack(x, attends)[:, :4]
    torch.testing.assert_close(padded, stack(x[:, :4]), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(stack(x)[:, :4], padded)


def test_positions_are_distinct():
    """No two places of a line or a grid share their position."""
    for positions in (line_positions(50, 16), grid_positions(7, 16)):
        distances = torch.cdist(positions, positions) + 10 * torch.eye(len(positions))
        assert distances.min() > 0.03
