"""Running fingerprints of which pairs a run saw and what was hidden of them.

Each pair adds a hash of its global position and of what it brought; sums of 64 bits wrap around.
So neither ranks, workers nor a restart change them, and equal fingerprints mean equal runs.
Shapes: B pairs of this rank, L positions.
"""

from functools import lru_cache

import numpy as np
import torch

from .inputs import Inputs
from .ranks import Ranks
from .seeds import generator

PAIRS = "pairs"

Sums = dict[str, int]


def add_batch(sums: Sums, uids: list[str], positions_B: np.ndarray, inputs: Inputs) -> None:
    """Add a rank's share of a batch to its sums; ``inputs`` are on the CPU, as drawn."""
    rows = {PAIRS: np.array(uids, dtype="S").view(np.uint8).reshape(len(uids), -1)}
    masks = inputs.masks.items()
    rows |= {name: np.packbits(mask.hidden_BL.numpy(), axis=1) for name, mask in masks}
    if inputs.corrupted_BT is not None:
        rows["corrupted text"] = inputs.corrupted_BT.numpy()
    for number, crop in enumerate(inputs.crops, start=1):
        drawn = torch.cat([drawn.float().reshape(len(uids), -1) for drawn in crop], dim=1)
        rows[f"crop {number}"] = drawn.contiguous().numpy().view(np.uint32)
    where_B = _mixed(positions_B.astype(np.uint64))
    for name, row_BL in rows.items():
        # A linear hash of the row: nothing at its end, padding or no mask, adds nothing.
        hash_B = (row_BL.astype(np.uint64) * _factors(row_BL.shape[1])).sum(axis=1)
        sums[name] = (sums.get(name, 0) + int(_mixed(hash_B ^ where_B).sum())) % 2**64


def over_ranks(sums: Sums, ranks: Ranks) -> Sums:
    """Return the sums of all ranks together."""
    names = sorted(sums)
    own = np.array([sums[name] for name in names], dtype=np.uint64).view(np.int64)
    whole = ranks.total(torch.from_numpy(own)).numpy().view(np.uint64)
    return dict(zip(names, whole.tolist(), strict=True))


def digest_metrics(whole: Sums) -> dict[str, object]:
    """Return the sums under the names that a log line has for them."""
    shown = {name: f"{value:016x}" for name, value in whole.items()}
    return {"pairs_digest": shown.pop(PAIRS, ""), "masks_digest": shown}


@lru_cache(maxsize=64)
def _factors(length: int) -> np.ndarray:
    """Return odd numbers of 64 bits, the first ones the same for every length."""
    drawn = generator(0, "digests")
    numbers = [int(torch.randint(2**62, (), generator=drawn)) for _ in range(length)]
    return np.array(numbers, dtype=np.uint64) * 2 + 1


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread every bit over all 64 (splitmix64, Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed
