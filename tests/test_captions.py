"""Several captions of a pair: one at each visit, drawn by position, whoever reads it."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from breadth.curate.shard_writer import write_folder
from breadth.loaders.captions import Captions
from breadth.loaders.dicts import Dicts
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.stream import Stream
from breadth.loaders.tokenize import encode, train_tokenizer
from tests.pair_folders import noise, write_pairs

PAIRS = 40
LENGTH = 12
TOKENIZER = train_tokenizer(["picture 0123456789 said a b c d"], 300)


def said(number: int) -> list[str]:
    """Return what a pair lists: nothing, or up to four texts, of which the first is its caption."""
    return [f"picture {number} said {letter}" for letter in "abcd"[: number % 5]]


def write_listed(path: Path, captions: list[list[str] | None]) -> Folder:
    """Write pairs with a column ``captions``; it is in the parquets and in the json members."""
    table = pa.table(
        {
            "uid": [f"{number:032x}" for number in range(len(captions))],
            "caption": [f"picture {number} said a" for number in range(len(captions))],
            "image": [noise(number) for number in range(len(captions))],
            "captions": pa.array(captions, pa.list_(pa.string())),
        }
    )
    write_folder(path, table, name="listed", pairs_per_shard=7)
    return open_folder(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Share a folder of pairs with none to four captions."""
    path = tmp_path_factory.mktemp("captions")
    return write_listed(path / "both", [said(number) for number in range(PAIRS)])


def write_foreign(path: Path, pairs: list[dict[str, bytes]]) -> None:
    """Write a tar with webdataset's own writer."""
    path.mkdir()
    with webdataset.TarWriter(str(path / "00000.tar")) as tar:
        for number, members in enumerate(pairs):
            tar.write({"__key__": f"{number:04d}", "png": noise(number), **members})


def everything(folder: Folder) -> list:
    """Return the captions of all rows."""
    return Captions(folder).all(np.arange(len(folder)))


def test_captions_are_those_of_text_and_columns(folder: Folder) -> None:
    """The text member counts as one, equal ones once; a pair that lists none has its caption."""
    expected = [said(number) or [f"picture {number} said a"] for number in range(PAIRS)]
    assert everything(folder) == expected


def test_json_without_a_parquet_lists_them(tmp_path: Path) -> None:
    """Text beside or not, what is no text or empty is no caption, and one broken json is named."""
    members = [
        {"json": json.dumps({"captions": ["a", "b", None, "", 3, "a"]}).encode()},
        {"json": json.dumps({"captions": ["a", "b"]}).encode(), "txt": b"own"},
        {"json": json.dumps({"captions": "no list"}).encode(), "txt": b"own"},
        {"json": json.dumps({"captions": []}).encode()},
        {"txt": b'"captions"'},
    ]
    write_foreign(tmp_path / "foreign", members)
    folder = open_folder(tmp_path / "foreign")
    expected = [["a", "b"], ["own", "a", "b"], ["own"], [""], ['"captions"']]
    assert everything(folder) == expected
    assert folder.captions(np.arange(5)) == [choices[0] for choices in expected]


def test_a_parquet_goes_before_json(tmp_path: Path) -> None:
    """New captions in the parquet beside a tar are found without rewriting the tar."""
    old = json.dumps({"captions": ["old"]}).encode()
    write_foreign(tmp_path / "foreign", [{"json": old}, {"txt": b"own", "json": old}])
    lists = pa.array([None, ["new", "newer"]], pa.list_(pa.string()))
    pq.write_table(
        pa.table({"key": ["0000", "0001"], "captions": lists}), tmp_path / "foreign/00000.parquet"
    )
    assert everything(open_folder(tmp_path / "foreign")) == [["old"], ["own", "new", "newer"]]


def test_shards_without_a_list_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take no place of those whose lists are held, however few may be."""
    write_pairs(tmp_path / "plain", 30)
    looked = []
    monkeypatch.setattr("breadth.loaders.captions.SHARDS_HELD", 1)
    monkeypatch.setattr(
        "breadth.loaders.captions.parquet_columns", lambda path: looked.append(path) or []
    )
    captions = Captions(open_folder(tmp_path / "plain"))
    for _ in range(2):
        assert captions.all(np.arange(30)) == [[f"picture {number}"] for number in range(30)]
    assert len(looked) == 3


def test_the_draw_is_uniform_and_of_seed_and_position(folder: Folder) -> None:
    """Of four captions each comes a quarter of the time; seed, rows and batches play no part."""
    captions, row = Captions(folder), 4
    assert len(said(row)) == 4
    positions = np.arange(4000)
    drawn, several = captions.drawn(np.full(4000, row), positions, 3)
    assert several.all()
    counts = Counter(drawn)
    assert sorted(counts) == said(row) and chisquare(list(counts.values())).pvalue > 1e-4
    assert [captions.drawn(np.array([row]), positions[p : p + 1], 3)[0][0] for p in range(50)] == (
        drawn[:50]
    )
    assert captions.drawn(np.full(4000, row), positions, 4)[0] != drawn
    assert not captions.drawn(np.array([0, 1]), np.array([5, 6]), 3)[1].any()


legs = st.lists(
    st.tuples(
        st.integers(1, 8),  # batches
        st.integers(1, 4),  # pairs of a rank in a batch
        st.sampled_from([1, 2, 3]),  # ranks
        st.sampled_from([0, 2]),  # workers
        st.sampled_from([0, 1 << 30]),  # cache
    ),
    min_size=1,
    max_size=4,
)


@given(legs, st.sampled_from([0.0, 0.5]))
@settings(max_examples=12, deadline=None)
def test_a_visit_has_its_caption_whoever_reads_it(
    folder: Folder, legs: list, caption_noise: float
) -> None:
    """Ranks, workers, batches, resume and kept pictures do not change which caption is given."""
    plain = Stream(
        folder, batch_pairs=1, seed=2, image_px=4, workers=0, caption_noise=caption_noise
    )
    rows, state = {uid: row for row, uid in enumerate(folder.uids)}, None
    for steps, share, world, workers, cache_bytes in legs:
        for rank in range(world):
            stream = Stream(
                folder,
                batch_pairs=share * world,
                seed=2,
                image_px=4,
                tokenizer=TOKENIZER,
                context_length=LENGTH,
                rank=rank,
                world=world,
                workers=workers,
                process=False,
                cache_bytes=cache_bytes,
                caption_noise=caption_noise,
                state=state,
            )
            with stream:
                for batch in islice(stream, steps):
                    own = np.array([rows[uid] for uid in batch.uids])
                    givers = plain.noise.givers(own)
                    texts, _ = Captions(folder).drawn(givers, batch.positions, 2)
                    expected = encode(TOKENIZER, texts, LENGTH)
                    assert (batch.tokens.numpy() == expected).all()
        state = stream.state()


def test_kept_pictures_get_new_captions(folder: Folder) -> None:
    """In later epochs a pair whose picture is kept still draws; in ten epochs all are seen."""
    options = {"batch_pairs": PAIRS, "seed": 0, "image_px": 4, "context_length": LENGTH}
    seen: dict[str, set[tuple[int, ...]]] = {uid: set() for uid in folder.uids}
    with Stream(folder, **options, tokenizer=TOKENIZER, workers=1, process=False) as stream:
        for batch in islice(stream, 30):
            for uid, tokens in zip(batch.uids, batch.tokens.tolist(), strict=True):
                seen[uid].add(tuple(tokens))
    assert [len(seen[uid]) for uid in folder.uids] == [max(1, n % 5) for n in range(PAIRS)]


def test_the_loader_process_draws_the_same(folder: Folder) -> None:
    """In a process of its own the tokens are those of this one, noise included."""
    options = {"batch_pairs": 8, "seed": 5, "image_px": 4, "context_length": LENGTH}
    options |= {"tokenizer": TOKENIZER, "caption_noise": 0.4, "cache_bytes": 0}
    here, there = (Stream(folder, **options, workers=1, process=apart) for apart in (False, True))
    with here, there:
        for ours, theirs in islice(zip(here, there, strict=True), 12):
            assert ours.uids == theirs.uids
            assert (ours.tokens == theirs.tokens).all()


def test_dicts_give_the_same_captions(folder: Folder) -> None:
    """What webdataset's pipelines get as txt is what a Stream would have encoded."""
    options = {"batch_pairs": 8, "seed": 5, "caption_noise": 0.4}
    texts = [pair["txt"].decode() for pair in islice(Dicts(folder, **options), PAIRS)]
    stream = Stream(
        folder, **options, image_px=4, tokenizer=TOKENIZER, context_length=LENGTH, workers=0
    )
    tokens = np.concatenate([batch.tokens.numpy() for batch in islice(stream, PAIRS // 8)])
    assert (encode(TOKENIZER, texts, LENGTH) == tokens).all()
