"""Indexing tars: every member is found where it is, and no damage goes unnoticed."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from breadth.loaders.errors import ShardError
from breadth.loaders.index import (
    INDEX_SCHEMA,
    foreign_uid,
    index_tar,
    picture_extension,
    read_index,
    read_member,
    write_index,
)
from breadth.loaders.tar import map_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}


def write_tar(path: Path, members: dict[str, bytes], kind: str = "ustar", mtime: float = 0) -> Path:
    """Write a tar with Python's own writer."""
    with tarfile.open(path, "w", format=FORMATS[kind]) as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(body), mtime
            tar.addfile(info, io.BytesIO(body))
    return path


def some_members(pairs: int = 4) -> dict[str, bytes]:
    """Make the members of a few pairs as img2dataset names them."""
    rng = np.random.default_rng(0)
    members = {}
    for i in range(pairs):
        members[f"{i:09d}.jpg"] = rng.bytes(100 + 411 * i)
        members[f"{i:09d}.txt"] = f"caption {i}".encode()
        members[f"{i:09d}.json"] = json.dumps({"key": f"{i:09d}", "status": "success"}).encode()
    return members


@pytest.mark.parametrize(
    ("kind", "prefix", "mtime"),
    [
        ("ustar", "", 0),
        ("pax", "", 1700000000.25),
        ("pax", "a" * 150 + "/", 0),
        ("gnu", "b" * 150 + "/", 0),
        ("ustar", "c" * 90 + "/", 0),
        ("pax", "žlutý/", 0.5),
    ],
)
def test_offsets_are_those_of_tarfile(tmp_path: Path, kind: str, prefix: str, mtime: float) -> None:
    """Whatever headers a writer chose, members are found where Python's tarfile finds them."""
    members = {prefix + name: body for name, body in some_members().items()}
    path = write_tar(tmp_path / "00000.tar", members, kind, mtime)
    with tarfile.open(path) as tar:
        expected = {m.name: (m.offset_data, m.size) for m in tar}
    for row in index_tar(path).to_pylist():
        for column, extension in (("image", "jpg"), ("caption", "txt"), ("json", "json")):
            found = (row[f"{column}_offset"], row[f"{column}_length"])
            assert found == expected[f"{row['key']}.{extension}"]
            assert read_member(map_tar(path), *found) == members[f"{row['key']}.{extension}"]


def test_a_cut_is_found_wherever_it_is(tmp_path: Path) -> None:
    """A tar that lost its end is refused with its name, even if cut between two members."""
    whole = write_tar(tmp_path / "whole.tar", some_members()).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        end = max(m.offset_data + m.size for m in tar)
    path = tmp_path / "00007.tar"
    for cut in [*range(1, end, 173), *range(512, end, 512)]:
        path.write_bytes(whole[:cut])
        with pytest.raises(ShardError, match=r"00007\.tar is cut short") as error:
            index_tar(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_a_damaged_header_is_found(tmp_path: Path, fill: bytes) -> None:
    """An overwritten header is an error: tarfile and webdataset take it for the archive's end."""
    path = write_tar(tmp_path / "00000.tar", some_members())
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[5].offset
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 512] = fill * 512
    path.write_bytes(damaged)
    with pytest.raises(ShardError, match="damaged"):
        index_tar(path)


@pytest.mark.parametrize("size", [b"77777777777\0", b"abcdefghijk\0", b"-0000000001\0"])
def test_a_size_that_cannot_be_is_found(tmp_path: Path, size: bytes) -> None:
    """A header with a right checksum and a wrong size is an error: nothing is read beyond."""
    path = write_tar(tmp_path / "00000.tar", some_members())
    header = bytearray(path.read_bytes()[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(header + path.read_bytes()[512:])
    with pytest.raises(ShardError, match=r"cut short|damaged header"):
        index_tar(path)


def test_an_empty_or_compressed_file_is_refused(tmp_path: Path) -> None:
    """An empty file and a gzip file with the name of a tar each get their own message."""
    path = write_tar(tmp_path / "00000.tar", some_members())
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ShardError, match="compressed"):
        index_tar(path)
    path.write_bytes(b"")
    with pytest.raises(ShardError, match="empty"):
        index_tar(path)


def test_links_are_refused(tmp_path: Path) -> None:
    """A tar with a symbolic link is refused: a pair must not point outside its shard."""
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("0.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(ShardError, match="link"):
        index_tar(path)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """Two members of one name are an error, not a choice."""
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("0.txt"))
    with pytest.raises(ShardError, match=r"0\.txt twice"):
        index_tar(path)


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
    with pytest.raises(ShardError, match="cut short"):
        read_index(path)


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
