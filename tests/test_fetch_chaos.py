"""A build on a hostile web is killed, and the folder does not care."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import result
from .hostile import CASES, link, served
from .hostile_case import Case
from .hostile_server import Hostile
from .test_chaos import wait_for_parts, workers_of

RECIPE = """
name = "hostile"
[[stage]]
name = "download"
image_size = 64
svg_side_px = 64
deadline_s = 20
retries = 0
max_bytes = 4194304
connections = 4
allow_private = true
[output]
part_pairs = 25
"""
TIMELESS = [
    case
    for case in CASES
    if not case.timed
    and not case.name.startswith(("retry", "tls", "svg", "file_bomb", "ipv6", "link_null"))
]
"""Cases that come out the same whatever else the machine has to do, the dying included."""


@pytest.fixture
def web() -> Iterator[Hostile]:
    with served(TIMELESS) as running:
        yield running


@pytest.fixture
def pool(web: Hostile, tmp_path: Path) -> Path:
    """A pool of every timeless case, under one caption each."""
    file = tmp_path / "pool.parquet"
    urls = [link(web, case) for case in TIMELESS]
    pq.write_table(pa.table({"url": urls, "caption": [f"a picture of {c.name}" for c in TIMELESS]}), file)
    return file
