"""Random streams, each a pure function of (seed, name, step): so resume and pairing are exact."""

from hashlib import blake2b

import torch


def generator(seed: int, name: str, step: int = 0) -> torch.Generator:
    """Return the CPU generator of one stream at one step.

    Draws are made on the CPU and moved, so that every device sees the same masks.
    """
    digest = blake2b(f"{seed}/{name}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
