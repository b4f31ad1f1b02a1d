"""Walking tars: every member is found where it is, and damage costs only what it touches."""

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from breadth.loaders import tar as walking
from breadth.loaders.errors import ShardError
from breadth.loaders.index import index_tar
from breadth.loaders.tar import map_tar, walk

from .damaged_tars import FORMATS, overwrite, parts_of, some_members, with_sum, write_tar

LONG = "d" * 130 + "/"


def walked(path: Path) -> walking.Walk:
    return walk(path, map_tar(path))


def found(path: Path) -> dict[str, tuple[int, int]]:
    """Walk a tar and return begin and length of every member that has a name."""
    w = walked(path)
    return {n: (b, k) for n, b, k in zip(w.names, w.begins, w.lengths, strict=True) if n}


def expected(path: Path) -> dict[str, tuple[int, int]]:
    return {name: (part.begin, part.length) for name, part in parts_of(path).items()}


@pytest.mark.parametrize("mtime", [0, 1700000000.25])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("prefix", ["", "c" * 90 + "/", "b" * 150 + "/", "žlutý/"])
def test_members_are_where_tarfile_finds_them(
    tmp_path: Path, kind: str, prefix: str, mtime: float
) -> None:
    """Whatever headers a writer chose, members are found where Python's tarfile finds them."""
    path = tmp_path / "0.tar"
    try:
        write_tar(path, some_members(40, prefix), kind, mtime)
    except ValueError:
        pytest.skip("USTAR has no room for this name")
    assert found(path) == expected(path)
    assert not walked(path).gaps


def test_odd_but_right_headers_are_read(tmp_path: Path) -> None:
    """Old fields are read as well: spaces before digits, no magic, a size in GNU's binary form."""
    path = write_tar(tmp_path / "0.tar", {"0.jpg": b"j" * 700, "0.txt": b"t", "1.jpg": b"k"})
    whole, parts = path.read_bytes(), parts_of(path)
    old = bytearray(whole[:512])
    old[124:136], old[257:263] = b"      1274 \0", bytes(6)
    binary = bytearray(whole[parts["0.txt"].start :][:512])
    binary[124:136] = b"\x80" + (1).to_bytes(11, "big")
    overwrite(path, 0, with_sum(old))
    overwrite(path, parts["0.txt"].start, with_sum(binary))
    assert found(path) == {name: (part.begin, part.length) for name, part in parts.items()}


def test_sizes_are_those_of_pax(tmp_path: Path) -> None:
    """A PAX header's size counts, whatever the plain header says."""
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, body in some_members(3).items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(body), {"size": str(len(body)), "comment": "x"}
            tar.addfile(info, io.BytesIO(body))
    parts = expected(path)
    for begin, _ in parts.values():
        header = bytearray(path.read_bytes()[begin - 512 : begin])
        header[124:136] = b"0" * 11 + b"\0"
        overwrite(path, begin - 512, with_sum(header))
    assert found(path) == parts


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, b"S"])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    """A tar with a link, a device or a sparse file is refused as a whole."""
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for member in ("0.jpg", "1.jpg"):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = (kind, "/etc/passwd") if member == "1.jpg" else (b"0", "")
            tar.addfile(info)
    with pytest.raises(ShardError, match="link"):
        walked(path)


@pytest.mark.parametrize("name", ["/etc/0.jpg", "../0.jpg", "a/../../0.jpg", LONG + "../0.jpg"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    """Absolute names and those with .. are refused; dots elsewhere are not."""
    path = write_tar(tmp_path / "0.tar", some_members() | {name: b"x"}, "gnu")
    with pytest.raises(ShardError, match="outside itself") as error:
        walked(path)
    assert "\n" not in str(error.value)
    fine = write_tar(tmp_path / "1.tar", {"./a..b/0..jpg": b"x", "./1.jpg": b"y"})
    assert set(found(fine)) == {"./a..b/0..jpg", "./1.jpg"}


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_tar_is_refused(tmp_path: Path, pack) -> None:
    """A compressed file with the name of a tar is named as one, and never unpacked."""
    path = write_tar(tmp_path / "0.tar", some_members())
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(ShardError, match="compressed: decompress it first"):
        walked(path)


@pytest.mark.parametrize("body", [b"", b"<html>no such file</html>", bytes(range(256)) * 40])
def test_what_is_no_tar_is_refused(tmp_path: Path, body: bytes) -> None:
    """An empty file, an error page and noise are one line each."""
    path = tmp_path / "0.tar"
    path.write_bytes(body)
    with pytest.raises(ShardError, match=r"is empty|is no tar") as error:
        walked(path)
    assert "\n" not in str(error.value)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard with more members than the cap is refused before they fill the memory."""
    path = write_tar(tmp_path / "0.tar", some_members(10))
    monkeypatch.setattr(walking, "MEMBERS", 29)
    with pytest.raises(ShardError, match="over 29 members"):
        walked(path)


PAIRS = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 600)), min_size=1, max_size=9
)  # length of picture, of caption
STYLES = st.sampled_from([("ustar", "", 0), ("pax", "", 0.25), ("gnu", LONG, 0), ("pax", LONG, 0)])
SMASHES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(1, 3000), st.sampled_from([b"\xff", b"a", b"\x9c"])),
    max_size=4,
)  # where, how many bytes, with what


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(PAIRS, STYLES, SMASHES, st.sets(st.integers(0, 26)), st.floats(0.2, 1.5))
def test_damage_costs_the_pairs_it_touches(
    tmp_path: Path, lengths, style, smashes, zeroed, keep
) -> None:
    """Pairs that no damage touches are whole and where they were; nothing else seems whole."""
    kind, prefix, mtime = style
    members = {}
    for i, (picture, caption) in enumerate(lengths):
        members[f"{prefix}{i}.jpg"] = b"j" * picture
        members[f"{prefix}{i}.txt"] = b"t" * caption
        members[f"{prefix}{i}.json"] = b"{}"
    path = write_tar(tmp_path / "0.tar", members, kind, mtime)
    parts = parts_of(path)
    body, spoilt = bytearray(path.read_bytes()), []
    for at, count, byte in smashes:
        start = int(at * len(body))
        spoilt.append((start, start + count))
        body[start : start + count] = (byte * count)[: len(body) - start]
    for i in sorted(zeroed)[: 1 if keep < 1 else 3]:  # two could look like an end mark
        begin = list(parts.values())[i % len(parts)].begin - 512
        spoilt.append((begin, begin + 512))
        body[begin : begin + 512] = bytes(512)
    long_names = [(part.start + 512, part.begin - 512) for part in parts.values() if prefix]
    assume(not any(a < end and start < b for start, end in long_names for a, b in spoilt))  # no sum
    spoilt.append((int(keep * len(body)), 2 * len(body)))
    path.write_bytes(body[: int(keep * len(body))])

    def touched(key: str) -> bool:
        spans = [
            (parts[f"{key}.{e}"].start, parts[f"{key}.{e}"].end) for e in ("jpg", "txt", "json")
        ]
        return any(a < end and start < b for start, end in spans for a, b in spoilt)

    try:
        rows = {row["key"]: row for row in index_tar(path).to_pylist()}
    except ShardError:
        rows = {}
        assert all(touched(f"{prefix}{i}") for i in range(len(lengths)))
    for i in range(len(lengths)):
        key = f"{prefix}{i}"
        row = rows.pop(key, None)
        if not touched(key):
            assert row is not None and row["damage"] is None
        if row and row["damage"] is None:
            for column, extension in (("image", "jpg"), ("caption", "txt"), ("json", "json")):
                part = parts[f"{key}.{extension}"]
                place = (row[f"{column}_offset"], row[f"{column}_length"])
                assert place == (part.begin, part.length)
    assert not rows  # no pair that never was


def test_a_long_run_after_damage_is_kept(tmp_path: Path) -> None:
    """One bad header in thousands costs one member: tarfile and webdataset drop all that follow."""
    path = write_tar(tmp_path / "0.tar", some_members(1000))
    parts = parts_of(path)
    overwrite(path, parts["000000500.txt"].start + 5, b"!")
    del parts["000000500.txt"]
    w = walked(path)
    assert set(w.names) == set(parts)
    assert [(gap.why, gap.place) for gap in w.gaps] == [("a damaged header", 1501)]
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) == 1501


@pytest.mark.parametrize("spoil", ["zeros", "name"])
def test_a_tar_inside_a_member_stays_inside(tmp_path: Path, spoil: str) -> None:
    """Where the header of a member that is a tar is lost, what that tar holds is no member."""
    inner = write_tar(tmp_path / "inner.tar", some_members(5, "inner")).read_bytes()
    members = some_members(3) | {"000000003.jpg": inner} | some_members(6, "after")
    path = write_tar(tmp_path / "0.tar", members)
    start = parts_of(path)["000000003.jpg"].start
    overwrite(path, start, bytes(512) if spoil == "zeros" else b"\x01")
    del members["000000003.jpg"]
    w = walked(path)
    assert w.names == list(members)
    assert sum(gap.end - gap.begin for gap in w.gaps) == 512 + len(inner)


def test_a_lone_header_in_a_picture_is_no_member(tmp_path: Path) -> None:
    """Bytes that look like a header and lead nowhere are not taken for one."""
    decoy = write_tar(tmp_path / "decoy.tar", {"x.jpg": b"x" * 3000}).read_bytes()[:512]
    members = {"0.jpg": b"j" * 1024 + decoy + b"k" * 9000} | some_members(6, "after")
    path = write_tar(tmp_path / "0.tar", members)
    overwrite(path, 0, bytes(512))
    assert walked(path).names == list(members)[1:]


def test_blocks_that_are_gone_cost_the_member_they_are_gone_from(tmp_path: Path) -> None:
    """Where some blocks of a picture are missing, its length is not believed."""
    members = some_members(3) | {"big.jpg": b"j" * 9000} | some_members(6, "after")
    path = write_tar(tmp_path / "0.tar", members)
    begin = parts_of(path)["big.jpg"].begin
    body = path.read_bytes()
    path.write_bytes(body[: begin + 2048] + body[begin + 2048 + 4608 :])
    w = walked(path)
    assert w.names == [name for name in members if name != "big.jpg"]
    assert [(gap.name, gap.begin) for gap in w.gaps] == [("big.jpg", begin - 512)]


@pytest.mark.parametrize("size", [b"77777777777\0", b"00000400000\0"])
def test_a_length_that_cannot_be_costs_one_member(tmp_path: Path, size: bytes) -> None:
    """A header with a right checksum that claims more than there is does not swallow the rest."""
    path = write_tar(tmp_path / "0.tar", some_members())
    header = bytearray(path.read_bytes()[:512])
    header[124:136] = size
    overwrite(path, 0, with_sum(header))
    w = walked(path)
    assert w.names == list(some_members())[1:]
    assert [(gap.name, gap.why) for gap in w.gaps] == [("000000000.jpg", "a length that cannot be")]


@pytest.mark.parametrize(
    "record",
    [b"99 path=x\n", b"12 path=abcd", b"nonsense", b"-3 a=b\n", b"15 size=\xd9\xa3\xd9\xa3\n"],
)
def test_a_bad_pax_header_costs_its_member(tmp_path: Path, record: bytes) -> None:
    """A PAX header that cannot be read takes the name of the member after it, and no more."""
    path = write_tar(tmp_path / "0.tar", some_members(3), "pax", 0.5)
    part = parts_of(path)["000000001.txt"]
    overwrite(path, part.start + 512, record.ljust(part.begin - part.start - 1024, b"\0")[:512])
    w = walked(path)
    assert w.names == [name for name in some_members(3) if name != "000000001.txt"]
    assert [gap[:4] for gap in w.gaps] == [(part.start, part.end, "a damaged PAX header", "")]


def test_a_name_beyond_the_cap_is_not_kept(tmp_path: Path) -> None:
    """A name of over 1,024 characters costs its member."""
    members = {"0.jpg": b"0", "n" * 1021 + ".jpg": b"1", "2.jpg": b"2", "n" * 1020 + ".jpg": b"3"}
    path = write_tar(tmp_path / "0.tar", members, "gnu")
    assert walked(path).names == ["0.jpg", "2.jpg", "n" * 1020 + ".jpg"]


def test_a_name_that_lost_its_long_form_is_not_believed(tmp_path: Path) -> None:
    """Where the header with a long name is lost, the cut name in the next is not taken for it."""
    path = write_tar(tmp_path / "0.tar", some_members(4, LONG), "pax")
    part = parts_of(path)[f"{LONG}000000002.jpg"]
    overwrite(path, part.start, b"\xff" * 512)
    w = walked(path)
    assert [name for name in w.names if name] == [
        name for name in some_members(4, LONG) if name != f"{LONG}000000002.jpg"
    ]


def test_two_tars_in_one_file_are_both_read(tmp_path: Path) -> None:
    """What follows an end mark is read, and the empty blocks between are named."""
    first = write_tar(tmp_path / "0.tar", some_members(2)).read_bytes()
    second = write_tar(tmp_path / "1.tar", some_members(2, "b")).read_bytes()
    path = tmp_path / "both.tar"
    path.write_bytes(first + second)
    w = walked(path)
    assert w.names == [*some_members(2), *some_members(2, "b")]
    assert [(gap.why, gap.end) for gap in w.gaps] == [("an empty header", len(first))]


def test_a_tail_of_zeros_is_not_an_end_mark(tmp_path: Path) -> None:
    """A tar whose second half was never written to disk, and reads as zeros, is damaged."""
    path = write_tar(tmp_path / "0.tar", some_members(60))
    begin = parts_of(path)["000000030.jpg"].start
    size = path.stat().st_size
    overwrite(path, begin, bytes(size - begin))
    w = walked(path)
    assert len(w.names) == 90
    assert [gap[:3] for gap in w.gaps] == [(begin, size, "nothing but zeros")]


def test_many_damages_take_no_longer_than_few(tmp_path: Path) -> None:
    """A tar inside a tar with each header bad is read in a time that grows with its size only."""
    inner = write_tar(tmp_path / "inner.tar", {f"{i}.jpg": b"" for i in range(20_000)}).read_bytes()
    members = {"a.tar": inner, "b.jpg": b"b"}
    path = write_tar(tmp_path / "0.tar", members)
    overwrite(path, parts_of(path)["b.jpg"].start, b"\xff" * 512)
    w = walked(path)
    assert w.names == ["a.tar"]


def test_one_empty_block_is_not_an_end_mark(tmp_path: Path) -> None:
    """A tar that ends with a single empty block may have lost its end: an end mark has two."""
    path = write_tar(tmp_path / "0.tar", some_members(2))
    end = max(part.end for part in parts_of(path).values())
    body = path.read_bytes()
    for blocks, gaps in ((0, ["cut short"]), (1, ["half an end mark"]), (2, [])):
        path.write_bytes(body[: end + 512 * blocks])
        assert [gap.why for gap in walked(path).gaps] == gaps
