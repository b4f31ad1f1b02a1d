"""Writing shards: plain tars, equal for equal input, complete or not there."""

import json
import math
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breadth.curate.shard_writer import _compact_json, write_folder, write_shard
from breadth.loaders.errors import OutputError, ShardError
from breadth.loaders.folder import open_folder
from breadth.loaders.index import index_tar, read_index
from breadth.loaders.manifest import Manifest


def some_pairs(count: int) -> pa.Table:
    """Make pairs with typed columns, odd captions, nulls and pictures of three formats."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    kinds = (".jpg", ".png", ".webp")
    images = [cv2.imencode(kinds[i % 3], noise[i])[1].tobytes() for i in range(count)]
    columns = {
        "uid": [rng.bytes(16).hex() for _ in range(count)],
        "url": pa.array([None if i % 4 else f"http://x/{i}" for i in range(count)], pa.string()),
        "caption": [f'käse "{i}"\n\u2028 雪' if i else "" for i in range(count)],
        "image": pa.array(images, pa.binary()),
        "width": pa.array([16] * count, pa.int32()),
        "score": pa.array([float("nan") if i == 1 else i / 3 for i in range(count)], pa.float32()),
        "nothing": pa.nulls(count, pa.string()),
    }
    return pa.table(columns)


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_equal_pairs_give_equal_bytes(tmp_path: Path) -> None:
    """Writing a set twice gives the same tars, parquets, indexes and manifest."""
    for name in ("a", "b"):
        write_folder(tmp_path / name, some_pairs(25), name="t", pairs_per_shard=10)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    kinds = [f"0000{n}.{kind}" for n in range(3) for kind in ("index", "parquet", "tar")]
    assert sorted(first) == [*kinds, "manifest.json"]


def test_a_shard_is_a_plain_tar_of_what_was_given(tmp_path: Path) -> None:
    """Python's tarfile finds picture, caption and columns of each pair, in order, without PAX."""
    pairs = some_pairs(10)
    write_folder(tmp_path, pairs, name="t")
    with tarfile.open(tmp_path / "00000.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
        assert all(not m.pax_headers and m.mtime == m.uid == m.gid == 0 for m in tar)
        assert {m.mode for m in tar} == {0o644}
    rows = pairs.to_pylist()
    extensions = [("jpg", "png", "webp")[i % 3] for i in range(10)]
    names = [(r["uid"], kind) for r, e in zip(rows, extensions, strict=True)
             for kind in (e, "txt", "json")]  # fmt: skip
    assert list(members) == [".".join(name) for name in names]
    for row, extension in zip(rows, extensions, strict=True):
        assert members[f"{row['uid']}.{extension}"] == row.pop("image")
        assert members[f"{row['uid']}.txt"].decode() == row["caption"]
        row["score"] = None if np.isnan(row["score"]) else row["score"]
        assert json.loads(members[f"{row['uid']}.json"]) == row


def test_index_and_parquet_describe_the_tar(tmp_path: Path) -> None:
    """The index written with a tar is the one that a walk finds; the parquet keeps every type."""
    pairs = some_pairs(23)
    write_folder(tmp_path, pairs, name="t", pairs_per_shard=9)
    tars = sorted(tmp_path.glob("*.tar"))
    for tar in tars:
        walked = index_tar(tar)
        assert read_index(tar).equals(walked)
        assert read_index(tar).schema.metadata == walked.schema.metadata
    stored = pa.concat_tables(pq.read_table(tar.with_suffix(".parquet")) for tar in tars)
    assert stored.schema == pairs.drop_columns("image").schema
    assert stored["uid"].equals(pairs["uid"])


def test_the_manifest_counts_and_hashes_what_was_written(tmp_path: Path) -> None:
    """Sizes, counts and hashes are right, and a changed byte is named with both hashes."""
    manifest = write_folder(tmp_path, some_pairs(25), name="t", pairs_per_shard=10)
    assert Manifest.read(tmp_path) == manifest
    assert [shard.pairs for shard in manifest.shards] == [10, 10, 5]
    assert manifest.columns["width"] == "int32"
    manifest.verify(tmp_path)
    body = bytearray((tmp_path / "00001.tar").read_bytes())
    body[700] ^= 1
    (tmp_path / "00001.tar").write_bytes(body)
    with pytest.raises(ShardError, match=rf"00001\.tar has sha256 .*{manifest.shards[1].sha256}"):
        manifest.verify(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A shard whose pairs stop in an error has no tar, and no temporary file stays."""

    def broken():
        for row in some_pairs(3).drop_columns("image").to_pylist():
            yield row, b"x", "jpg"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_shard(tmp_path / "00000.tar", broken())
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("uid", ["", "A" * 32, "0" * 31, None])
def test_a_malformed_uid_is_refused(tmp_path: Path, uid: str | None) -> None:
    """A uid is 32 lower-case hex characters, so that it is a safe file name, too."""
    with pytest.raises(ShardError, match="malformed"):
        write_shard(tmp_path / "00000.tar", [({"uid": uid, "caption": ""}, b"x", "jpg")])


def test_a_uid_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """Two pairs of one uid cannot lie in one shard."""
    pair = ({"uid": "0" * 32, "caption": ""}, b"x", "jpg")
    with pytest.raises(ShardError, match="twice"):
        write_shard(tmp_path / "00000.tar", [pair, pair])


def test_a_finished_set_is_not_written_over(tmp_path: Path) -> None:
    """A folder with a manifest is refused; one that was interrupted is written anew."""
    write_folder(tmp_path, some_pairs(5), name="t")
    with pytest.raises(OutputError, match="already holds a set"):
        write_folder(tmp_path, some_pairs(5), name="t")
    (tmp_path / "manifest.json").unlink()
    write_folder(tmp_path, some_pairs(6), name="t")
    assert len(open_folder(tmp_path)) == 6


@given(
    st.dictionaries(
        st.text(max_size=4),
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
        max_size=5,
    )
)
def test_columns_are_encoded_as_pythons_json_does(columns: dict[str, object]) -> None:
    """The JSON member has the bytes of Python's json with sorted keys, null for NaN and infinity.

    Shards must not change with the library that encodes them.
    """
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in columns.items()
    }
    expected = json.dumps(finite, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert _compact_json(columns) == expected.encode()


@pytest.mark.parametrize("value", [1e-5, 9.99e-5, 1e-4, 1e16, 9999999999999998.0, 5e-324, -0.0])
def test_numbers_with_an_exponent_are_encoded_as_pythons_json_does(value: float) -> None:
    """Python writes 1e-05 where other encoders write 1e-5: the shard has Python's."""
    assert _compact_json({"x": value}) == f'{{"x":{json.dumps(value)}}}'.encode()


def test_a_column_that_only_later_pairs_have_is_kept(tmp_path: Path) -> None:
    """Pairs may bring unlike columns: what one lacks is null in the parquet."""
    encoded = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    rows = [{"uid": f"{i:032x}", "caption": "c"} for i in range(2)]
    rows[1]["licence"] = "CC0"
    write_shard(tmp_path / "0.tar", [(row, encoded, "png") for row in rows])
    assert open_folder(tmp_path).column("licence").to_pylist() == [None, "CC0"]
