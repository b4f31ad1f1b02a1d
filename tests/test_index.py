"""Indexing tars: pairs are found where they are, and damage marks the pairs that it touches."""

import json
import tarfile
import zlib
from pathlib import Path

import pytest

from breadth.loaders import pair_members
from breadth.loaders.errors import ShardError
from breadth.loaders.index import (
    INDEX_SCHEMA,
    damage_of,
    foreign_uid,
    index_tar,
    picture_extension,
    read_index,
    whole_index,
    write_index,
)

from .damaged_tars import overwrite, parts_of, some_members, write_tar


def damaged(path: Path) -> dict[str, str]:
    """Return the damage of every pair that has any, by key."""
    return {row["key"]: row["damage"] for row in index_tar(path).to_pylist() if row["damage"]}


@pytest.mark.parametrize("kind", ["ustar", "pax", "gnu"])
def test_rows_say_where_members_are(tmp_path: Path, kind: str) -> None:
    """Every member of every pair is found where the row says, and the picture has its CRC."""
    members = some_members(7, "žlutý/" if kind == "pax" else "a/")
    path = write_tar(tmp_path / "00000.tar", members, kind)
    rows, body = index_tar(path).to_pylist(), path.read_bytes()
    assert [row["key"] + ".jpg" for row in rows] == list(members)[::3]
    for row in rows:
        for column, extension in (("image", "jpg"), ("caption", "txt"), ("json", "json")):
            begin, length = row[f"{column}_offset"], row[f"{column}_length"]
            assert body[begin : begin + length] == members[f"{row['key']}.{extension}"]
        assert row["image_crc"] == zlib.crc32(members[f"{row['key']}.jpg"])
        assert row["damage"] is None
    without = index_tar(path, checksums=False)
    assert without["image_crc"].null_count == 7
    assert without.drop_columns("image_crc").equals(index_tar(path).drop_columns("image_crc"))


def test_a_cut_is_found_wherever_it_is(tmp_path: Path) -> None:
    """A tar that lost its end has the pairs before the cut, marks the one it cut, and says so."""
    whole = write_tar(tmp_path / "whole.tar", some_members())
    parts, body = parts_of(whole), whole.read_bytes()
    rows = {row["key"]: row for row in index_tar(whole).to_pylist()}
    path = tmp_path / "whole" / "whole.tar"
    path.parent.mkdir()
    end = max(part.end for part in parts.values())
    for cut in [*range(700, end, 173), *range(1024, end + 1, 512)]:
        path.write_bytes(body[:cut])
        index = index_tar(path)
        (begin, stop, why) = damage_of(index).gaps[-1]
        assert begin <= stop == cut and why == "cut short"
        for row in index.to_pylist():
            last = parts[f"{row['key']}.json"]
            assert (row["damage"] is None) == (last.begin + last.length <= cut)
            if row["damage"] is None:
                assert row == rows[row["key"]]


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize("member", range(12))
def test_a_damaged_header_costs_one_pair(tmp_path: Path, fill: bytes, member: int) -> None:
    """An overwritten header marks its pair and no other: the tail of the shard is not lost."""
    path = write_tar(tmp_path / "00000.tar", some_members())
    whole = index_tar(path).to_pylist()
    name, part = list(parts_of(path).items())[member]
    overwrite(path, part.start, fill * 512)
    index = index_tar(path)
    rows = index.to_pylist()
    assert [row for row in rows if not row["damage"]] == [
        row for row in whole if row["key"] != name.split(".")[0]
    ]
    ((key, why),) = damaged(path).items()
    lost = {"jpg": "picture", "txt": "caption", "json": "json"}[name.split(".")[1]]
    assert key == name.split(".")[0]
    assert why.startswith(f"its {lost} may be lost: a")
    assert why.endswith(f"header at byte {part.start}")
    assert damage_of(index)[:2] == (1, part.end - part.start)


def test_pairs_that_lost_even_their_names_are_counted(tmp_path: Path) -> None:
    """Where whole pairs are overwritten, the bytes and their place are in the index."""
    path = write_tar(tmp_path / "00000.tar", some_members(9))
    parts = parts_of(path)
    begin, end = parts["000000003.jpg"].start, parts["000000005.json"].end
    overwrite(path, begin, b"\xff" * (end - begin))
    index = index_tar(path)
    assert damage_of(index) == (0, end - begin, [(begin, end, "a damaged header")])
    assert [int(key) for key in index["key"].to_pylist()] == [0, 1, 2, 6, 7, 8]


def test_only_what_most_pairs_have_is_missed(tmp_path: Path) -> None:
    """Beside damage, a pair without json is whole where pairs have none, and is not elsewhere."""
    members = {n: b for n, b in some_members(9).items() if not n.endswith("json")}
    path = write_tar(tmp_path / "00000.tar", members)
    overwrite(path, parts_of(path)["000000004.txt"].start, b"\xff" * 512)
    assert list(damaged(path)) == ["000000004"]
    del members["000000006.txt"]  # far from the damage: it may well have none
    path = write_tar(tmp_path / "00000.tar", members)
    overwrite(path, parts_of(path)["000000004.txt"].start, b"\xff" * 512)
    assert list(damaged(path)) == ["000000004"]


def test_damaged_pairs_are_not_asked_what_is_usual(tmp_path: Path) -> None:
    """Where every other pair is damaged, too, one that lacks a member is not called whole."""
    path = write_tar(tmp_path / "00000.tar", some_members(2))
    cut = parts_of(path)["000000001.jpg"].begin + 1
    overwrite(path, 0, b"\xff" * 512)
    path.write_bytes(path.read_bytes()[:cut])
    assert list(damaged(path)) == ["000000000", "000000001"]


def test_damage_is_found_where_members_of_a_pair_lie_apart(tmp_path: Path) -> None:
    """Where all pictures come before all captions, a lost caption marks the pair it belongs to."""
    members = some_members(9)
    apart = {n: members[n] for e in ("jpg", "txt", "json") for n in members if n.endswith(e)}
    path = write_tar(tmp_path / "00000.tar", apart)
    overwrite(path, parts_of(path)["000000004.txt"].start, b"\xff" * 512)
    assert list(damaged(path)) == ["000000004"]


def test_a_member_that_comes_twice_costs_its_pair(tmp_path: Path) -> None:
    """Of two members of one name neither is chosen; what is no part of a pair may come twice."""
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("0.jpg", "0.txt", "1.jpg", "0.TXT", "2.seg.png", "2.seg.png", "2.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    assert damaged(path) == {"0": "its txt comes twice"}
    assert index_tar(path)["key"].to_pylist() == ["0", "1", "2"]


def test_a_member_beyond_the_cap_costs_its_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that is too large is not read, and its neighbours are."""
    monkeypatch.setattr(pair_members, "MEMBER_BYTES", 900)
    path = write_tar(tmp_path / "00000.tar", some_members(4) | {"big.seg": bytes(5000)})
    found = {
        row["key"]: (row["image_offset"], row["damage"]) for row in index_tar(path).to_pylist()
    }
    assert [key for key, (offset, _) in found.items() if offset] == ["000000000", "000000001"]
    assert found["000000002"][1] == "its jpg has 922 bytes, over 900"
    assert found["big"] == (0, None)


@pytest.mark.parametrize("text", [b"no json", b"[1, 2]", b'{"uid": ', b"7", b"\xff{}"])
def test_a_bad_json_member_costs_its_pair(tmp_path: Path, text: bytes) -> None:
    """A json member that is no object marks its pair; NaN and half surrogates do not."""
    odd = b'{"score": NaN, "name": "\\ud83d"}'
    path = write_tar(tmp_path / "0.tar", {"0.json": text, "1.json": odd, "2.json": b"{}"})
    assert damaged(path) == {"0": "its json is not a JSON object"}


def test_members_of_a_pair_need_not_be_neighbours(tmp_path: Path) -> None:
    """Pairs are joined by key; other members and files without an extension are passed over."""
    members = {"README": b"x", "a.jpg": b"A", "b.jpg": b"B", "a.seg.png": b"S"}
    members |= {"b.TXT": b"cap b", "a.txt": b"cap a"}
    index = index_tar(write_tar(tmp_path / "00000.tar", members))
    assert index["key"].to_pylist() == ["a", "b"]
    assert index["image_ext"].to_pylist() == ["jpg", "jpg"]
    assert index["caption_length"].to_pylist() == [5, 5]
    assert index["json_offset"].to_pylist() == [0, 0]


def test_a_pair_brings_its_uid_or_gets_one(tmp_path: Path) -> None:
    """The json's uid counts if it is one; else the uid is a hash of shard and key."""
    own = "0123456789abcdef" * 2
    members = {"a.json": json.dumps({"uid": own}).encode(), "b.json": b'{"uid": 7}', "c.txt": b""}
    uids = index_tar(write_tar(tmp_path / "00003.tar", members))["uid"].to_pylist()
    assert uids == [own, foreign_uid("00003", "b"), foreign_uid("00003", "c")]
    assert foreign_uid("00003", "b") != foreign_uid("00004", "b")


def test_an_index_is_used_only_for_the_tar_it_was_made_for(tmp_path: Path) -> None:
    """A stored index is read if it fits; after the tar was cut or grew, the tar is walked."""
    path = write_tar(tmp_path / "00000.tar", some_members(2))
    marked = index_tar(path)
    renamed = marked.set_column(0, INDEX_SCHEMA.field("key"), [["x", "y"]])
    write_index(renamed, tmp_path / "00000.index")
    assert read_index(path)["key"].to_pylist() == ["x", "y"]
    write_tar(path, some_members(30))
    assert read_index(path).num_rows == 30
    path.write_bytes(path.read_bytes()[:5000])
    assert damage_of(read_index(path)).gaps[0][2] == "cut short"
    with pytest.raises(ShardError, match=r"00000\.tar has .*cut short at byte"):
        whole_index(path)


def test_an_index_of_an_older_version_is_made_anew(tmp_path: Path) -> None:
    """A sidecar of version 1, without CRCs and damage, is not read as if it were of this one."""
    path = write_tar(tmp_path / "00000.tar", some_members(3))
    now = index_tar(path)
    assert now.schema.metadata[b"breadth_index"] == b"2"
    old = now.drop_columns(["image_crc", "damage"]).replace_schema_metadata(
        {"breadth_index": "1", "tar_bytes": str(path.stat().st_size)}
    )
    write_index(old, tmp_path / "00000.index")
    assert read_index(path).equals(index_tar(path, checksums=False))
    write_index(now.replace_schema_metadata(old.schema.metadata), tmp_path / "00000.index")
    assert read_index(path)["image_crc"].null_count == 3


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    """An index file that is no Arrow file is an error that says to delete it."""
    path = write_tar(tmp_path / "00000.tar", some_members(2))
    (tmp_path / "00000.index").write_bytes(b"ARROW1 no more")
    with pytest.raises(ShardError, match=r"00000\.index is damaged: delete it"):
        read_index(path)


def test_picture_formats_are_told_by_their_first_bytes() -> None:
    """JPEG, PNG and WebP have their extension; anything else is refused."""
    assert picture_extension(b"RIFF\0\0\0\0WEBPVP8 ") == "webp"
    assert picture_extension(b"\x89PNG\r\n\x1a\n\0") == "png"
    with pytest.raises(ShardError, match="neither JPEG, PNG nor WebP"):
        picture_extension(b"GIF89a")
