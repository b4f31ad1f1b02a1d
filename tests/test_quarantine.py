"""Quarantine: what cannot be read is replaced in its place, written down and held to a budget."""

import io
import json
import tarfile
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import PoolError, ShardError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.quarantine import SCHEMA, read_quarantine, write_quarantine
from breadth.loaders.stream import Stream
from breadth.loaders.tokenize import train_tokenizer
from breadth.train import loop
from breadth.train.recipe import TrainRecipe

PAIRS = 60
BROKEN = frozenset({5, 17, 18, 44})
OPTIONS = {"batch_pairs": 12, "seed": 3, "image_px": 8, "budget_ppm": 100_000}


def uid(number: int) -> str:
    """Return the uid of a number."""
    return f"{number:032x}"


def noise(number: int) -> bytes:
    """Return a small picture of noise, that of broken ones cut short."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    return encoded[:60] if number in BROKEN else encoded


def make_folder(path: Path) -> Folder:
    """Write pairs of which some have a broken picture."""
    pairs = (({"uid": uid(i), "caption": f"pair {i}"}, noise(i), "png") for i in range(PAIRS))
    write_folder(path, pairs, name="broken", pairs_per_shard=11)
    return open_folder(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Share one folder, which nothing here changes."""
    return make_folder(tmp_path_factory.mktemp("broken"))


def names(stream: Stream, batches: int) -> dict[int, str]:
    """Return the uid at each position of some batches."""
    with stream:
        return {
            position: name
            for batch in islice(stream, batches)
            for position, name in zip(batch.positions.tolist(), batch.uids, strict=True)
        }


@pytest.mark.parametrize(
    ("world", "how"),
    [
        (1, {"workers": 0}),
        (2, {"workers": 2, "process": False, "cache_bytes": 0}),
        (4, {"workers": 3, "process": False}),
        (1, {"workers": 2, "process": True}),
    ],
)
def test_only_broken_pairs_are_replaced(folder: Folder, tmp_path: Path, world: int, how) -> None:
    """In three epochs all else is where it was planned, and substitutes are equal for any ranks."""
    found: dict[int, str] = {}
    for rank in range(world):
        stream = Stream(folder, **OPTIONS, **how, rank=rank, world=world, quarantine=tmp_path)
        found |= names(stream, 15)
        accounts = stream.accounts()
        assert accounts["planned"] == 15 * 12 // world
        assert accounts["planned"] == accounts["delivered"] + accounts["quarantined"]
    order = Stream(folder, **OPTIONS).order
    planned = folder.index["uid"].take(order.rows(0, 3 * PAIRS)).to_pylist()
    broken = [p for p, name in enumerate(planned) if name in {uid(i) for i in BROKEN}]
    assert len(broken) == 3 * len(BROKEN)
    assert [p for p in range(3 * PAIRS) if found[p] != planned[p]] == broken
    table = read_quarantine(tmp_path)
    assert table["position"].to_pylist() == broken
    assert table["uid"].to_pylist() == [planned[p] for p in broken]
    assert table["substitute"].to_pylist() == [found[p] for p in broken]
    plain = names(Stream(folder, **OPTIONS, workers=0), 15)
    assert found == plain
    lineage = Stream(folder, **OPTIONS, quarantine=tmp_path).lineage
    assert [name for step in range(15) for name in lineage(step)] == [plain[p] for p in range(180)]


def test_a_row_says_which_pair_and_why(folder: Folder, tmp_path: Path) -> None:
    """Shard, key and offset lead to the broken bytes; epoch and step to when they were met."""
    names(Stream(folder, **OPTIONS, quarantine=tmp_path, workers=0), 6)
    table = read_quarantine(tmp_path)
    assert table.schema.equals(SCHEMA)
    for row in table.to_pylist():
        place = folder.uids.index(row["uid"])
        assert folder.index["key"][place].as_py() == row["key"]
        shard = next(path for path in folder.shards if path.name == row["shard"])
        assert shard.read_bytes()[row["offset"] :][:60] == noise(place)
        assert row["error"] == "DecodeError"
        assert row["message"]
        assert (row["epoch"], row["step"]) == (row["position"] // PAIRS, row["position"] // 12)


def test_a_substitute_brings_its_own_caption_and_picture(folder: Folder) -> None:
    """What stands in a replaced place is a whole pair, decoded as it is elsewhere."""
    tokenizer = train_tokenizer(["pair 0123456789"], 300)
    options = OPTIONS | {"tokenizer": tokenizer, "context_length": 8}
    seen: dict[str, tuple[bytes, bytes]] = {}
    for how in ({"workers": 0}, {"workers": 2, "process": False, "cache_bytes": 0}):
        for batch in islice(Stream(folder, **options, **how), 15):
            for place, name in enumerate(batch.uids):
                pair = batch.images[place].numpy().tobytes(), batch.tokens[place].numpy().tobytes()
                assert seen.setdefault(name, pair) == pair
    assert len({image for image, _ in seen.values()}) == len(seen) == PAIRS - len(BROKEN)
    assert len({tokens for _, tokens in seen.values()}) == len(seen)


def test_what_is_done_again_is_counted_once(folder: Folder, tmp_path: Path) -> None:
    """A run that goes on from an older position, with other ranks, leaves one row a position."""
    stream = Stream(folder, **OPTIONS, quarantine=tmp_path)
    names(stream, 2)
    state = stream.state()
    names(stream, 3)
    once = read_quarantine(tmp_path)
    for rank in range(3):
        options = OPTIONS | {"state": state, "rank": rank, "world": 3}
        names(Stream(folder, **options, quarantine=tmp_path), 3)
    again = read_quarantine(tmp_path)
    assert again.drop_columns("rank").equals(once.drop_columns("rank"))
    assert len(once) == len(BROKEN)


def test_more_than_the_budget_is_an_error(folder: Folder) -> None:
    """The budget counts an epoch's pairs: what it allows passes, one more stops the stream."""
    for ppm, stops in ((4 / 60 * 1e6 + 1, False), (3 / 60 * 1e6 + 1, True), (0, True)):
        for workers in (0, 2):
            options = OPTIONS | {"budget_ppm": ppm, "workers": workers}
            if not stops:
                assert len(names(Stream(folder, **options), 5)) == PAIRS
                continue
            with pytest.raises(ShardError, match=r"of 60 pairs are lost, .*--subset") as error:
                names(Stream(folder, **options), 5)
            assert "\n" not in str(error.value)


def test_the_stream_stops_at_the_same_batch_however_it_is_read(folder: Folder) -> None:
    """Batches made ahead do not stop it early: all before the one over the budget are yielded."""
    reached = set()
    for workers in (0, 1, 3):
        stream = Stream(folder, **OPTIONS | {"budget_ppm": 40_000, "workers": workers})
        with pytest.raises(ShardError, match="3 of 60 pairs"):
            names(stream, 15)
        reached.add(stream.state()["position"])
    assert len(reached) == 1


def test_a_folder_of_rubbish_ends(tmp_path: Path) -> None:
    """Where nothing can be read, even an endless budget ends in an error."""
    pairs = (({"uid": uid(i), "caption": ""}, noise(5), "png") for i in range(8))
    write_folder(tmp_path, pairs, name="rubbish", pairs_per_shard=8)
    options = OPTIONS | {"batch_pairs": 4, "budget_ppm": 1e9}
    with pytest.raises(ShardError, match="100 pairs drawn in turn for position 0"):
        names(Stream(open_folder(tmp_path), **options), 1)


def test_a_caption_that_cannot_be_read_is_quarantined_too(tmp_path: Path) -> None:
    """Damaged JSON costs the pair when captions are asked for, and nothing when they are not."""
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(12):
            rng = np.random.default_rng(number)
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            picture = cv2.imencode(".png", pixels)[1].tobytes()
            described = json.dumps({"caption": f"<{number}>"}).encode()
            for name, body in ((f"{number}.png", picture), (f"{number}.json", described)):
                member = tarfile.TarInfo(name)
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
    folder = open_folder(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"<4>"}', b'"<4>" '))
    with_captions = Stream(folder, **OPTIONS, tokenizer=train_tokenizer(["x"], 300))
    names(with_captions, 2)
    assert with_captions.accounts() == {"planned": 24, "delivered": 22, "quarantined": 2}
    without = Stream(folder, **OPTIONS)
    names(without, 2)
    assert without.accounts()["quarantined"] == 0


def entry(position: int) -> dict:
    """Return a row as the stream writes it."""
    return (
        dict.fromkeys(SCHEMA.names, "x")
        | dict.fromkeys(("epoch", "step", "rank", "offset"), 0)
        | {"position": position}
    )


def test_a_line_that_a_kill_cut_costs_itself_alone(tmp_path: Path) -> None:
    """Rows written after a torn one are read; no file, or an empty one, is no row."""
    assert read_quarantine(tmp_path / "none").num_rows == 0
    write_quarantine(tmp_path, 0, [entry(1), entry(2)])
    path = tmp_path / "rank-00000.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    write_quarantine(tmp_path, 0, [entry(3)])
    write_quarantine(tmp_path, 1, [entry(0)])
    assert read_quarantine(tmp_path)["position"].to_pylist() == [0, 1, 3]


def test_another_file_is_no_quarantine(tmp_path: Path) -> None:
    """JSON of other columns is refused by name rather than half read."""
    (tmp_path / "rank-00000.jsonl").write_text(json.dumps({"position": 3}) + "\n")
    with pytest.raises(PoolError, match=r"rank-00000\.jsonl is no quarantine"):
        read_quarantine(tmp_path)


def test_a_run_keeps_its_quarantine(folder: Folder, tmp_path: Path, monkeypatch) -> None:
    """Training leaves the rows in the run's folder, and goes on beside them."""
    torch.set_num_threads(1)
    monkeypatch.setattr(loop, "Stream", partial(Stream, budget_ppm=OPTIONS["budget_ppm"]))
    options = {"batch_pairs": 12, "image_px": 8, "vocabulary": 300, "checkpoint_steps": 2}
    recipe = TrainRecipe("t", {"InfoNCE": 1}, steps=5, log_steps=1, **options)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe, folder.source["path"], tmp_path / "run", progress=interrupt)
    loop.train(recipe, folder.source["path"], tmp_path / "run")
    table = read_quarantine(tmp_path / "run" / "quarantine")
    assert sorted(table["uid"].to_pylist()) == [uid(number) for number in sorted(BROKEN)]


def interrupt(metrics: dict) -> None:
    """Stop a run at its third step as Ctrl-C would."""
    if metrics["step"] == 3:
        raise KeyboardInterrupt
