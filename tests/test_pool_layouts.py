"""Published pools are read as they come: files in the exact layouts, row by row."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from breadth.curate.build import build
from breadth.curate.pool import read_pool
from breadth.curate.pool_layouts import LAYOUTS
from breadth.curate.recipe import PoolColumns, Recipe
from breadth.curate.stage import Filter
from breadth.loaders.errors import PoolError, RecipeError

URLS = [f"http://h{n}.example/{n}.jpg" for n in range(6)]
CAPTIONS = [
    'the 12" record , as new',
    '"yes" he said',
    '"never closed',
    "NULL",
    "1234",
    "ein Kreis über 二",
]
TEXT = pa.string()
LAION_400M = {
    "SAMPLE_ID": pa.array([1.5e12 + n for n in range(6)]),
    "URL": URLS,
    "TEXT": CAPTIONS,
    "HEIGHT": pa.array([200 + n for n in range(6)], pa.int32()),
    "WIDTH": pa.array([300 + n for n in range(6)], pa.int32()),
    "LICENSE": ["?"] * 6,
    "NSFW": ["UNLIKELY"] * 6,
    "similarity": [0.31] * 6,
}
LAION_AESTHETIC = {
    "URL": URLS,
    "TEXT": CAPTIONS,
    "WIDTH": pa.array([300.0 + n for n in range(6)]),
    "HEIGHT": pa.array([200.0 + n for n in range(6)]),
    "similarity": [0.31] * 6,
    "punsafe": [0.0] * 6,
    "pwatermark": [0.1] * 6,
    "AESTHETIC_SCORE": [6.5] * 6,
    "hash": [-(10**18)] * 6,
}
DATACOMP = {
    "uid": [f"{n:032x}" for n in range(6)],
    "url": URLS,
    "text": CAPTIONS,
    "original_width": pa.array([300 + n for n in range(6)], pa.int64()),
    "original_height": pa.array([200 + n for n in range(6)], pa.int64()),
    "clip_b32_similarity_score": pa.array([0.3] * 6, pa.float32()),
    "clip_l14_similarity_score": pa.array([0.2] * 6, pa.float32()),
    "face_bboxes": pa.array([[[0.1, 0.2, 0.3, 0.4]]] * 6, pa.list_(pa.list_(pa.float64()))),
    "sha256": [sha256(url.encode()).hexdigest() for url in URLS],
}
COYO = {
    "id": pa.array([4_000_000_000_000 + n for n in range(6)]),
    "url": URLS,
    "text": CAPTIONS,
    "width": pa.array([300 + n for n in range(6)], pa.int64()),
    "height": pa.array([200 + n for n in range(6)], pa.int64()),
    "image_phash": ["a1b2c3d4e5f60718"] * 6,
    "text_length": [20] * 6,
    "word_count": [4] * 6,
    "num_tokens_bert": [5] * 6,
    "num_tokens_gpt": [5] * 6,
    "num_faces": [0] * 6,
    "clip_similarity_vitb32": [0.3] * 6,
    "clip_similarity_vitl14": [0.2] * 6,
    "nsfw_score_opennsfw2": [0.01] * 6,
    "nsfw_score_gantman": [0.02] * 6,
    "watermark_score": [0.1] * 6,
    "aesthetic_score_laion_v2": [4.9] * 6,
}
PARQUET = [
    ("laion", LAION_400M),
    ("laion", LAION_AESTHETIC),
    ("datacomp", DATACOMP),
    ("coyo", COYO),
]


def tsv(*columns: list[str], header: str = "", end: str = "\n") -> bytes:
    lines = [header] * bool(header) + ["\t".join(row) for row in zip(*columns, strict=True)]
    return "".join(line + end for line in lines).encode()


LABELS, MIDS, SCORES = ["circle,red"] * 6, ["/m/01xyz"] * 6, ["0.9,0.8"] * 6
NAMELESS = {
    "cc3m": ("cc3m", "Train_GCC-training.tsv", tsv(CAPTIONS, URLS)),
    "cc3m gz": ("cc3m", "train.tsv.gz", gzip.compress(tsv(CAPTIONS, URLS))),
    "cc3m labels": ("cc3m", "Train_GCC-Labels.tsv", tsv(CAPTIONS, URLS, LABELS, MIDS, SCORES)),
    "cc3m img2dataset": ("cc3m", "cc3m.tsv", tsv(CAPTIONS, URLS, header="caption\turl")),
    "cc12m": ("cc12m", "cc12m.tsv", tsv(URLS, CAPTIONS)),
    "cc12m img2dataset": ("cc12m", "cc12m.tsv", tsv(URLS, CAPTIONS, header="url\tcaption")),
    "cc12m windows": ("cc12m", "cc12m.tsv", tsv(URLS, CAPTIONS, end="\r\n")),
}


def read(file: Path, layout: str) -> pa.Table:
    return pa.concat_tables(read_pool(str(file), PoolColumns(layout=layout)).parts)


def links(table: pa.Table) -> list[tuple[str, str]]:
    return sorted(zip(table["url"].to_pylist(), table["caption"].to_pylist(), strict=True))


@pytest.mark.parametrize("name", NAMELESS)
def test_a_tsv_without_a_header_keeps_every_row_and_every_quote(name: str, tmp_path: Path) -> None:
    """Conceptual Captions quotes nothing, and a quote inside a caption is a quote."""
    layout, file, raw = NAMELESS[name]
    (tmp_path / file).write_bytes(raw)
    table = read(tmp_path / file, layout)
    assert links(table) == sorted(zip(URLS, CAPTIONS, strict=True))
    assert set(table["_dropped"].to_pylist()) == {None}
    if "labels" in name:
        assert table["labels"].to_pylist() == LABELS


@pytest.mark.parametrize(("layout", "columns"), PARQUET)
def test_published_parquet_files_are_read(
    layout: str, columns: Mapping[str, Any], tmp_path: Path
) -> None:
    """Links, captions and the size that a pool gives are found; every flat column survives."""
    pq.write_table(pa.table(dict(columns)), tmp_path / "part-00000.parquet")
    table = read(tmp_path / "part-00000.parquet", layout)
    assert links(table) == sorted(zip(URLS, CAPTIONS, strict=True))
    assert sorted(map(int, table["original_width"].to_pylist())) == list(range(300, 306))
    assert sorted(map(int, table["original_height"].to_pylist())) == list(range(200, 206))
    renamed = {"URL", "TEXT", "text", "WIDTH", "HEIGHT", "width", "height", "sha256", "face_bboxes"}
    assert set(columns) - renamed <= set(table.column_names)
    if layout == "datacomp":
        assert sorted(table["uid"].to_pylist()) == columns["uid"]
        assert sorted(table["pool_sha256"].to_pylist()) == sorted(columns["sha256"])


@pytest.mark.parametrize("layout", ["laion", "datacomp", "coyo"])
def test_a_layout_gives_the_uids_that_the_usual_names_give(layout: str, tmp_path: Path) -> None:
    """A layout says what columns mean: whose pairs they are does not change by it."""
    columns = dict(dict(PARQUET)[layout])
    pq.write_table(pa.table(columns), tmp_path / "pool.parquet")
    plain = pa.concat_tables(read_pool(str(tmp_path / "pool.parquet"), PoolColumns()).parts)
    assert read(tmp_path / "pool.parquet", layout)["uid"].equals(plain["uid"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_pool_than_the_layouts_is_refused(layout: str, tmp_path: Path) -> None:
    """A layout that does not fit is said in one line, not guessed round."""
    pq.write_table(pa.table({"uri": URLS, "words": CAPTIONS}), tmp_path / "pool.parquet")
    with pytest.raises(PoolError, match="url"):
        read(tmp_path / "pool.parquet", layout)
    pq.write_table(pa.table({"url": URLS, "words": CAPTIONS}), tmp_path / "pool.parquet")
    with pytest.raises(PoolError, match=f"not laid out like {layout}"):
        read(tmp_path / "pool.parquet", layout)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(tsv(URLS), id="one column"),
        pytest.param(tsv(URLS, CAPTIONS, CAPTIONS), id="three columns"),
        pytest.param(tsv(URLS, CAPTIONS) + b"http://h/7.jpg\n", id="a row cut short"),
        pytest.param(b"http://h/7.jpg\tcaf\xe9\n", id="not UTF-8"),
    ],
)
def test_a_tsv_of_another_shape_is_refused(raw: bytes, tmp_path: Path) -> None:
    """A row that does not fit is never left out without a word."""
    (tmp_path / "cc12m.tsv").write_bytes(raw)
    with pytest.raises(PoolError) as error:
        read(tmp_path / "cc12m.tsv", "cc12m")
    assert "\n" not in str(error.value)


def test_what_a_pool_says_of_an_earlier_fetch_is_set_aside(tmp_path: Path) -> None:
    """A ledger can be a pool: its failures are no failures of this build, its hashes to compare."""
    columns = {"url": URLS, "caption": CAPTIONS, "retryable": [True] * 6, "md5": ["0" * 32] * 6}
    pq.write_table(pa.table(columns), tmp_path / "pool.parquet")
    found = read_pool(str(tmp_path / "pool.parquet"), PoolColumns()).columns
    assert {"pool_retryable", "pool_md5"} <= set(found)
    assert not {"retryable", "md5"} & set(found)


def test_a_layout_is_one_of_those_there_are() -> None:
    """A misspelt layout, or one beside column names of one's own, is refused with the recipe."""
    stages = [{"name": "download"}]
    for pool, message in (
        ({"layout": "loian"}, "did you mean 'laion'"),
        ({"layout": "laion", "url_col": "URL"}, "leave out url_col"),
        ({"layout": 3}, "must be a str"),
    ):
        with pytest.raises(RecipeError, match=message):
            Recipe.from_mapping({"name": "r", "stage": stages, "pool": pool})


@dataclass(frozen=True)
class Drawn(Filter, name="test_drawn"):
    """Stands for a fetcher: every picture is 64 px wide, and its hash is its own."""

    resource = "network"
    reads = ("url",)
    writes = {"image": pa.binary(), "original_width": pa.int32(), "sha256": pa.string()}

    def annotate(self, pairs: pa.Table, **_: Any) -> Mapping[str, Any]:
        grey = bytes(cv2.imencode(".png", np.full((64, 64), 90, np.uint8))[1])
        n = len(pairs)
        hashes = [sha256(b"found " + url.encode()).hexdigest() for url in pairs["url"].to_pylist()]
        return {"image": [grey] * n, "original_width": [64] * n, "sha256": hashes}

    def keep(self, pairs: pa.Table) -> Any:
        return pa.array([True] * len(pairs))


@pytest.mark.parametrize(("layout", "columns"), PARQUET)
def test_what_the_pool_says_stays_beside_what_is_found(
    layout: str, columns: Mapping[str, Any], tmp_path: Path
) -> None:
    """A filter before the fetch reads the pool's size; ledger and shards have both sizes."""
    pq.write_table(pa.table(dict(columns)), tmp_path / "pool.parquet")
    stages = [{"name": "image_size", "min_side_px": 202}, {"name": "test_drawn"}]
    table = {"name": "r", "stage": stages, "pool": {"layout": layout}}
    manifest = build(
        Recipe.from_mapping(table), tmp_path / "pool.parquet", tmp_path / "out", scheduler="sync"
    )
    assert manifest.pairs == 4
    assert manifest.funnel[1]["dropped"] == {"small": 2}
    ledger = pq.read_table(tmp_path / "out/ledger/00000.parquet")
    shard = pq.read_table(tmp_path / "out/shards/00000.parquet")
    for found in (ledger, shard):
        rows = [row for row in found.to_pylist() if row.get("kept", True)]
        assert [row["original_width"] for row in rows] == [64] * 4
        assert sorted(int(row["pool_original_width"]) for row in rows) == [302, 303, 304, 305]
        if layout == "datacomp":
            said = {sha256(row["url"].encode()).hexdigest(): row["pool_sha256"] for row in rows}
            assert all(url_hash == value for url_hash, value in said.items())
            assert all(row["sha256"] != row["pool_sha256"] for row in rows)
    dropped = [row for row in ledger.to_pylist() if not row["kept"]]
    assert [row["original_width"] for row in dropped] == [None] * 2
