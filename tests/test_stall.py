"""The stall report: the limit it names is the one that was there."""

import inspect
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from breadth.loaders.stall import StallReport, Stopwatch
from breadth.loaders.stream import Stream

LIMITS = {
    "step": ({"wait": (1.0, 10), "step": (99.0, 10), "decode": (50.0, 10)}, 4),
    "threads": ({"wait": (50.0, 10), "step": (50.0, 10), "decode": (49.0, 10)}, 0),
    "handover": ({"wait": (50.0, 10), "step": (50.0, 10), "decode": (100.0, 10)}, 4),
    "decode": ({"wait": (50.0, 10), "step": (50.0, 10), "decode": (390.0, 10)}, 4),
    "fetch": ({"wait": (9.0, 10), "step": (91.0, 10), "fetch": (300.0, 9), "copy": (20.0, 9)}, 4),
    "collate": ({"wait": (9.0, 10), "step": (1.0, 10), "collate": (9.5, 10)}, 1),
    "copy": ({"wait": (9.0, 10), "step": (1.0, 10), "copy": (9.5, 0)}, 1),
}


def test_a_stopwatch_adds_up_what_many_threads_and_processes_spent() -> None:
    """No second is lost between threads, and sums merge."""
    watch, other = Stopwatch(), Stopwatch()
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet inside of an addition
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: watch.add("decode", 0.5, 3), range(4000)))
    finally:
        sys.setswitchinterval(often)
    other.add("decode", 1.0)
    other.add("fetch", 2.0)
    watch.merge(json.loads(json.dumps(other.sums())))
    assert watch.sums() == {"decode": (2001.0, 12_001), "fetch": (2.0, 1)}


@pytest.mark.parametrize("limit", LIMITS)
def test_the_report_names_the_limit(limit: str) -> None:
    """The limit is the step, unless much is waited; then threads, the busiest stage, or neither."""
    spent, threads = LIMITS[limit]
    report = StallReport(spent, threads, cores=8)
    assert report.limit == limit
    told = json.loads(report.to_json())
    assert told["limit"] == limit
    assert told["stages"]["wait"] == {"seconds": spent["wait"][0], "times": 10}
    share = spent["wait"][0] / (spent["wait"][0] + spent["step"][0])
    assert told["stall"] == pytest.approx(share)
    assert f"waits for its loader {share:.1%}" in report.verdict()


@pytest.mark.parametrize("cores", [4, 8])
@pytest.mark.parametrize("limit", LIMITS)
def test_the_verdict_fits_a_screen_and_names_options_that_exist(limit: str, cores: int) -> None:
    """A verdict is a few short lines; each option that it says to change is one of Stream's."""
    spent, threads = LIMITS[limit]
    verdict = StallReport(spent, threads, cores).verdict()
    lines = verdict.splitlines()
    assert len(lines) < 10
    assert max(map(len, lines)) <= 120
    named = re.findall(r"(\w+_\w+|\w+(?==))", lines[-1])
    assert set(named) <= inspect.signature(Stream).parameters.keys()
    assert named or limit == "step"
    assert "workers=8" not in verdict or cores == 8 or limit == "fetch"


def test_decoding_is_given_the_cores_that_are_free() -> None:
    """More workers are advised where cores are free, and not where all of them decode."""
    spent, _ = LIMITS["decode"]
    assert "workers=8 (there are 8 cores)" in StallReport(spent, 4, cores=8).verdict()
    assert "workers=" not in StallReport(spent, 4, cores=4).verdict()


def test_without_a_batch_there_is_no_verdict() -> None:
    """A stream that nobody has taken a batch of says so, and divides by nothing."""
    report = StallReport({"start": (0.1, 1)}, 2)
    assert "no batch has been taken" in report.verdict()
    assert report.stall == report.busy == 0
    assert report.cores >= 1
