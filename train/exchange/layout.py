"""How others name and cut weights that a model of ours has too: rules that are read both ways.

Where two layouts differ, it is mostly in how one row of numbers is cut into tensors: query, key
and value apart or together, the class token's position by itself or above those of the patches.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from breadth.loaders.errors import PoolError


@dataclass(frozen=True)
class Rule:
    """Tensors of ours that hold the same numbers in the same order as some of theirs.

    ``shape`` is that of each of theirs, -1 for what follows from the rest; without it theirs are
    equal shares of ours along the first axis. ``transposed`` is a matrix that they apply from the
    other side.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    transposed: bool = False


def pair(ours: str, theirs: str, shape: tuple[int, ...] | None = None) -> Rule:
    """Return the rule of one tensor that differs in its name alone, or in its shape too."""
    return Rule((ours,), (theirs,), shape)


def affine(ours: str, theirs: str) -> list[Rule]:
    """Return the rules of a layer's weight and bias."""
    return [pair(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]


def block_rules(
    ours: str, theirs: str, depth: int, names: Mapping[str, Sequence[str]]
) -> Iterator[Rule]:
    """Yield the rules of a stack's blocks.

    ``names`` are theirs for each layer of a block, with {} where weight or bias is said.
    """
    for number in range(depth):
        for layer, their_names in names.items():
            for part in ("weight", "bias"):
                theirs_full = tuple(f"{theirs}.{number}.{n.format(part)}" for n in their_names)
                yield Rule((f"{ours}.blocks.{number}.{layer}.{part}",), theirs_full)


def to_theirs(rules: Iterable[Rule], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of ours in their layout; what no rule names is left out."""
    theirs: dict[str, Tensor] = {}
    for rule in rules:
        first = weights[rule.ours[0]]
        if rule.transposed:
            theirs[rule.theirs[0]] = first.T.contiguous()
            continue
        flat = torch.cat([weights[name].flatten() for name in rule.ours])
        shape = (-1, *first.shape[1:]) if rule.shape is None else rule.shape
        for name, part in zip(rule.theirs, flat.chunk(len(rule.theirs)), strict=True):
            theirs[name] = part.reshape(shape).clone()
    return theirs


def to_ours(
    rules: Iterable[Rule], theirs: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Return weights of theirs in our layout, in the shapes that our model has.

    Raises PoolError where one is missing or of another size, or where one has no place in ours.
    """
    ours: dict[str, Tensor] = {}
    left = set(theirs)
    as_ours = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    for rule in rules:
        for name, expected in to_theirs([rule], as_ours).items():
            _check_shape(name, theirs, expected)
        left -= set(rule.theirs)
        found = [theirs[name] for name in rule.theirs]
        if rule.transposed:
            found = [found[0].T]
        flat = torch.cat([tensor.flatten() for tensor in found])
        counts = [shapes[name].numel() for name in rule.ours]
        for name, part in zip(rule.ours, flat.split(counts), strict=True):
            ours[name] = part.reshape(shapes[name])
    if left:
        raise PoolError(f"the weights hold {min(left)}, which a plain CLIP has not: give another")
    return ours


def _check_shape(name: str, theirs: Mapping[str, Tensor], expected: Tensor) -> None:
    if name not in theirs:
        raise PoolError(f"the weights lack {name}: give those of a CLIP with ViT")
    found = theirs[name]
    if found.squeeze().shape != expected.squeeze().shape:
        raise PoolError(
            f"{name} has the shape {list(found.shape)}, its configuration says"
            f" {list(expected.shape)}: give the configuration that belongs to the weights"
        )
