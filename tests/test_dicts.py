"""webdataset's pipelines on our pairs: the same dicts, but planned, in subsets, and resumable."""

import ast
import io
import json
import pickle
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from torch.utils.data import DataLoader

from breadth.loaders.dicts import Dicts
from breadth.loaders.errors import Refused, ShardError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.quarantine import read_quarantine
from breadth.loaders.stream import Stream
from tests.pair_folders import noise, write_pairs

PAIRS = 53
OPTIONS = {"batch_pairs": 8, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Share one folder, which nothing here changes."""
    return write_pairs(tmp_path_factory.mktemp("dicts"), PAIRS)


def by_key(pairs: object) -> dict:
    """Put dicts in the order of their keys."""
    return {pair["__key__"]: pair for pair in pairs}


def test_a_dict_is_what_webdataset_reads(folder: Folder) -> None:
    """Every pair of an epoch is, byte for byte, the dict that webdataset makes of the tar."""
    tars = [str(shard) for shard in folder.shards]
    theirs = by_key(wds.WebDataset(tars, shardshuffle=False, empty_check=False))
    ours = list(islice(Dicts(folder, **OPTIONS), PAIRS))
    assert len(ours) == PAIRS
    for key, pair in by_key(ours).items():
        assert pair == {name: theirs[key][name] for name in pair}
        assert theirs[key].keys() - pair.keys() <= {"__local_path__"}


def test_the_order_is_that_of_a_stream(folder: Folder) -> None:
    """Two epochs of dicts come as a stream with the same options brings them."""
    options = OPTIONS | {"subset": "level < 7", "weights": {"level > 3": 2.0}, "shuffle": "global"}
    dicts = Dicts(folder, **options)
    found = [pair["__key__"] for _ in range(2) for pair in dicts]
    stream = Stream(folder, **options, image_px=4, process=False)
    assert found == [uid for batch in islice(stream, len(found) // 8) for uid in batch.uids]


SCRIPT = """
import webdataset as wds
from breadth.loaders.dicts import Dicts

def train(urls, folder, preprocess, tokenizer, batch_size, workers):
    dataset = (
        wds.WebDataset(urls, shardshuffle=False, empty_check=False)
        .select(lambda pair: "txt" in pair)
        .decode("pilrgb")
        .rename(image="jpg;png;jpeg;webp", text="txt")
        .map_dict(image=preprocess, text=tokenizer)
        .to_tuple("image", "text", "__key__")
        .batched(batch_size, partial=False)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=workers)
    return [batch for batch in loader]
"""
THEIRS = "wds.WebDataset(urls, shardshuffle=False, empty_check=False)"
OURS = "wds.FluidWrapper(Dicts(folder, batch_pairs=batch_size, seed=1))"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_script_like_open_clips_changes_one_line(folder: Folder, workers: int) -> None:
    """With that line, batches hold the pictures and captions of the stream, in its order."""
    assert SCRIPT.count(THEIRS) == 1
    module: dict = {}
    changed = SCRIPT.replace(THEIRS, OURS)
    exec(compile(ast.parse(changed), "script", "exec"), module)
    urls = [str(shard) for shard in folder.shards]
    found = module["train"](urls, folder, np.asarray, str.upper, 8, workers)
    stream = Stream(folder, **OPTIONS, image_px=4, process=False)
    assert len(found) == 7
    for (images, texts, keys), batch in zip(found, stream, strict=False):
        assert list(keys) == batch.uids
        assert (np.stack(images) == batch.images.permute(0, 2, 3, 1).numpy()).all()
        rows = [folder.uids.index(uid) for uid in batch.uids]
        assert list(texts) == [folder.caption(row).upper() for row in rows]


def test_a_datapipeline_takes_dicts_as_its_source(folder: Folder) -> None:
    """open_clip's own form: a list of stages, whose first ones become ours; it repeats, too."""
    stages = [wds.decode("rgb8"), wds.to_tuple("png", "__key__"), wds.batched(8, partial=False)]
    pipeline = wds.DataPipeline(Dicts(folder, **OPTIONS), *stages).with_epoch(10)
    found = [list(keys) for _, keys in DataLoader(pipeline, batch_size=None, num_workers=1)]
    stream = Stream(folder, **OPTIONS, image_px=4, process=False)
    assert found == [batch.uids for batch in islice(stream, 10)]


@pytest.mark.parametrize("taken", [16, 19])
def test_a_state_counts_whole_batches(folder: Folder, taken: int) -> None:
    """A batch that was handed out in part is repeated after a resume; what was whole is not."""
    dicts = Dicts(folder, **OPTIONS)
    whole = [pair["__key__"] for pair in Dicts(folder, **OPTIONS)]
    assert [pair["__key__"] for pair in islice(dicts, taken)] == whole[:taken]
    state = json.loads(json.dumps(dicts.state_dict()))
    assert state == dicts.state_after(taken // 8)
    rest = [pair["__key__"] for pair in Dicts(folder, **OPTIONS, state=state)]
    assert rest == whole[16:]


def test_webdatasets_batches_leave_the_state_exact(folder: Folder) -> None:
    """webdataset reads one pair ahead of its batches; the state is that of the batch in hand."""
    dicts = Dicts(folder, **OPTIONS)
    batches = wds.FluidWrapper(dicts).to_tuple("__key__").batched(8)
    for step, _ in enumerate(islice(batches, 5), 1):
        assert dicts.state_dict() == dicts.state_after(step)


def test_what_a_tar_holds_besides_is_never_decoded(tmp_path: Path) -> None:
    """A pickle in a shard is not handed on, so that webdataset's decoders cannot load it."""
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        members = {"a.png": noise(0), "a.txt": b"words", "a.pyd": pickle.dumps(Trap())}
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    read = wds.FluidWrapper(Dicts(open_folder(tmp_path), batch_pairs=1, seed=0)).decode("rgb8")
    (pair,) = read
    assert pair.keys() == {"__key__", "__url__", "png", "txt"}
    assert pair["txt"] == "words"


class Trap:
    """Fails when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle was loaded",))


def damaged(path: Path) -> Folder:
    """Write pairs and change a picture's bytes, which only its CRC tells."""
    folder = write_pairs(path, PAIRS)
    tar = folder.shards[2]
    body = bytearray(tar.read_bytes())
    at = int(folder.index["image_offset"][25].as_py())
    body[at + 60] ^= 1
    tar.write_bytes(body)
    return open_folder(path)


def test_a_damaged_pair_is_replaced_and_written_down(tmp_path: Path) -> None:
    """With ``check`` its place gets the pair that a stream puts there; no other moves."""
    folder = damaged(tmp_path / "pairs")
    options = OPTIONS | {"check": True, "budget_ppm": 40_000}
    dicts = Dicts(folder, **options, quarantine=tmp_path / "lost")
    found = [pair["__key__"] for pair in dicts]
    planned = [pair["__key__"] for pair in Dicts(folder, **OPTIONS)]
    differs = [i for i, (a, b) in enumerate(zip(found, planned, strict=True)) if a != b]
    (row,) = read_quarantine(tmp_path / "lost").to_pylist()
    assert differs == [row["position"]]
    assert row["uid"] == planned[row["position"]] == folder.uids[25]
    assert row["substitute"] == found[row["position"]]
    stream = Stream(folder, **options, image_px=4, process=False, cache_bytes=0)
    assert found == [uid for batch in islice(stream, len(found) // 8) for uid in batch.uids]
    with pytest.raises(ShardError, match="budget"):
        list(Dicts(folder, **OPTIONS, check=True))


def test_a_wrong_request_is_refused_at_once(folder: Folder) -> None:
    """A batch that the ranks cannot share is refused as a stream refuses it."""
    with pytest.raises(Refused, match="multiple of the number of ranks"):
        Dicts(folder, **OPTIONS, world=3)


def test_ranks_share_the_pairs(folder: Folder) -> None:
    """Over an epoch two ranks with two workers each read what one reads alone."""

    def keys(rank: int, world: int, workers: int) -> Iterator[str]:
        dicts = Dicts(folder, **OPTIONS, rank=rank, world=world)
        loader = DataLoader(dicts, batch_size=8 // world, num_workers=workers)
        return (key for batch in loader for key in batch["__key__"])

    parts = [list(keys(rank, 2, 2)) for rank in range(2)]
    shares = [[part[i : i + 4] for i in range(0, len(part), 4)] for part in parts]
    found = [key for pair in zip(*shares, strict=True) for share in pair for key in share]
    assert found == list(keys(0, 1, 0))
