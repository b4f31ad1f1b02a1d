"""Subsets: lists, expressions and bitmaps choose the rows that they name, without rewriting."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import PoolError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.subset import read_uids, resolve_subset, write_npy
from breadth.scripts.cli import main
from breadth.scripts.train import choose_pairs

PAIRS = 61
PNG = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Write pairs in seven shards; uids are not in the order of rows."""
    path = tmp_path_factory.mktemp("subset")
    pairs = pa.table(
        {
            "uid": [f"{(i * 37) % 101:032x}" for i in range(PAIRS)],
            "caption": [f"number {i}" for i in range(PAIRS)],
            "image": [PNG] * PAIRS,
            "clip_score": [i / 100 for i in range(PAIRS)],
        }
    )
    write_folder(path, pairs, name="subset", pairs_per_shard=9)
    return open_folder(path)


@given(st.sets(st.integers(0, PAIRS - 1), min_size=1), st.randoms())
@settings(max_examples=30, deadline=None)
def test_every_kind_of_subset_names_the_same_rows(folder, tmp_path_factory, chosen, random) -> None:
    """A list in any order and format, uids and bits all give the rows, ascending."""
    path = tmp_path_factory.mktemp("kinds")
    rows, bits = sorted(chosen), np.isin(np.arange(PAIRS), list(chosen))
    uids = [folder.uids[row] for row in rows] + ["f" * 32]  # one that the folder has not
    random.shuffle(uids)
    write_npy(path / "uids.npy", uids)
    pq.write_table(pa.table({"uid": uids}), path / "uids.parquet")
    (path / "uids.txt").write_text("\n".join(uids))
    np.save(path / "bool.npy", bits)
    np.save(path / "packed.npy", np.packbits(bits))
    for subset in (
        *sorted(path.iterdir()),
        *(str(file) for file in sorted(path.iterdir())),
        uids,
        iter(uids),
        pa.array(uids),
        bits,
        np.packbits(bits),
    ):
        found = resolve_subset(folder, subset)
        assert found.dtype == np.int64
        assert found.tolist() == rows


def test_no_subset_is_every_row(folder: Folder) -> None:
    """None names all pairs."""
    assert resolve_subset(folder, None).tolist() == list(range(PAIRS))


def test_an_expression_names_rows(folder: Folder) -> None:
    """A text that is no list's name is an expression over the shards' columns, uid and key too."""
    assert resolve_subset(folder, "clip_score >= 0.5").tolist() == list(range(50, PAIRS))
    assert resolve_subset(folder, "'number 1' in caption").tolist() == [1, *range(10, 20)]
    assert resolve_subset(folder, f"uid == '{folder.uids[17]}'").tolist() == [17]
    keys = folder.index["key"].to_pylist()
    assert resolve_subset(folder, f"key == {keys[3]!r} or clip_score == 0.05").tolist() == [
        row for row in range(PAIRS) if keys[row] == keys[3] or row == 5
    ]


def test_an_expression_is_not_taken_for_a_file(folder: Folder) -> None:
    """A comparison with a text that ends like a list's name stays an expression."""
    assert resolve_subset(folder, "caption == 'uids.npy'").tolist() == []


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (np.ones(PAIRS - 1, bool), "bitmap of 60 bool is not of a folder of 61 pairs"),
        (np.ones((1, PAIRS), bool), "is not of a folder of 61 pairs"),
        (np.ones(9, np.uint8), "bitmap of 9 bytes of packed bits is not of a folder of 61"),
        (np.ones(PAIRS, np.uint8), "bitmap of 61 bytes of packed bits"),
        (np.full(8, 255, np.uint8), "bits after its 61 pairs"),
    ],
)
def test_a_bitmap_of_another_folder_is_refused(folder, tmp_path, bits, message) -> None:
    """Its length must be that of the folder, from a file and from memory."""
    np.save(tmp_path / "bits.npy", bits)
    for subset in (bits, tmp_path / "bits.npy"):
        with pytest.raises(PoolError, match=message) as error:
            resolve_subset(folder, subset)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ("missing.npy", "there is no uid list missing.npy"),
        ("uids.csv", "a file of uids is a .parquet, .npy or .txt"),
        ("clip_scor > 0.1", "did you mean clip_score"),
        ("", "is no expression"),
    ],
)
def test_what_is_no_subset_is_one_clear_line(folder: Folder, subset: str, message: str) -> None:
    """A missing file, one of another kind and a misspelt column each say what to do."""
    with pytest.raises(PoolError, match=message) as error:
        resolve_subset(folder, subset)
    assert "\n" not in str(error.value)


def test_an_npy_is_never_unpickled(folder: Folder, tmp_path: Path) -> None:
    """Objects in an .npy are refused."""
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(PoolError, match="cannot be read"):
        resolve_subset(folder, tmp_path / "a.npy")


def test_uids_come_back_as_they_were_written(tmp_path: Path) -> None:
    """High and low halves of an .npy become the uids again, leading zeros too."""
    rng = np.random.default_rng(0)
    uids = sorted(rng.bytes(16).hex() for _ in range(100))
    write_npy(tmp_path / "a.npy", ["0" * 32, *uids])
    assert read_uids(tmp_path / "a.npy").to_pylist() == ["0" * 32, *uids]


def test_a_parquet_with_a_hole_is_refused(tmp_path: Path) -> None:
    """A null is no uid, and neither is a number."""
    for name, uids in (("null", pa.array(["0" * 32, None])), ("number", pa.array([1, 2]))):
        pq.write_table(pa.table({"uid": uids}), tmp_path / f"{name}.parquet")
        with pytest.raises(PoolError, match="a uid is 32"):
            read_uids(tmp_path / f"{name}.parquet")


def test_training_says_how_many_pairs_and_how(folder: Folder, tmp_path: Path) -> None:
    """The line before a run has the counts of a list or an expression and the way of reading."""
    path = folder.shards[0].parent
    uids, said = choose_pairs(path, "clip_score < 0.1", visits=1000)
    assert uids == folder.uids[:10]
    assert said.startswith(f"10 pairs are in {path}; ranged reads of 10 pairs (16.4 %")
    (tmp_path / "a.txt").write_text("\n".join([*folder.uids[5:8], "e" * 32]))
    uids, said = choose_pairs(path, str(tmp_path / "a.txt"), visits=1000)
    assert uids == folder.uids[5:8]
    assert said.startswith(f"3 pairs of the 4 listed are in {path}; ")
    assert "\n" not in said


def test_a_misspelt_column_ends_training_before_it_begins(folder, tmp_path, capsys) -> None:
    """The command says the nearest column in one line and leaves no folder."""
    path = folder.shards[0].parent
    arguments = ["train", "demo_maeclip", "--data", str(path), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--subset", "clip_scor > 0.3", "--device", "cpu"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "did you mean clip_score?" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
