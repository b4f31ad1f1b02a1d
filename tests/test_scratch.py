"""What a stage that fetches is given, and what becomes of its pictures and places."""

import json
import tarfile
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from breadth.curate.build import build
from breadth.curate.part_store import PartStore, sweep
from breadth.curate.recipe import Recipe
from breadth.curate.scratch import Scratch
from breadth.curate.stage import STAGES, Filter
from breadth.curate.time_spent import time_spent
from breadth.loaders.errors import Failed

from .conftest import result

PAIRS = 30
MIB = 1 << 20


@dataclass
class Asked:
    """What the stage below was given, and how it is to behave."""

    scratches: list[Scratch] = field(default_factory=list)
    picture_bytes: int = 100
    fail_at: int = -1  # the call that raises
    arrive: bool = True


ASKED = Asked()


class Made(Sequence[bytes | None]):
    """Pictures that are nowhere until they are asked for, as on a disk; every third is missing."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: Any) -> Any:
        number = self.numbers[row]
        if number % 3 == 0 or not ASKED.arrive:
            return None
        return b"\xff\xd8\xff" + number.to_bytes(4, "big") + bytes(ASKED.picture_bytes)


@pytest.fixture(autouse=True)
def stage() -> Iterator[Asked]:
    """Register a stage that makes its pictures; it is gone after the test."""

    @dataclass(frozen=True)
    class Fetch(Filter, name="test_fetch"):
        resource = "network"
        reads = ("url",)
        writes = {"image": pa.binary(), "arrived": pa.bool_()}

        def annotate(self, pairs: pa.Table, scratch: Scratch | None = None) -> Mapping[str, Any]:
            assert scratch is not None
            ASKED.scratches.append(scratch)
            assert scratch.part.is_dir() and scratch.journal.is_dir() and scratch.shared.is_dir()
            assert scratch.live.parent.is_dir()
            assert not list(scratch.part.iterdir())
            (scratch.part / "spool").write_bytes(b"x")
            (scratch.journal / "try").open("a").write("x")
            if len(ASKED.scratches) == ASKED.fail_at:
                raise OSError("the network is down")
            scratch.timings.update(body=2.0, decode=0.5)
            pictures = Made([int(url.rsplit("/", 1)[1]) for url in pairs["url"].to_pylist()])
            arrived = [picture is not None for picture in pictures]
            return {"image": pictures, "arrived": pa.array(arrived, pa.bool_())}

        def keep(self, pairs: pa.Table) -> pa.BooleanArray:
            return pc.equal(pairs["arrived"], True)

    ASKED.__init__()  # type: ignore[misc]
    yield ASKED
    del STAGES["test_fetch"]


def write_pool(folder: Path, pairs: int = PAIRS) -> Path:
    urls = [f"http://h/{number}" for number in range(1, pairs + 1)]
    file = folder / "pool.parquet"
    pq.write_table(pa.table({"url": urls, "caption": [f"word {url}" for url in urls]}), file)
    return file


def run(pool: Path, out: Path, **output: Any) -> Any:
    table = {"name": "t", "stage": [{"name": "test_fetch"}], "output": {"part_pairs": 8} | output}
    recipe = Recipe.from_mapping(table, text=str(output))
    return build(recipe, pool, out, scheduler="sync")


def test_pictures_go_to_the_shards_one_by_one(stage: Asked, tmp_path: Path) -> None:
    """Pictures that a stage keeps on disk are never in memory together: 60 MiB pass through 15."""
    stage.picture_bytes = MIB
    pool = write_pool(tmp_path, 90)
    tracemalloc.start()
    try:
        manifest = run(pool, tmp_path / "out", part_pairs=1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert manifest.pairs == 60
    assert sum(shard.bytes for shard in manifest.shards) > 60 * MIB
    assert peak < 15 * MIB


def test_every_picture_stays_with_its_pair(stage: Asked, tmp_path: Path) -> None:
    """The shards hold exactly the pictures that came, each beside its own URL."""
    run(write_pool(tmp_path), tmp_path / "out")
    found = {}
    for shard in (tmp_path / "out/shards").glob("*.tar"):
        with tarfile.open(shard) as tar:
            bodies = {member.name: tar.extractfile(member).read() for member in tar}
        for name in bodies:
            if name.endswith(".json"):
                found[json.loads(bodies[name])["url"]] = bodies[name.replace("json", "jpg")]
    numbers = [number for number in range(1, PAIRS + 1) if number % 3]
    assert found == {f"http://h/{number}": Made([number])[0] for number in numbers}


def test_where_nothing_arrives_no_tar_is_written(stage: Asked, tmp_path: Path) -> None:
    """A part without a picture has its columns and verdicts, and no tar."""
    stage.arrive = False
    manifest = run(write_pool(tmp_path), tmp_path / "out", keep_staged=True)
    assert manifest.pairs == 0
    assert not list(tmp_path.glob("out/parts/*/*/*.tar"))


def test_each_part_has_places_of_its_own_and_they_go(stage: Asked, tmp_path: Path) -> None:
    """Parts share one folder, have journals and live files of their own; a done build has none."""
    out = tmp_path / "out"
    run(write_pool(tmp_path), out)
    assert len(stage.scratches) > 2
    assert len({s.shared for s in stage.scratches}) == 1
    for place in ("part", "journal", "live"):
        assert len({getattr(s, place) for s in stage.scratches}) == len(stage.scratches)
    for scratch in stage.scratches:
        assert not scratch.part.exists()
    assert not (out / "fetching").exists() and not (out / "live").exists()


def test_a_journal_outlives_a_failed_try(stage: Asked, tmp_path: Path) -> None:
    """What a try noted in its journal is there for the next build; its own folder is not."""
    pool, out = write_pool(tmp_path), tmp_path / "out"
    stage.fail_at = 2
    with pytest.raises(Failed, match="the network is down"):
        run(pool, out)
    failed = stage.scratches[1]
    assert not failed.part.exists()
    assert (failed.journal / "try").read_text() == "x"
    tries = len(stage.scratches)
    run(pool, out)
    assert len(stage.scratches) == tries + 1
    assert stage.scratches[-1].journal == failed.journal
    assert stage.scratches[-1].part != failed.part
    stage.fail_at = -1
    run(pool, tmp_path / "undisturbed")
    assert result(out) == result(tmp_path / "undisturbed")


def test_a_sweep_takes_the_places_of_killed_tries(tmp_path: Path) -> None:
    """A committed part loses only what a killed try left in it; an uncommitted one goes whole."""
    legs = tmp_path / "parts"
    store = PartStore(legs / "fetch-1", 0)
    attempt = store.attempt()
    kept = attempt.write_columns("fetch", pa.array([0]).to_numpy(), {"arrived": [True]})
    attempt.commit([kept])
    attempt.write_timings(1, {"fetch": 1.0}, {})
    killed, other = PartStore(legs / "fetch-1", 1).attempt(), store.leg / "00000" / "scratch.dead"
    for folder in (killed.scratch, other):
        folder.mkdir()
        (folder / "spool").write_bytes(b"x")
    sweep(legs)
    assert not killed.folder.exists()
    assert sorted(f.name for f in (legs / "fetch-1/00000").iterdir()) == sorted(
        ["done.json", "timings.json", kept]
    )


def test_timings_are_kept_by_part_and_added_up(stage: Asked, tmp_path: Path) -> None:
    """Each part's phases are what its stage said, and writing; the sum names the limit."""
    out = tmp_path / "out"
    run(write_pool(tmp_path), out)
    files = out.glob("parts/test_fetch-*/*/timings.json")
    parts = [json.loads(file.read_bytes()) for file in files]
    assert sum(part["pairs"] for part in parts) == PAIRS
    for part in parts:
        assert part["phases"].keys() == {"body", "decode", "write"}
        assert (part["phases"]["body"], part["phases"]["decode"]) == (2.0, 0.5)
        assert 0 < part["phases"]["write"] < part["seconds"]["test_fetch"]
    spent = time_spent(out)
    assert spent is not None and spent["parts"] == len(parts)
    assert spent["fetching"]["waiting"] == {"body": 2.0 * len(parts)}
    assert spent["fetching"]["work"]["decode"] == 0.5 * len(parts)
    assert spent["fetching"]["pairs"] == PAIRS
