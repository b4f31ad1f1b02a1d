"""What a trainer is asked to do, and what is measured of it, as JSON between two processes."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """A model of two towers as both trainers know it; the pool is the class token."""

    image_px: int
    patch_px: int
    width: int
    depth: int
    heads: int
    text_width: int
    text_depth: int
    text_heads: int
    embedding: int
    context_length: int
    vocabulary: int


@dataclass(frozen=True)
class Job:
    """Steps on random tensors, or whole runs on a folder of shards with their evaluation."""

    shape: Shape
    batch_pairs: int
    steps: int
    warm_steps: int = 2
    terms: str = "clip"  # or maeclip
    device: str = "cpu"
    precision: str = "float32"
    compiled: bool = False
    runs: int = 0  # one after the other, seeds from 0
    data: str = ""
    held_out: str = ""
    tokenizer: str = ""  # a file; both read captions with it
    out: str = ""

    def write(self, file: Path) -> None:
        """Write the job as JSON."""
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> "Job":
        """Read a job."""
        options = json.loads(file.read_text())
        return cls(**{**options, "shape": Shape(**options["shape"])})


@dataclass(frozen=True)
class Timed:
    """Wall and CPU time of the process, after imports and warm-up, by step or by run."""

    wall_s: float
    cpu_s: float
    scores: list[float]  # zero-shot accuracy of each run


def timed(work: Callable[[int], object], first: int, times: int) -> Timed:
    """Do the work so many times and return the mean times."""
    wall, cpu = time.perf_counter(), time.process_time()
    scores = [work(first + number) for number in range(times)]
    return Timed(
        (time.perf_counter() - wall) / times,
        (time.process_time() - cpu) / times,
        [score for score in scores if isinstance(score, float)],
    )


def write_timed(found: Timed, file: Path) -> None:
    """Write what was measured as JSON."""
    file.write_text(json.dumps(asdict(found)))
