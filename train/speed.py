"""How fast a run goes, and what share that is of what its devices could do."""

import re
import time
from functools import lru_cache
from typing import Any, NamedTuple

import torch

DATA_SHEETS = {
    "B200": 2250.0,
    "H200": 989.4,
    "H100 PCIe": 756.5,
    "H100 NVL": 835.5,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
}
"""Dense bfloat16 TFLOP/s that NVIDIA states, the longer names first."""

MEASURED_S = 0.2


class Peak(NamedTuple):
    """What one device can do at most, and who says so."""

    tflop_per_s: float
    origin: str


def device_peak(device: torch.device, precision: str) -> Peak:
    """Return a card's dense bfloat16 peak by its data sheet, else one product of matrices' speed.

    The latter is of the recipe's precision and takes a fifth of a second, once a process.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, tflop_per_s in DATA_SHEETS.items():
            if re.search(rf"\b{known}\b", name):  # an L40 is no L4
                return Peak(tflop_per_s, f"{name}, data sheet, dense bfloat16")
    return _measured(device, precision)


@lru_cache(maxsize=8)
def _measured(device: torch.device, precision: str) -> Peak:
    side = 4096 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    factor = (torch.arange(side * side, device=device) % 7 - 3).view(side, side).to(dtype)
    _time_product(factor)  # the first one also loads code
    best, ends = _time_product(factor), time.perf_counter() + MEASURED_S
    while time.perf_counter() < ends:
        best = min(best, _time_product(factor))
    return Peak(2 * side**3 / best / 1e12, f"measured: {side} x {side} matrices in {precision}")


def _time_product(factor: torch.Tensor) -> float:
    began = time.perf_counter()
    float((factor @ factor)[0, 0])  # to read a number waits for the device
    return time.perf_counter() - began


class Meter:
    """Measures speed between log lines; checkpoints do not count."""

    def __init__(self, peak: Peak, world: int) -> None:
        self._peak, self._world, self._says_peak = peak, world, True
        self._since, self._pairs = time.perf_counter(), 0

    def add(self, pairs: int) -> None:
        """Count the pairs of a step."""
        self._pairs += pairs

    def pause(self, seconds: float) -> None:
        """Leave out time that was spent on something else."""
        self._since += seconds

    def read(self, pair_flops: float) -> dict[str, Any]:
        """Return the speed of all ranks since the last reading, and begin anew.

        ``mfu`` is the share of the devices' peak; the first reading says what that is.
        """
        now = time.perf_counter()
        pairs_per_s = self._pairs / (now - self._since)
        tflop_per_s = pairs_per_s * pair_flops / 1e12
        self._since, self._pairs = now, 0
        read: dict[str, Any] = {
            "samples_per_s": round(pairs_per_s, 1),
            "tflop_per_s": float(f"{tflop_per_s:.4g}"),
            "mfu": float(f"{tflop_per_s / (self._peak.tflop_per_s * self._world):.4g}"),
        }
        if self._says_peak:
            self._says_peak = False
            each = f"{self._peak.tflop_per_s:.4g} TFLOP/s ({self._peak.origin})"
            read["peak"] = each if self._world == 1 else f"{self._world} x {each}"
        return read
