"""A build that is killed at any file operation continues to the bytes of one that was not."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from breadth.curate import materialise
from breadth.curate.build import build
from breadth.curate.fetch.engines import ENGINES
from breadth.curate.fetch.failures import failed_row
from breadth.curate.fetch.spool import Spool
from breadth.curate.recipe import Recipe
from breadth.curate.scratch import Scratch
from breadth.curate.stages.download import Download
from breadth.loaders.accounts import check_accounts
from breadth.loaders.errors import Failed
from breadth.loaders.folder import open_folder
from breadth.loaders.manifest import Manifest

from .conftest import result

PAIRS = 18
OPERATIONS = ("replace", "rename", "unlink", "link", "rmdir", "mkdir")


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and nothing on disk changes after it."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Raise at the ``step``-th operation on a file's name, and at every later one."""
    count = [0]

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] >= step:
                raise Killed
            return operation(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, counted(getattr(os, name)))
        yield count


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fetch from memory: picture n is grey, its level and size told by n; the list says what."""
    asked: list[str] = []

    def fetch(_: Download, times: Mapping[str, int], scratch: Scratch) -> Any:
        asked.extend(times)
        spool = Spool(scratch.part, len(times))
        numbers = [int(url.rsplit("/", 1)[1]) for url in times]
        for place, number in enumerate(numbers):
            spool.put(place, _picture(number))
        return [_facts(number) for number in numbers], spool

    monkeypatch.setitem(ENGINES, "native", fetch)
    monkeypatch.setattr(materialise, "WAVE", 2)
    return asked


def _picture(number: int) -> bytes:
    pixels = np.full((32, 40 + number, 3), number * 9, np.uint8)
    return bytes(cv2.imencode(".jpg", pixels)[1])


def _facts(number: int) -> dict[str, Any]:
    facts = {"status": "success", "original_width": 40 + number, "original_height": 32}
    return facts | {"sha256": sha256(str(number % 16).encode()).hexdigest()}


def _nothing(_: Download, times: Mapping[str, int], scratch: Scratch) -> Any:
    return [failed_row("connect", "nobody listens") for _ in times], Spool(scratch.part, len(times))


def write_pool(folder: Path) -> Path:
    """Eighteen links; the last two are copies of the first two, with more words."""
    captions = [" ".join(["word"] * (2 + n % 5)) + f" {n}" for n in range(PAIRS)]
    file = folder / "pool.parquet"
    pq.write_table(
        pa.table({"url": [f"http://h/{n}" for n in range(PAIRS)], "caption": captions}), file
    )
    return file


def recipe(min_words: int, **output: Any) -> Recipe:
    """Duplicates go first, so that a witness can be dropped after its duplicate."""
    stages = [
        {"name": "download", "image_size": 64},
        {"name": "exact_duplicates"},
        {"name": "caption_length", "min_words": min_words, "min_characters": 1},
    ]
    output = {"part_pairs": 7, "pairs_per_shard": 3} | output
    table = {"name": "crash", "stage": stages, "output": output}
    return Recipe.from_mapping(table, text=f"{min_words} {sorted(output.items())}")


def run(pool: Path, out: Path, min_words: int, **output: Any) -> Manifest:
    return build(recipe(min_words, **output), pool, out, scheduler="sync")


def thumbs(out: Path) -> set[tuple[str, bytes]]:
    return {(file.name, file.read_bytes()) for file in (out / "thumbs").iterdir()}


@pytest.mark.parametrize("edited", [False, True])
def test_a_kill_at_any_operation_changes_nothing(
    edited: bool, offline: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed anywhere, the same command ends with the bytes of an undisturbed build.

    A fresh build and one of a milder recipe over another's folder; nothing is left lying about.
    """
    pool, start, fresh = write_pool(tmp_path), tmp_path / "start", tmp_path / "fresh"
    if edited:
        run(pool, start, 6)
    run(pool, fresh, 4)
    shutil.copytree(start, tmp_path / "whole") if edited else None
    with killed_at(10**9, monkeypatch) as count:
        run(pool, tmp_path / "whole", 4)
    expected, pictures = result(fresh), thumbs(tmp_path / "whole")
    assert result(tmp_path / "whole") == expected
    for step in range(1, count[0] + 1, 7 if edited else 11):
        out = tmp_path / f"killed-{step}"
        shutil.copytree(start, out) if edited else None
        with killed_at(step, monkeypatch), pytest.raises(Killed):
            run(pool, out, 4)
        run(pool, out, 4)
        assert result(out) == expected, step
        assert thumbs(out) == pictures, step
        assert not [f.name for f in out.rglob("*") if f.suffix == ".tmp"], step
        assert not [*out.glob("shards.*"), *out.glob("parts/*/*/*.tar")], step
        check_accounts(out, Manifest.read(out))
        shutil.rmtree(out)


def test_back_and_forth_between_recipes_gives_each_its_own_bytes(
    offline: list[str], tmp_path: Path
) -> None:
    """A, B, A on one folder ends as A alone would, whatever else has changed."""
    pool, out = write_pool(tmp_path), tmp_path / "out"
    for number, (words, output) in enumerate(
        [
            (4, {}),
            (6, {}),
            (4, {}),
            (4, {"pairs_per_shard": 5}),
            (5, {"keep_staged": True}),
            (3, {"materialise": False}),
            (3, {}),
            (9, {}),
            (4, {}),
        ]
    ):
        manifest = run(pool, out, words, **output)
        fresh = tmp_path / f"fresh-{number}"
        run(pool, fresh, words, **output)
        if manifest.keep_list:
            assert sorted(open_folder(out).uids) == sorted(open_folder(fresh).uids)
        else:
            manifest.verify(out)
            assert result(out) == result(fresh), (number, words, output)


@pytest.mark.parametrize("damage", ["gone", "cut", "ledger", "manifest"])
def test_building_again_puts_back_what_is_damaged(
    damage: str, offline: list[str], tmp_path: Path
) -> None:
    """A lost or cut shard, a lost ledger or a broken manifest: the same command mends it."""
    pool, out = write_pool(tmp_path), tmp_path / "out"
    run(pool, out, 4)
    before = result(out)
    shard = out / "shards/00001.tar"
    if damage == "gone":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:2000])
    elif damage == "ledger":
        (out / "ledger/00001.parquet").unlink()
    else:
        (out / "manifest.json").write_text("{")
    run(pool, out, 4)
    assert result(out) == before
    Manifest.read(out).verify(out)


def test_equal_keep_list_builds_have_equal_manifests(offline: list[str], tmp_path: Path) -> None:
    """Tars that a manifest refers to are named by their content, so data order is the same."""
    pool = write_pool(tmp_path)
    first, second = (run(pool, tmp_path / x, 4, materialise=False) for x in "ab")
    assert first.digest == second.digest
    assert open_folder(tmp_path / "a").digest == open_folder(tmp_path / "b").digest


def test_a_picture_that_cannot_be_fetched_again_leaves_the_accounts_as_they_were(
    offline: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build fails with one line, and succeeds with the same bytes once the site is back."""
    pool, out = write_pool(tmp_path), tmp_path / "out"
    run(pool, out, 6)
    with monkeypatch.context() as patch:
        patch.setitem(ENGINES, "native", _nothing)
        for _ in range(2):
            with pytest.raises(Failed, match="fetched again"):
                run(pool, out, 4)
    run(pool, out, 4)
    run(pool, tmp_path / "fresh", 4)
    assert result(out) == result(tmp_path / "fresh")


def test_a_dropped_witness_does_not_stop_the_thumbnails(offline: list[str], tmp_path: Path) -> None:
    """A duplicate's witness that a later stage drops is shown beside it all the same."""
    out = tmp_path / "out"
    run(write_pool(tmp_path), out, 9)
    ledger = pa.concat_tables(pq.read_table(f) for f in (out / "ledger").iterdir()).to_pylist()
    kept = {row["uid"] for row in ledger if row["kept"]}
    assert [row for row in ledger if row["witness"] and row["witness"] not in kept]
    assert Manifest.read(out).pairs == 0
    assert [f.name for f in (out / "shards").iterdir()] == [".layout"]
