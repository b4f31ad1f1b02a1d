"""Streaming: every pair once an epoch, whoever shares the work."""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from breadth.curate.shard_writer import write_folder
from breadth.loaders.batch import Batch
from breadth.loaders.decode import decode, decode_into
from breadth.loaders.errors import PoolError, Refused, ShardError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.stream import Stream
from breadth.loaders.subset import read_uids, write_npy
from breadth.loaders.tokenize import encode, train_tokenizer

PAIRS = 61  # a prime: no batch divides it
OPTIONS = {"batch_pairs": 8, "seed": 3, "image_px": 8}


def uid(number: int) -> str:
    """Return the uid of a number; uids are not in the order of rows."""
    return f"{(number * 37) % 101:032x}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Write noise pictures with captions in seven shards."""
    rng = np.random.default_rng(0)
    images = [
        cv2.imencode(".png", rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))[1].tobytes()
        for _ in range(PAIRS)
    ]
    pairs = pa.table(
        {
            "uid": [uid(i) for i in range(PAIRS)],
            "caption": [f"picture number {i}" for i in range(PAIRS)],
            "image": images,
        }
    )
    path = tmp_path_factory.mktemp("stream")
    write_folder(path, pairs, name="noise", pairs_per_shard=9)
    return open_folder(path)


def take(stream: Stream, batches: int) -> list[Batch]:
    """Read some batches."""
    return list(islice(stream, batches))


def same(left: list[Batch], right: list[Batch]) -> bool:
    """Say whether two runs gave the same batches, bit for bit."""
    return all(
        a.uids == b.uids
        and torch.equal(a.images, b.images)
        and torch.equal(a.tokens, b.tokens)
        and (a.positions == b.positions).all()
        for a, b in zip(left, right, strict=True)
    )


def test_two_ranks_times_two_workers_see_every_pair_once_an_epoch(folder: Folder) -> None:
    """Over three epochs, each run of as many positions as there are pairs has each pair once."""
    seen: dict[int, str] = {}
    for rank in range(2):
        stream = Stream(folder, **OPTIONS, rank=rank, world=2, workers=2, cache_bytes=0)
        for batch in take(stream, -(-3 * PAIRS // 8)):
            assert len(batch.uids) == 4
            for position, name in zip(batch.positions.tolist(), batch.uids, strict=True):
                assert position not in seen
                seen[position] = name
    for epoch in range(3):
        names = [seen[position] for position in range(epoch * PAIRS, (epoch + 1) * PAIRS)]
        assert sorted(names) == sorted(folder.uids)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_are_slices_of_the_same_batches(folder: Folder, world: int) -> None:
    """Put side by side, the ranks' shares are the batches of a single rank."""
    whole = take(Stream(folder, **OPTIONS), 10)
    ranks = [take(Stream(folder, **OPTIONS, rank=r, world=world), 10) for r in range(world)]
    for batch, *shares in zip(whole, *ranks, strict=True):
        assert batch.uids == [name for share in shares for name in share.uids]
        assert torch.equal(batch.images, torch.cat([share.images for share in shares]))


@pytest.mark.parametrize("augment", ["center", "random_resized_crop"])
@pytest.mark.parametrize(
    ("workers", "process", "cache_bytes"),
    [(1, False, 0), (3, False, 1 << 30), (2, True, 0), (2, True, 1 << 30)],
)
def test_workers_and_cache_change_nothing(
    folder: Folder, augment: str, workers: int, process: bool, cache_bytes: int
) -> None:
    """Threads, process and memory are matters of speed: three epochs are the same bit for bit."""
    tokenizer = train_tokenizer(["picture number 0123456789"], 300)
    options = OPTIONS | {"tokenizer": tokenizer, "context_length": 12, "augment": augment}
    plain = take(Stream(folder, **options, cache_bytes=0, workers=0), 24)
    how = {"workers": workers, "process": process, "cache_bytes": cache_bytes}
    with Stream(folder, **options, **how) as stream:
        assert same(plain, take(stream, 24))


def test_a_crop_depends_on_the_position_alone(folder: Folder) -> None:
    """Random crops are new in every epoch, and the same again wherever the stream was resumed."""
    options = OPTIONS | {"augment": "random_resized_crop", "batch_pairs": PAIRS, "workers": 0}
    first, second = take(Stream(folder, **options), 2)
    again = take(Stream(folder, **options, state=Stream(folder, **options).state()), 1)[0]
    assert torch.equal(first.images, again.images)
    places = {name: place for place, name in enumerate(second.uids)}
    moved = second.images[[places[name] for name in first.uids]]
    assert (first.images != moved).flatten(1).any(dim=1).float().mean() > 0.9
    middle = take(Stream(folder, **options | {"augment": "center"}), 1)[0]
    assert middle.uids == first.uids
    assert not torch.equal(middle.images, first.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_lasts_as_long_as_it_is_held(folder: Folder, workers: int) -> None:
    """Batches that are kept stay as they were, and what is not kept is used again."""
    stream = Stream(folder, **OPTIONS, workers=workers, process=False, cache_bytes=0)
    batches = iter(stream)
    held = [next(batches) for _ in range(7)]
    copies = [batch.images.clone() for batch in held]
    addresses = {next(batches).images.data_ptr() for _ in range(40)}
    assert all(torch.equal(b.images, copy) for b, copy in zip(held, copies, strict=True))
    del held, copies
    addresses = {next(batches).images.data_ptr() for _ in range(40)}
    assert len(addresses) <= 4


def test_a_batch_holds_what_is_in_the_shards(folder: Folder) -> None:
    """Pictures and tokens are those of the pair named beside them."""
    tokenizer = train_tokenizer(["picture number 0123456789"], 300)
    rows = {name: row for row, name in enumerate(folder.uids)}
    for batch in take(Stream(folder, **OPTIONS, tokenizer=tokenizer, context_length=12), 8):
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (8, 3, 8, 8)
        for i, name in enumerate(batch.uids):
            image, caption, _ = folder.read(rows[name])
            assert (batch.images[i].permute(1, 2, 0).numpy() == decode(image, 8)).all()
            assert (batch.tokens[i].numpy() == encode(tokenizer, [caption], 12)[0]).all()


def test_a_picture_that_is_kept_is_decoded_once(folder: Folder, monkeypatch) -> None:
    """What fits in memory is decoded in the first epoch only; what does not, each time."""
    for cache_bytes, expected in ((1 << 30, PAIRS), (0, 4 * 8 * 8)):
        calls: list[bytes] = []

        def counted(body: memoryview, out: np.ndarray, crop: None, calls=calls) -> None:
            calls.append(bytes(body))
            decode_into(body, out, crop)

        monkeypatch.setattr("breadth.loaders.reader.decode_into", counted)
        take(Stream(folder, **OPTIONS, cache_bytes=cache_bytes, workers=0), 4 * 8)
        assert len(calls) == expected


@pytest.mark.parametrize("kind", ["npy", "parquet", "txt"])
def test_a_uid_list_chooses_pairs(folder: Folder, tmp_path: Path, kind: str) -> None:
    """Only listed pairs are streamed, in the order that they have in the whole folder."""
    chosen = sorted(folder.uids)[::3]
    path = tmp_path / f"chosen.{kind}"
    if kind == "npy":
        write_npy(path, chosen)
    elif kind == "parquet":
        pa.parquet.write_table(pa.table({"uid": chosen}), path)
    else:
        path.write_text("\n".join(chosen) + "\n")
    subset = read_uids(path)
    stream = Stream(folder, **OPTIONS | {"batch_pairs": 7}, subset=subset)
    assert len(stream) == len(chosen) == 21
    assert stream.steps_per_epoch == 3
    found = [name for batch in take(stream, 3) for name in batch.uids]
    whole = [name for batch in take(Stream(folder, **OPTIONS), 8) for name in batch.uids]
    assert found == [name for name in whole[:PAIRS] if name in set(chosen)]


def test_npy_is_datacomps_format(tmp_path: Path) -> None:
    """A list is what DataComp's own code writes: sorted pairs of high and low 64 bits."""
    uids = ["f" * 16 + "0" * 15 + "1", "0" * 15 + "2" + "f" * 16]
    write_npy(tmp_path / "a.npy", uids)
    expected = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in uids], np.dtype("u8,u8"))
    expected.sort()
    assert np.load(tmp_path / "a.npy").tolist() == expected.tolist()
    assert np.load(tmp_path / "a.npy").dtype == np.dtype("u8,u8")
    assert read_uids(tmp_path / "a.npy").to_pylist() == sorted(uids)


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.txt", b"xyz\n", "holds 'xyz': a uid is 32"),
        ("a.txt", b"", "holds no uid"),
        ("a.csv", b"uid\n", "give a .parquet, .npy or .txt"),
        ("a.npy", b"\x93NUMPY", "cannot be read"),
        ("a.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_bad_uid_list_is_one_clear_line(tmp_path: Path, name: str, body: bytes, message) -> None:
    """A list of another kind, a torn one and an empty one each say what is wrong."""
    (tmp_path / name).write_bytes(body)
    with pytest.raises(PoolError, match=message) as error:
        read_uids(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    """A broken picture stops the stream with uid, shard and remedy; it does not vanish."""
    good = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    pairs = (
        ({"uid": f"{i:032x}", "caption": ""}, good if i != 5 else good[:40], "png")
        for i in range(9)
    )
    write_folder(tmp_path, pairs, name="broken", pairs_per_shard=4)
    folder = open_folder(tmp_path)
    for workers in (0, 2):
        with pytest.raises(ShardError, match=rf"{5:032x} of shard 00001\.tar .*--subset") as error:
            take(Stream(folder, **OPTIONS, workers=workers), 2)
        assert "\n" not in str(error.value)
    others = [name for name in folder.uids if name != f"{5:032x}"]
    assert sorted(take(Stream(folder, **OPTIONS, subset=others), 1)[0].uids) == others


def test_a_pair_without_a_picture_is_named(tmp_path: Path) -> None:
    """A foreign pair that has only text is an error that names it, not an empty picture."""
    import io
    import tarfile

    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    with pytest.raises(ShardError, match=r"shard 00000\.tar has no picture"):
        take(Stream(open_folder(tmp_path), batch_pairs=1, seed=0, image_px=8), 1)


def test_what_cannot_be_streamed_is_refused_at_once(folder: Folder) -> None:
    """A batch that ranks cannot share, a rank that is none, and too few pairs are refused."""
    with pytest.raises(Refused, match="multiple of the number of ranks"):
        Stream(folder, **OPTIONS, world=3)
    with pytest.raises(Refused, match="rank 2 of 2"):
        Stream(folder, **OPTIONS, rank=2, world=2)
    with pytest.raises(PoolError, match="0 pairs that the subset names are fewer"):
        Stream(folder, **OPTIONS, subset=["f" * 32])
