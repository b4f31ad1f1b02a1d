"""A run's log: one line of JSON for each logged step, and the same numbers for TensorBoard."""

import json
import os
from pathlib import Path
from typing import Any, Self

EVENTS = "tensorboard"


class RunLog:
    """Appends to metrics.jsonl and to the event files in ``tensorboard/``.

    It goes on after ``step``: what TensorBoard was told of later steps is taken back.
    """

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a fifth of a second

        self._lines = (out / "metrics.jsonl").open("a", encoding="utf-8")
        self._events = SummaryWriter(str(out / EVENTS), purge_step=step + 1)

    def write(self, metrics: dict[str, Any]) -> None:
        """Add a step's metrics."""
        self._lines.write(json.dumps(metrics) + "\n")
        self._lines.flush()
        for name, value in metrics.items():
            if isinstance(value, float):
                self._events.add_scalar(name, value, metrics["step"])

    def sync(self) -> None:
        """Put everything on the disk: a checkpoint never outlives the metrics before it."""
        os.fsync(self._lines.fileno())
        self._events.flush()

    def close(self) -> None:
        """End the files."""
        self._lines.close()
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
