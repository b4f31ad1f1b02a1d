"""The table of hostile cases, run through the download stage; as a program it prints the outcomes.

python -m tests.hostile
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from breadth.curate.fetch.failures import FAILURES
from breadth.curate.stages.download import Download

from . import hostile_files, hostile_h2, hostile_web, hostile_wire
from .hostile_case import Case
from .hostile_server import Hostile, serving
from .hostile_tls import trusted

CASES: list[Case] = [
    *hostile_wire.CASES,
    *hostile_h2.CASES,
    *hostile_web.CASES,
    *hostile_files.CASES,
]
DEADLINE_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What the stage made of a case."""

    case: Case
    row: dict[str, object]

    @property
    def failure(self) -> object:
        """Return the kind of failure, None for success."""
        return self.row["failure"]


def stage(**options: object) -> Download:
    """Return the stage as the table is run: loopback allowed, one try, short patience."""
    given: dict[str, object] = {
        "image_size": 64,
        "svg_side_px": 64,
        "deadline_s": DEADLINE_S,
        "max_bytes": 4 * 2**20,
        "retries": 0,
        "allow_private": True,
    }
    return Download(**given | options)  # type: ignore[arg-type]


@contextlib.contextmanager
def served(cases: Sequence[Case]) -> Iterator[Hostile]:
    """Serve the cases, and trust the authority of their certificates meanwhile."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(trusted())
    try:
        with serving([case.site for case in cases]) as hostile:
            yield hostile
    finally:
        os.environ.pop("SSL_CERT_FILE")
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


def link(hostile: Hostile, case: Case) -> str | None:
    """Return the URL that a pool would hold."""
    return None if case.url is None else hostile.link(case.name, case.url)


def fetch(hostile: Hostile, cases: Sequence[Case], **options: object) -> list[Outcome]:
    """Run cases through one call of the stage, all at once."""
    urls = [link(hostile, case) for case in cases]
    made = stage(connections=256, **options).annotate(
        pa.table({"url": pa.array(urls, pa.string())})
    )
    pictures = [made["image"][at] for at in range(len(cases))]
    columns = pa.table({name: values for name, values in made.items() if name != "image"})
    rows = columns.to_pylist()
    return [
        Outcome(case, row | {"image": bytes(image) if image is not None else None})
        for case, row, image in zip(cases, rows, pictures, strict=True)
    ]


def wrong(outcome: Outcome) -> str | None:
    """Say what about an outcome is not as expected."""
    case, row = outcome.case, outcome.row
    if row["failure"] != case.failure:
        return f"{row['failure']} ({row['error_message']}) instead of {case.failure}"
    if case.failure is not None:
        expected = FAILURES[case.failure]
        found = row["status"], row["retryable"], row["image"]
        if found != (expected.status, expected.retryable, None):
            return f"status, retryable and picture are {found}"
        return None if row["error_message"] else "no message"
    size = row["original_width"], row["original_height"]
    if row["status"] != "success" or row["retryable"] or size != case.size:
        return f"{row['status']} with a picture of {size} instead of {case.size}"
    pixels = np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB"), float)  # type: ignore[arg-type]
    off = 0.0 if case.colour is None else np.abs(pixels.mean((0, 1)) - case.colour).max()
    return f"another colour: {pixels.mean((0, 1))}" if off > 12 else None


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a table."""
    lines = ["| case | expected | found | |", "|---|---|---|---|"]
    for outcome in outcomes:
        expected = outcome.case.failure or "success"
        found = f"{outcome.failure or 'success'}"
        lines.append(f"| {outcome.case.name} | {expected} | {found} | {wrong(outcome) or 'ok'} |")
    return "\n".join(lines)


def main() -> None:
    """Run every case and print what came of it."""
    with served(CASES) as hostile:
        began = time.perf_counter()
        outcomes = fetch(hostile, CASES)
        seconds = time.perf_counter() - began
    good = sum(wrong(outcome) is None for outcome in outcomes)
    summary = f"{good} of {len(outcomes)} as expected, in {seconds:.1f} s"
    sys.stdout.write(f"{markdown(outcomes)}\n\n{summary}\n")


if __name__ == "__main__":
    main()
