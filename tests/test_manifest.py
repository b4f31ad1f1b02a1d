"""Manifests: read back as written, and every mismatch with the folder named in one line."""

import json
import shutil
from pathlib import Path

import pytest

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import BreadthError, PoolError, ShardError
from breadth.loaders.folder import open_folder
from breadth.loaders.manifest import Manifest, Shard, find_shards
from breadth.loaders.subset import write_npy


def uid(number: int) -> str:
    """Return the uid of a number."""
    return f"{number:032x}"


def make_set(folder: Path, count: int = 20) -> Manifest:
    """Write pairs in shards of eight; pictures are not decoded here."""
    pairs = (({"uid": uid(i), "caption": f"c{i}"}, b"\xff\xd8\xff", "jpg") for i in range(count))
    return write_folder(folder, pairs, name="t", pairs_per_shard=8)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every field survives, keys are sorted, and the digest is that of the text."""
    funnel = ({"stage": "pool", "kind": "pool", "in": 3, "kept": 2, "dropped": {"repeated": 1}},)
    manifest = Manifest("größe", recipe="[x]\n", pool={"candidates": 3}, pairs=2, funnel=funnel,
                        shards=(Shard("00000.tar", 2, 1, "f" * 64),))  # fmt: skip
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert Manifest.read(tmp_path).digest == manifest.digest
    text = (tmp_path / "manifest.json").read_text("utf-8")
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert "größe" in text


def test_shards_are_found_in_every_layout(tmp_path: Path) -> None:
    """A bare folder, a build (manifest above ``shards/``) and one tar open alike."""
    bare = tmp_path / "bare"
    manifest = make_set(bare)
    names = [shard.name for shard in manifest.shards]
    assert [path.name for path in find_shards(bare)] == names
    build = tmp_path / "build"
    shutil.copytree(bare, build / "shards")
    (build / "shards" / "manifest.json").rename(build / "manifest.json")
    assert find_shards(build) == [build / "shards" / name for name in names]
    (build / "manifest.json").unlink()
    assert find_shards(build) == [build / "shards" / name for name in names]
    assert find_shards(bare / "00001.tar") == [bare / "00001.tar"]
    assert open_folder(build).uids == open_folder(bare).uids


def test_a_keep_list_chooses_pairs_of_shards_elsewhere(tmp_path: Path) -> None:
    """Shards that are only referenced open through their keep-list, and its count is checked."""
    whole = make_set(tmp_path / "whole")
    shards = tuple(
        Shard(str(tmp_path / "whole" / s.name), s.pairs, s.bytes, s.sha256) for s in whole.shards
    )
    chosen = [uid(i) for i in (17, 2, 3)]
    (tmp_path / "out").mkdir()
    write_npy(tmp_path / "out" / "keep.npy", chosen)
    Manifest("kept", pairs=3, shards=shards, keep_list="keep.npy").write(tmp_path / "out")
    folder = open_folder(tmp_path / "out")
    assert folder.uids == sorted(chosen)
    assert folder.column("caption").to_pylist() == ["c2", "c3", "c17"]
    assert [folder.caption(row) for row in range(3)] == ["c2", "c3", "c17"]
    assert folder.candidates()["_row"].to_pylist() == [2, 3, 1]
    Manifest("kept", pairs=4, shards=shards, keep_list="keep.npy").write(tmp_path / "out")
    with pytest.raises(ShardError, match="holds 3 pairs and its manifest says 4"):
        open_folder(tmp_path / "out")


def lose_folder(folder: Path) -> None:
    """Remove all."""
    shutil.rmtree(folder)


def lose_tars(folder: Path) -> None:
    """Leave an empty folder."""
    shutil.rmtree(folder)
    folder.mkdir()


def lose_shard(folder: Path) -> None:
    """Remove one shard."""
    (folder / "00001.tar").unlink()


def cut_shard(folder: Path) -> None:
    """Cut one shard in half."""
    body = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(body[: len(body) // 2])


def leave_unfinished(folder: Path) -> None:
    """Make it look like a build that was interrupted."""
    (folder / "manifest.json").unlink()
    (folder / "parts").mkdir()


def empty_manifest(folder: Path) -> None:
    """Make it the build that kept nothing."""
    Manifest("t").write(folder)


def tear_manifest(folder: Path) -> None:
    """Cut the manifest."""
    (folder / "manifest.json").write_text('{"name": "t", ')


def age_manifest(folder: Path) -> None:
    """Give the manifest a format of the future."""
    stored = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(stored | {"format": 9}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lose_folder, PoolError, "there is no folder"),
        (lose_tars, PoolError, "holds no .tar shard"),
        (lose_shard, ShardError, "00001.tar .* is missing"),
        (cut_shard, ShardError, r"00001\.tar has \d+ bytes and its manifest says \d+"),
        (leave_unfinished, PoolError, "not finished: run the same build command"),
        (tear_manifest, PoolError, r"manifest\.json is damaged"),
        (empty_manifest, PoolError, "holds no pair"),
        (age_manifest, PoolError, "format 9"),
    ],
)
def test_a_bad_folder_is_one_clear_line(tmp_path: Path, damage, error, message: str) -> None:
    """Whatever is missing or damaged is named in one line with what to do, and status 2."""
    folder = tmp_path / "set"
    make_set(folder)
    damage(folder)
    with pytest.raises(BreadthError, match=message) as raised:
        open_folder(folder)
    assert type(raised.value) is error
    assert raised.value.exit_status == 2
    assert "\n" not in str(raised.value)
