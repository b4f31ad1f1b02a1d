"""Reading pairs by row from local shards: no copies, and damage costs the pairs that it touches."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from breadth.curate.shard_writer import write_folder
from breadth.loaders import storage
from breadth.loaders.errors import ShardError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.index import INDEX_SCHEMA, index_tar, write_index

PAIRS = 30


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three shards of ten pairs with pictures of noise behind a JPEG's first bytes."""
    rng = np.random.default_rng(0)
    pairs = (
        (
            {"uid": f"{i:032x}", "caption": f"caption {i}", "score": i / 7},
            b"\xff\xd8\xff" + rng.bytes(100 * (i + 1)),
            "jpg",
        )
        for i in range(PAIRS)
    )
    write_folder(tmp_path / "set", pairs, name="t", pairs_per_shard=10)
    return open_folder(tmp_path / "set")


def tar_members(folder: Folder) -> dict[str, bytes]:
    """Read every member with Python's own reader."""
    found = {}
    for shard in folder.shards:
        with tarfile.open(shard) as tar:
            found |= {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    return found


def test_rows_are_read_in_any_order(folder: Folder) -> None:
    """Pictures and captions of some rows, repeated or not, are those that tarfile finds."""
    members = tar_members(folder)
    rows = np.random.default_rng(1).integers(0, PAIRS, 100)
    uids = [folder.uids[row] for row in rows]
    views = folder.pictures(rows, check=True)
    assert [bytes(view) for view in views] == [members[f"{uid}.jpg"] for uid in uids]
    assert folder.captions(rows) == [members[f"{uid}.txt"].decode() for uid in uids]
    assert [folder.columns(int(row)) for row in rows[:5]] == [
        json.loads(members[f"{uid}.json"]) for uid in uids[:5]
    ]
    assert folder.image(int(rows[0])) == members[f"{uids[0]}.jpg"]
    assert folder.pictures(rows[:0]) == [] and folder.captions(rows[:0]) == []


def test_pictures_are_not_copied(folder: Folder) -> None:
    """Two views of one picture are the same memory, which cannot be written."""
    first, second = folder.pictures(np.array([7, 7]))
    places = [np.frombuffer(view, np.uint8).ctypes.data for view in (first, second)]
    assert places[0] == places[1]
    assert first.readonly


def test_views_outlive_the_maps_they_were_cut_from(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few shards may be open at once, every view stays what it was."""
    monkeypatch.setattr(storage, "OPEN_SHARDS", 1)
    expected = tar_members(folder)
    rows = np.arange(PAIRS).reshape(3, 10).T.ravel()  # another shard with every pair
    views = folder.pictures(rows)
    assert [bytes(v) for v in views] == [expected[f"{folder.uids[row]}.jpg"] for row in rows]


def test_a_missing_or_shortened_shard_costs_its_own_pairs(folder: Folder) -> None:
    """After a shard has gone or was cut, its pairs are errors in place and the others are whole."""
    expected = tar_members(folder)
    folder.shards[0].unlink()
    cut = folder.shards[1].read_bytes()[:4000]
    folder.shards[1].write_bytes(cut)
    found = folder.pictures(np.arange(PAIRS))
    assert all(isinstance(view, ShardError) for view in found[:10])
    assert "00000.tar is missing" in str(found[0])
    assert [isinstance(view, ShardError) for view in found[10:20]].count(False) == 1
    assert "00001.tar ends before byte" in str(found[19])
    assert bytes(found[10]) == expected[f"{folder.uids[10]}.jpg"]
    assert [bytes(v) for v in found[20:]] == [expected[f"{uid}.jpg"] for uid in folder.uids[20:]]
    assert all(isinstance(caption, ShardError) for caption in folder.captions(np.arange(10)))
    with pytest.raises(ShardError, match="is missing"):
        folder.image(0)


def test_other_bytes_are_found_by_their_crc(folder: Folder) -> None:
    """One changed bit in a picture is an error in its place, where CRCs are compared."""
    body = bytearray(folder.shards[0].read_bytes())
    body[folder.index["image_offset"][3].as_py() + 50] ^= 4
    folder.shards[0].write_bytes(body)
    found = folder.pictures(np.arange(PAIRS), check=True)
    assert [n for n, view in enumerate(found) if isinstance(view, ShardError)] == [3]
    assert f"{folder.uids[3]} of shard 00000.tar has other bytes" in str(found[3])
    assert not any(isinstance(view, ShardError) for view in folder.pictures(np.arange(PAIRS)))


def foreign(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar as others do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def test_captions_come_from_the_text_or_the_json(tmp_path: Path) -> None:
    """A pair's caption is its text member, else its json's caption, else empty; all in one call."""
    members = {
        "a.jpg": b"A", "a.txt": "žluťoučký".encode(), "a.json": b'{"caption": "not this"}',
        "b.jpg": b"B", "b.json": b'{"caption": "from json"}',
        "c.jpg": b"C",
        "d.jpg": b"D", "d.txt": b"\xff bad",
    }  # fmt: skip
    foreign(tmp_path / "set/00000.tar", members)
    folder = open_folder(tmp_path / "set")
    assert folder.captions(np.arange(4)) == ["žluťoučký", "from json", "", "\ufffd bad"]


def test_a_damaged_pair_is_an_error_and_the_others_are_not(tmp_path: Path) -> None:
    """Where the index says damage, picture and caption are errors in place with its words."""
    members = {f"{k}.{e}": f"{k}{e}".encode() for k in "abc" for e in ("jpg", "txt")}
    tar = foreign(tmp_path / "set/00000.tar", members)
    index = index_tar(tar)
    damage = pa.array([None, "its header is damaged", None], pa.string())
    place = index.schema.get_field_index("damage")
    marked = index.set_column(place, INDEX_SCHEMA.field("damage"), damage)
    write_index(marked.replace_schema_metadata(index.schema.metadata), tar.with_suffix(".index"))
    folder = open_folder(tmp_path / "set")
    pictures, captions = folder.pictures(np.arange(3)), folder.captions(np.arange(3))
    for found in (pictures[1], captions[1]):
        assert isinstance(found, ShardError)
        assert "shard 00000.tar is damaged (its header is damaged)" in str(found)
    assert [bytes(pictures[0]), bytes(pictures[2])] == [b"ajpg", b"cjpg"]
    assert [captions[0], captions[2]] == ["atxt", "ctxt"]
    assert len(folder) == 3 and folder.table().num_rows == 3


def test_a_pair_without_a_picture_is_an_error_in_its_place(tmp_path: Path) -> None:
    """A pair that never had a picture says so, beside one that has."""
    foreign(tmp_path / "set/00000.tar", {"a.jpg": b"A", "b.txt": b"only words"})
    found = open_folder(tmp_path / "set").pictures(np.arange(2), check=True)
    assert bytes(found[0]) == b"A"
    assert isinstance(found[1], ShardError) and "has no picture" in str(found[1])


def test_a_damaged_pair_does_not_cost_the_parquet(folder: Folder) -> None:
    """A pair that lost its json, and with it its uid, has null columns; the others keep theirs."""
    shard = folder.shards[0]
    body = bytearray(shard.read_bytes())
    offset = folder.index["json_offset"][4].as_py() - 512
    body[offset : offset + 512] = b"\xff" * 512
    shard.write_bytes(body)
    shard.with_suffix(".index").unlink()
    table = open_folder(folder.shards[0].parent).table(["score"])
    assert len(table) == PAIRS
    expected = [None if i == 4 else i / 7 for i in range(PAIRS)]
    assert table["score"].to_pylist() == expected


def test_the_digest_is_that_of_the_index(folder: Folder, tmp_path: Path) -> None:
    """The digest changes with a uid, a place or a name, and not with how the index is chunked."""
    shards, index = folder.shards, index_tar(folder.shards[0])
    whole = Folder(shards[:1], [index]).digest
    assert Folder(shards[:1], [pa.concat_tables([index[:3], index[3:]])]).digest == whole
    moved = index.set_column(
        index.schema.get_field_index("image_offset"),
        INDEX_SCHEMA.field("image_offset"),
        pa.array([9, *index["image_offset"].to_pylist()[1:]], pa.uint64()),
    )
    renamed = index.set_column(
        index.schema.get_field_index("uid"),
        INDEX_SCHEMA.field("uid"),
        pa.array(["f" * 32, *index["uid"].to_pylist()[1:]]),
    )
    others = [
        Folder(shards[:1], [moved]),
        Folder(shards[:1], [renamed]),
        Folder(shards[1:2], [index]),
    ]
    assert len({whole, *(other.digest for other in others)}) == 4
