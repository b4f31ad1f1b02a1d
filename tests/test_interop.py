"""Shards travel: others open ours, and we open theirs."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from breadth.curate.shard_writer import write_folder
from breadth.loaders.decode import decode
from breadth.loaders.errors import OutputError, PoolError, ShardError
from breadth.loaders.folder import open_folder
from breadth.loaders.index import foreign_uid
from breadth.loaders.stream import Stream
from breadth.scripts.index import index_folder
from breadth.scripts.inspect import inspect_folder


def grey(level: int) -> bytes:
    """Encode a grey picture, whose level tells it from others."""
    return cv2.imencode(".png", np.full((24, 30, 3), level, np.uint8))[1].tobytes()


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Write 24 of our pairs in three shards."""
    pairs = pa.table(
        {
            "uid": [f"{i:032x}" for i in range(24)],
            "caption": [f"käse {i}" for i in range(24)],
            "image": [grey(10 * i) for i in range(24)],
            "level": pa.array([10 * i for i in range(24)], pa.int32()),
        }
    )
    write_folder(tmp_path / "ours", pairs, name="ours", pairs_per_shard=10)
    return tmp_path / "ours"


def test_webdataset_reads_our_shards(ours: Path) -> None:
    """The webdataset library finds every pair, whole and in order."""
    import webdataset

    tars = [str(path) for path in sorted(ours.glob("*.tar"))]
    read = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert [pair["__key__"] for pair in read] == [f"{i:032x}" for i in range(24)]
    assert [pair["txt"] for pair in read] == [f"käse {i}" for i in range(24)]
    assert [pair["json"]["level"] for pair in read] == [10 * i for i in range(24)]
    assert [int(pair["png"].mean()) for pair in read] == [10 * i for i in range(24)]


def test_hugging_face_datasets_reads_our_shards(ours: Path, tmp_path: Path, monkeypatch) -> None:
    """The datasets library streams every pair with picture, caption and columns."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    tars = [str(path) for path in sorted(ours.glob("*.tar"))]
    read = list(
        datasets.load_dataset(
            "webdataset", data_files=tars, split="train", streaming=True, cache_dir=str(tmp_path)
        )
    )
    assert [pair["__key__"] for pair in read] == [f"{i:032x}" for i in range(24)]
    assert [pair["txt"] for pair in read] == [f"käse {i}" for i in range(24)]
    assert [pair["json"]["level"] for pair in read] == [10 * i for i in range(24)]
    assert [int(np.asarray(pair["png"]).mean()) for pair in read] == [10 * i for i in range(24)]


@pytest.fixture
def picture_server(tmp_path: Path) -> Iterator[str]:
    """Serve nine pictures on loopback, one of them broken."""
    served = tmp_path / "served"
    served.mkdir()
    for i in range(9):
        (served / f"{i}.png").write_bytes(grey(20 * i) if i != 4 else b"no picture")
    handler = functools.partial(QuietHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve without a line on standard error for every request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def download(links: pa.Table, out: Path, monkeypatch) -> None:
    """Download links as one shard with img2dataset's own Downloader and tar writer."""
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    out.mkdir()
    with pa.ipc.new_file(str(out / "links.feather"), links.schema) as writer:
        writer.write_table(links)
    fetch = Downloader(
        WebDatasetSampleWriter,
        Resizer(24, "keep_ratio", True),
        thread_count=2,
        save_caption=True,
        extract_exif=True,
        output_folder=str(out),
        column_list=links.column_names,
        timeout=10,
        number_sample_per_shard=1000,
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,
        user_agent_token=None,
        disallowed_header_directives=None,
    )
    assert fetch((3, str(out / "links.feather"))) == (True, (3, str(out / "links.feather")))


@pytest.mark.parametrize("has_uids", [False, True])
def test_we_read_what_img2dataset_wrote(
    tmp_path: Path, picture_server: str, monkeypatch, has_uids: bool
) -> None:
    """A shard from img2dataset, failures in its parquet and all, opens, joins and streams."""
    columns = {
        "url": [f"{picture_server}/{i}.png" for i in range(10)],  # 9.png is not there
        "caption": [f"grey {20 * i}" for i in range(10)],
    }
    if has_uids:
        columns["uid"] = [f"{i:032x}" for i in range(10)]
    out = tmp_path / "img2dataset"
    download(pa.table(columns), out, monkeypatch)
    assert b" mtime=" in (out / "00003.tar").read_bytes()  # PAX headers, as webdataset writes them

    folder = open_folder(out)
    good = {0, 1, 2, 3, 5, 6, 7, 8}
    keys = folder.column("key").to_pylist()
    numbers = [int(key) % 1000 for key in keys]
    assert set(numbers) == good
    assert pq.read_table(out / "00003.parquet").num_rows == 10
    expected = [f"{i:032x}" if has_uids else foreign_uid("00003", k)
                for i, k in zip(numbers, keys, strict=True)]  # fmt: skip
    assert folder.uids == expected
    assert folder.column("url").to_pylist() == [columns["url"][i] for i in numbers]
    assert folder.column("original_width").to_pylist() == [30] * 8
    assert folder.candidates()["caption"].to_pylist() == [columns["caption"][i] for i in numbers]
    for row, number in enumerate(numbers):
        image, caption, described = folder.read(row)
        assert (caption, described["status"]) == (f"grey {20 * number}", "success")
        assert abs(int(decode(image, 8).mean()) - 20 * number) <= 2

    stream = Stream(folder, batch_pairs=4, seed=0, image_px=8)
    batches = [batch for batch, _ in zip(stream, range(2), strict=False)]
    assert sorted(uid for batch in batches for uid in batch.uids) == sorted(expected)


def test_columns_come_from_json_where_there_is_no_parquet(ours: Path) -> None:
    """Without the parquets the same columns are read from the pairs' json members."""
    from_parquet = open_folder(ours).column("level").to_pylist()
    for parquet in ours.glob("*.parquet"):
        parquet.unlink()
    assert open_folder(ours).column("level").to_pylist() == from_parquet
    assert open_folder(ours).column_names == ["caption", "level", "uid"]


def test_a_column_that_one_shard_lacks_is_null_there(tmp_path: Path) -> None:
    """Pairs without json beside pairs with it keep their rows: nothing slides."""
    import webdataset

    for shard, columns in enumerate(({"level": 1}, None, {"level": 3})):
        with webdataset.TarWriter(str(tmp_path / f"{shard}.tar")) as tar:
            pair = {"__key__": "a", "png": grey(shard), "txt": f"c{shard}"}
            tar.write(pair if columns is None else pair | {"json": json.dumps(columns)})
    folder = open_folder(tmp_path)
    assert folder.column("level").to_pylist() == [1, None, 3]
    assert folder.candidates()["caption"].to_pylist() == ["c0", "c1", "c2"]


def test_a_column_that_is_nowhere_is_an_error_with_the_names(ours: Path) -> None:
    """Asking for an unknown column says which there are."""
    with pytest.raises(PoolError, match=r"no column 'colour'; there are .*level"):
        open_folder(ours).column("colour")


def test_a_parquet_of_other_pairs_is_an_error(ours: Path) -> None:
    """A parquet that was exchanged does not give its columns to the wrong pairs."""
    (ours / "00001.parquet").replace(ours / "00000.parquet")
    with pytest.raises(ShardError, match=r"00000\.parquet describes other pairs"):
        open_folder(ours).column("level")


def test_a_foreign_folder_is_indexed_elsewhere(ours: Path, tmp_path: Path) -> None:
    """``breadth index --out`` leaves the folder alone, and what it writes opens as the folder."""
    from click.testing import CliRunner

    from breadth.scripts.index import index
    from breadth.scripts.inspect import inspect

    for path in (*ours.glob("*.index"), ours / "manifest.json"):
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in ours.iterdir()}
    result = CliRunner().invoke(index, [str(ours), "--out", str(tmp_path / "index")])
    assert result.exit_code == 0, result.output
    assert "24 pairs in 3 shards" in result.output
    assert {path: path.stat().st_mtime_ns for path in ours.iterdir()} == before
    opened = open_folder(tmp_path / "index")
    assert opened.uids == open_folder(ours).uids
    assert opened.column("level").to_pylist() == [10 * i for i in range(24)]
    result = CliRunner().invoke(inspect, [str(tmp_path / "index"), "--verify", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["pairs"], found["shards"]) == (24, 3)
    assert "3 shards checked by sha256" in found["verified"]


def test_an_index_of_other_tars_is_not_overwritten(ours: Path, tmp_path: Path) -> None:
    """A folder that holds the index of some tars keeps it: indexing others there is refused."""
    index_folder(ours, tmp_path / "index")
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    (ours / "00000.tar").rename(fewer / "00000.tar")
    with pytest.raises(OutputError, match="manifest of other tars"):
        index_folder(fewer, tmp_path / "index")
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before


def test_indexing_notices_a_tar_that_was_exchanged(ours: Path) -> None:
    """A tar of the same size and other bytes is not what the manifest beside it says."""
    tar = bytearray((ours / "00001.tar").read_bytes())
    place = tar.index("käse".encode())
    tar[place : place + 4] = b"abcd"
    (ours / "00001.tar").write_bytes(tar)
    with pytest.raises(ShardError, match=r"00001\.tar is not what its manifest says"):
        index_folder(ours, ours)


def test_a_damaged_parquet_is_named(ours: Path) -> None:
    """A parquet that was cut in half is an error in one line that says what to do."""
    parquet = ours / "00001.parquet"
    parquet.write_bytes(parquet.read_bytes()[:200])
    with pytest.raises(ShardError, match=r"00001\.parquet is damaged: delete it"):
        open_folder(ours).column("level")


def foreign(path: Path, columns: list[dict]) -> None:
    """Write a tar as webdataset does, with a json member for each pair."""
    import webdataset

    with webdataset.TarWriter(str(path)) as tar:
        for number, own in enumerate(columns):
            pair = {"__key__": f"{number}", "png": grey(number), "txt": "c"}
            tar.write(pair | {"json": json.dumps(own)})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5, "n/a", None], ["0.5", "n/a", None]),
        ([1, 2**64], ["1", str(2**64)]),
        (["caf\ud83d", "é"], ["caf?", "é"]),
    ],
)
def test_json_values_that_are_no_arrow_type_are_text(
    tmp_path: Path, values: list, text: list
) -> None:
    """A foreign column of numbers and words, huge numbers or half surrogates can be indexed."""
    foreign(tmp_path / "0.tar", [{"score": value} for value in values])
    assert index_folder(tmp_path, tmp_path).columns["score"] == "string"
    assert open_folder(tmp_path).column("score").to_pylist() == text


def test_shards_whose_columns_do_not_fit_are_an_error(tmp_path: Path) -> None:
    """A column that is a number in one shard and a word in another says so in one line."""
    foreign(tmp_path / "0.tar", [{"score": 0.5}])
    foreign(tmp_path / "1.tar", [{"score": "n/a"}])
    with pytest.raises(ShardError, match="a column in unlike types") as error:
        open_folder(tmp_path).column("score")
    assert "\n" not in str(error.value)


def test_a_pair_without_a_picture_is_shown_as_such(tmp_path: Path) -> None:
    """Looking into a foreign folder does not end at a pair that has only text."""
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "0.tar")) as tar:
        tar.write({"__key__": "a", "txt": "words alone"})
    (sample,) = inspect_folder(tmp_path)["samples"]
    assert (sample["bytes"], sample["caption"]) == (0, "words alone")


def test_a_folder_opens_by_its_name_as_text(ours: Path) -> None:
    """What takes a path takes its text too, as a notebook has it."""
    assert open_folder(str(ours)).uids == open_folder(ours).uids
