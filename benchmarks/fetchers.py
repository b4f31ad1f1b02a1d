"""Fetch the same links with img2dataset and with Breadth, each by its own command."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .process_tree import Usage, run

WORKERS = 2
PARTS = 8  # what Breadth cuts some thousand links into by itself
_BIN = Path(sys.executable).parent
_SAME = {"image_size": 256, "resize_mode": "border", "resize_only_if_bigger": False, "retries": 0}


@dataclass(frozen=True)
class Work:
    """What is fetched, and under which conditions; both fetchers are given the same."""

    urls: Sequence[str]
    connections: int = 64  # of each of the two processes
    timeout_s: int = 10
    keep_bytes: bool = False  # pictures are stored as they came
    certificate: Path | None = None
    shards: int = 4  # of img2dataset's, which replaces a process after five and so starts again

    @property
    def environment(self) -> dict[str, str]:
        """What both commands are told: which certificate to trust, to compile once, to be quiet."""
        trusted = {"SSL_CERT_FILE": str(self.certificate)} if self.certificate else {}
        # empty is unset: the Python of a user keeps what it has compiled
        return {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONDONTWRITEBYTECODE": "", **trusted}


@dataclass(frozen=True)
class Outcome:
    """What came of one command."""

    pictures: int
    steady_s: float  # from the first part's begin to the last one's end: no start, no closing
    usage: Usage


def img2dataset(work: Work, folder: Path) -> Outcome:
    """Run the ``img2dataset`` command; its stats say when each shard began and ended."""
    out = folder / "img2dataset"
    options = _SAME | {
        "url_list": _pool(work, folder),
        "input_format": "parquet",
        "caption_col": "caption",
        "output_format": "webdataset",
        "output_folder": out,
        "processes_count": WORKERS,
        "thread_count": work.connections,
        "number_sample_per_shard": -(-len(work.urls) // work.shards),
        "timeout": work.timeout_s,
        "disable_all_reencoding": work.keep_bytes,
    }
    command = [str(_BIN / "img2dataset"), *(f"--{name}={value}" for name, value in options.items())]
    usage = run(command, work.environment, folder / "img2dataset.log")
    stats = [json.loads(file.read_text()) for file in out.glob("*_stats.json")]
    began, ended = min(s["start_time"] for s in stats), max(s["end_time"] for s in stats)
    return Outcome(sum(s["successes"] for s in stats), ended - began, usage)


@dataclass(frozen=True)
class Breadth:
    """``breadth build`` of a recipe that only fetches; ``options`` are the stage's own."""

    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)

    def __call__(self, work: Work, folder: Path) -> Outcome:
        """Run it; each part's ``timings.json``, its last file but one, says when it ended."""
        out, recipe = folder / "breadth", folder / "recipe.toml"
        recipe.write_text(self._recipe(work))
        pool = ("--pool", str(_pool(work, folder)), "--workers", str(WORKERS))
        command = [str(_BIN / "breadth"), "build", str(recipe), *pool, "--out", str(out)]
        usage = run(command, work.environment, folder / "breadth.log")
        began, ended = [], []
        for file in out.glob("parts/*/*/timings.json"):
            ended.append(file.stat().st_mtime)
            began.append(ended[-1] - sum(json.loads(file.read_text())["seconds"].values()))
        pictures = json.loads((out / "manifest.json").read_text())["pairs"]
        return Outcome(pictures, max(ended) - min(began), usage)

    def _recipe(self, work: Work) -> str:
        unlimited = {"per_domain_connections": 0, "per_domain_per_s": 0.0, "breaker_failures": 0}
        stage = (
            unlimited
            | _SAME
            | {
                "allow_private": True,  # the benchmark's servers are on this machine
                "connections": work.connections // 2,  # a process fetches two parts at once
                "deadline_s": float(work.timeout_s),
                "disable_all_reencoding": work.keep_bytes,
            }
        )
        lines = [
            f"{name} = {json.dumps(value)}" for name, value in {**stage, **self.options}.items()
        ]
        part_pairs = -(-len(work.urls) // PARTS)
        output = ["[output]", "materialise = false", f"part_pairs = {part_pairs}", ""]
        return "\n".join(['name = "benchmark"', "[[stage]]", 'name = "download"', *lines, *output])


def _pool(work: Work, folder: Path) -> Path:
    captions = [f"picture {number}" for number in range(len(work.urls))]
    file = folder / "links.parquet"
    pq.write_table(pa.table({"url": list(work.urls), "caption": captions}), file)
    return file
