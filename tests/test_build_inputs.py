"""Odd pools and odd recipes: nothing is lost, and nothing stops a build that need not."""

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from breadth.curate.build import build
from breadth.curate.fetch import img2dataset_engine
from breadth.curate.recipe import Recipe
from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import Failed, PoolError, RecipeError
from breadth.loaders.manifest import Manifest

from .conftest import result
from .test_build_crashes import offline, recipe, run, write_pool

__all__ = ["offline"]  # a fixture


def ledger(out: Path) -> list[dict[str, Any]]:
    return [r for f in sorted((out / "ledger").iterdir()) for r in pq.read_table(f).to_pylist()]


def test_a_pools_column_that_a_stage_also_writes_stays_readable(
    offline: list[str], tmp_path: Path
) -> None:
    """Where the types differ the pool's own is set aside; nothing stops, whatever is in it."""
    table = pq.read_table(write_pool(tmp_path))
    words = pa.array([f"about {n}" for n in range(len(table))])
    table = table.append_column("status", words).append_column("original_width", words)
    table = table.append_column("when", pa.array(range(len(table)), pa.timestamp("s")))
    pq.write_table(table, tmp_path / "odd.parquet")
    run(tmp_path / "odd.parquet", tmp_path / "out", 4)
    rows = ledger(tmp_path / "out")
    assert {row["pool_original_width"] for row in rows} == set(words.to_pylist())
    assert all(40 <= row["original_width"] < 58 for row in rows)


def test_a_stage_may_stand_twice(offline: list[str], tmp_path: Path) -> None:
    """The second measures only what the first has not, and a resumed ledger has every value."""
    length = {"name": "caption_length", "min_characters": 1}
    stages = [{"name": "download"}, length | {"min_words": 3}, length | {"min_words": 4}]
    twice = Recipe.from_mapping({"name": "twice", "stage": stages})
    pool = write_pool(tmp_path)
    build(twice, pool, tmp_path / "out", scheduler="sync")
    before = result(tmp_path / "out")
    assert all(row["words"] is not None for row in ledger(tmp_path / "out"))
    (tmp_path / "out/manifest.json").unlink()
    build(twice, pool, tmp_path / "out", scheduler="sync")
    assert result(tmp_path / "out") == before


def test_a_pair_without_a_picture_is_dropped_with_a_reason(tmp_path: Path) -> None:
    """One pair of a folder of shards that has none does not stop the others."""
    png = bytes.fromhex("89504e470d0a1a0a")
    pairs = (({"uid": f"{n:032x}", "caption": "c"}, png if n else b"", "png") for n in range(5))
    write_folder(tmp_path / "shards", pairs, name="some")
    stages = [{"name": "caption_length", "min_words": 1, "min_characters": 1}]
    keep = Recipe.from_mapping({"name": "keep", "stage": stages})
    manifest = build(keep, tmp_path / "shards", tmp_path / "out", scheduler="sync")
    assert (manifest.pairs, manifest.funnel[0]["dropped"]) == (4, {"no picture": 1})


def test_a_keep_list_build_is_a_pool_with_all_its_columns(
    offline: list[str], tmp_path: Path
) -> None:
    """What was measured is in the ledger; the staged shards do not have it."""
    pool, first = write_pool(tmp_path), tmp_path / "first"
    kept = run(pool, first, 4, materialise=False).pairs
    stages = [{"name": "threshold", "column": "original_width", "min": 45}]
    wide = Recipe.from_mapping({"name": "wide", "stage": stages})
    manifest = build(wide, first, tmp_path / "second", scheduler="sync")
    assert manifest.funnel[0]["in"] == kept
    wider = [r for r in ledger(first) if r["kept"] and r["original_width"] >= 45]
    assert 0 < manifest.pairs == len(wider) < kept


def test_a_build_without_a_pair_is_no_pool(offline: list[str], tmp_path: Path) -> None:
    """Nothing kept is a result; as a pool it is refused, and its ledger not taken for links."""
    pool = write_pool(tmp_path)
    assert run(pool, tmp_path / "none", 9).pairs == 0
    assert Manifest.read(tmp_path / "none").shards == ()
    with pytest.raises(PoolError, match="holds no pair"):
        build(recipe(4), tmp_path / "none", tmp_path / "out", scheduler="sync")


def test_uids_that_come_twice_need_shards_of_their_own(tmp_path: Path) -> None:
    """A keep list cannot tell two pairs of one uid apart: refused before any work."""
    png = bytes.fromhex("89504e470d0a1a0a")
    for name in ("00000", "00001"):
        write_folder(
            tmp_path / name, [({"uid": "0" * 31 + "1", "caption": name}, png, "png")], name="n"
        )
        for file in (tmp_path / name).glob("00000.*"):
            file.rename(tmp_path / "00000" / f"{name}{file.suffix}")
    (tmp_path / "00000/manifest.json").unlink()
    stages = [{"name": "caption_length", "min_words": 1, "min_characters": 1}]
    table = {"name": "keep", "stage": stages, "output": {"materialise": False}}
    with pytest.raises(RecipeError, match="materialise = true"):
        build(Recipe.from_mapping(table), tmp_path / "00000", tmp_path / "o", scheduler="sync")
    assert not (tmp_path / "o").exists()
    table["output"] = {}
    manifest = build(
        Recipe.from_mapping(table), tmp_path / "00000", tmp_path / "o", scheduler="sync"
    )
    assert (manifest.pairs, manifest.funnel[0]["dropped"]) == (1, {"repeated": 1})


def test_a_part_that_the_engine_gives_up_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """img2dataset reports a full disk as a failed shard: a failed part, not thousands of rows."""

    def gives_up(*_: object, **__: object) -> Any:
        return lambda row: (sys.stdout.write("shard 0: No space left\n") and False, row)

    monkeypatch.setattr(img2dataset_engine, "_downloader", gives_up)
    stages = [{"name": "download", "engine": "img2dataset"}]
    compatible = Recipe.from_mapping({"name": "crash", "stage": stages})
    with pytest.raises(Failed, match=r"No space left.*same command again"):
        build(compatible, write_pool(tmp_path), tmp_path / "out", scheduler="sync")
    assert not list((tmp_path / "out/parts").rglob("done.json"))
