"""``breadth index``: foreign layouts, here and far away, and what it says of damage."""

import json
import zlib
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from breadth.loaders.errors import OutputError, PoolError, ShardError
from breadth.loaders.folder import open_folder
from breadth.loaders.index import read_index
from breadth.loaders.manifest import Manifest
from breadth.scripts.index import LISTED, index, index_folder

from .damaged_tars import overwrite, parts_of, some_members, write_tar
from .s3_server import Store, serve


def run(*arguments: object) -> Result:
    """Run the command and check that it ends well."""
    result = CliRunner().invoke(index, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def img2dataset(folder: Path) -> Path:
    """Lay out two shards as img2dataset does: PAX headers, parquet and statistics beside them."""
    folder.mkdir()
    for shard in range(2):
        members = some_members(5, f"{shard}")
        write_tar(folder / f"{shard:05d}.tar", members, "pax", 1700000000.25)
        keys = [name.removesuffix(".jpg") for name in members if name.endswith(".jpg")]
        facts = {"key": [*keys, "failed"], "status": [*["success"] * 5, "failed_to_download"]}
        pq.write_table(pa.table(facts), folder / f"{shard:05d}.parquet")
        (folder / f"{shard:05d}_stats.json").write_text('{"count": 6}')
    return folder


def datacomp(folder: Path) -> Path:
    """Lay out two shards as DataComp does: in shards/, numbered with eight digits."""
    (folder / "shards").mkdir(parents=True)
    for shard in range(2):
        path = folder / "shards" / f"{shard:08d}.tar"
        write_tar(path, some_members(5, f"{shard}"), "pax", 1700000000.25)
    return folder


def cc12m(folder: Path) -> Path:
    """Lay out two shards as CC12M's: GNU headers, names with a folder, members without json."""
    folder.mkdir()
    for shard in range(2):
        members = {n: b for n, b in some_members(5, f"./{shard}").items() if n[-4:] != "json"}
        write_tar(folder / f"cc12m-train-{shard:04d}.tar", members, "gnu")
    return folder


@pytest.mark.parametrize("layout", [img2dataset, datacomp, cc12m])
@pytest.mark.parametrize("away", [False, True])
def test_foreign_layouts_are_indexed(tmp_path: Path, layout, away: bool) -> None:
    """Folders as others lay them out open with every pair, with hashes and CRCs, once indexed."""
    folder = layout(tmp_path / "set")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    out = ["--out", tmp_path / "out"] if away else []
    result = run(folder, *out)
    assert result.stdout.startswith("10 pairs in 2 shards, 0.")
    assert result.stderr == ""
    assert {path: path.read_bytes() for path in before} == before
    opened = open_folder(tmp_path / "out" if away else folder)
    assert len(opened) == 10
    assert opened.index["image_crc"].to_pylist() == [
        zlib.crc32(opened.image(row)) for row in range(10)
    ]
    Manifest.read(tmp_path / "out" if away else folder).verify(tmp_path / "out" if away else folder)
    if layout is img2dataset:
        assert opened.column("status").to_pylist() == ["success"] * 10
    assert [opened.caption(row) for row in range(5)] == [f"caption {i}" for i in range(5)]


def test_damage_is_listed_and_costs_its_pairs(tmp_path: Path) -> None:
    """The command ends well, says on standard error what is damaged, and the rest can be read."""
    folder = img2dataset(tmp_path / "set")
    part = parts_of(folder / "00001.tar")["1000000002.jpg"]
    overwrite(folder / "00001.tar", part.begin - 512, b"\xff" * 512)
    result = run(folder)
    assert "10 pairs in 2 shards" in result.stdout
    first, second = result.stderr.splitlines()
    lost = part.end - part.begin + 512
    assert first.startswith("warning: 1 of 2 shards damaged: 1 pair cannot be read")
    assert f"{lost:,} bytes belong to no pair" in first
    assert second == f"  00001.tar: 1 pair; a damaged header at byte {part.begin - 512:,}"
    damaged = open_folder(folder).index["damage"].to_pylist()
    assert [row for row, why in enumerate(damaged) if why] == [7]
    assert run(folder).stderr == result.stderr  # also when the manifest was there already


def test_of_many_damaged_shards_some_are_listed(tmp_path: Path) -> None:
    """The list of damaged shards ends after some, with the number of those left out."""
    for shard in range(LISTED + 3):
        path = write_tar(tmp_path / f"{shard}.tar", some_members(3))
        overwrite(path, parts_of(path)["000000001.txt"].start, b"\xff" * 512)
    lines = run(tmp_path).stderr.splitlines()
    assert len(lines) == LISTED + 2
    assert lines[-1] == "  and 3 more shards"


def test_pairs_with_damaged_json_do_not_stop_the_columns(tmp_path: Path) -> None:
    """The columns of a shard are those of its whole pairs."""
    path = write_tar(tmp_path / "0.tar", some_members(4))
    overwrite(path, parts_of(path)["000000001.json"].begin, b"}}}")
    run(tmp_path)
    assert set(Manifest.read(tmp_path).columns) == {"key", "status", "uid"}


def test_what_is_no_plain_tar_stops_the_command(tmp_path: Path) -> None:
    """A shard with a name that leads out of it is refused: nothing is written for the folder."""
    write_tar(tmp_path / "0.tar", some_members(4))
    write_tar(tmp_path / "1.tar", {"../0.jpg": b"x"})
    with pytest.raises(ShardError, match=r"1\.tar holds '\.\./0\.jpg', outside itself"):
        index_folder(tmp_path, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An img2dataset folder on a server, as bucket/set."""
    with serve(Store()) as store:
        store.put(img2dataset(tmp_path / "set"), "bucket/set")
        options = {
            "anon": True,
            "endpoint_url": store.url,
            "skip_instance_cache": True,
            "use_listings_cache": False,
        }
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        yield store


def test_a_far_folder_is_indexed_here(tmp_path: Path, store: Store) -> None:
    """The tars of a bucket get the index that they have as files, each byte fetched once."""
    pytest.importorskip("s3fs")
    run("s3://bucket/set", "--out", tmp_path / "out")
    run(tmp_path / "set", "--out", tmp_path / "near")
    for name in ("00000.index", "00001.index"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "near" / name).read_bytes()
    far, near = (Manifest.read(tmp_path / name) for name in ("out", "near"))
    assert [shard.name for shard in far.shards] == [
        "s3://bucket/set/00000.tar",
        "s3://bucket/set/00001.tar",
    ]
    assert [shard.sha256 for shard in far.shards] == [shard.sha256 for shard in near.shards]
    assert far.columns == near.columns
    assert store.sent(".tar") == sum(shard.bytes for shard in far.shards)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "00000.index",
        "00001.index",
        "manifest.json",
    ]


def test_a_far_folder_needs_a_place_for_its_index(store: Store) -> None:
    """A URL without --out, or without a tar, is refused in one line."""
    with pytest.raises(OutputError, match="far away: give a folder for its index with --out"):
        index_folder(f"{store.url}/bucket/set")
    with pytest.raises(PoolError, match=r"holds no \.tar shard"):
        index_folder(f"{store.url}/bucket/nowhere")


def test_columns_are_not_all_in_memory_at_once(tmp_path: Path) -> None:
    """A column's type is that of all shards: null in one and a number in another is a number."""
    for shard, level in enumerate((None, 3, 0.5)):
        body = json.dumps({"level": level}).encode()
        write_tar(tmp_path / f"{shard}.tar", {"a.jpg": b"j", "a.json": body})
    assert index_folder(tmp_path).columns["level"] == "double"
    assert read_index(tmp_path / "1.tar")["image_crc"].null_count == 0
