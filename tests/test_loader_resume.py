"""Resuming a stream: it continues with the next pair, whatever has changed around it."""

import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import OutputError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.stream import Stream
from breadth.loaders.tokenize import train_tokenizer

PAIRS = 53


def make_folder(path: Path, first: int = 0) -> Folder:
    """Write blank pictures in shards of ten."""
    blank = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    uids = [f"{i:032x}" for i in range(first, first + PAIRS)]
    pairs = pa.table({"uid": uids, "caption": [uid[-2:] for uid in uids], "image": [blank] * PAIRS})
    write_folder(path, pairs, name="blank", pairs_per_shard=10)
    return open_folder(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Share one folder, which nothing here changes."""
    return make_folder(tmp_path_factory.mktemp("resume"))


def consume(folder: Folder, steps: int, state: dict | None = None, **options: int) -> tuple:
    """Return what every rank of a world saw in some steps, in order of position, and the state."""
    world, state_text = options.pop("world", 1), None
    seen: list[tuple[int, str]] = []
    for rank in range(world):
        options |= {"seed": 1, "image_px": 2, "process": False}  # a process a leg is too slow here
        with Stream(folder, rank=rank, world=world, state=state, **options) as stream:
            batches = list(islice(stream, steps))
        for batch in batches:
            seen += zip(batch.positions.tolist(), batch.uids, strict=True)
        text = json.dumps(stream.state())
        assert state_text in (None, text)  # equal on all ranks
        state_text = text
    return [name for _, name in sorted(seen)], json.loads(state_text)


legs = st.lists(
    st.tuples(
        st.integers(0, 6),  # steps
        st.sampled_from([4, 8, 12]),  # pairs in a batch
        st.sampled_from([1, 2, 4]),  # ranks
        st.sampled_from([0, 2]),  # workers
        st.sampled_from([0, 1 << 30]),  # cache
    ),
    min_size=1,
    max_size=5,
)


@given(legs)
@settings(max_examples=25, deadline=None)
def test_an_interrupted_stream_equals_one_that_was_not(folder: Folder, legs: list) -> None:
    """Stopped anywhere, continued by other ranks, workers and batches: no pair is lost or twice."""
    seen, state = [], None
    for steps, batch_pairs, world, workers, cache_bytes in legs:
        names, state = consume(
            folder,
            steps,
            state,
            batch_pairs=batch_pairs,
            world=world,
            workers=workers,
            cache_bytes=cache_bytes,
        )
        seen += names
    whole = Stream(folder, seed=1, image_px=2, batch_pairs=1)
    assert seen == [name for batch in islice(whole, len(seen)) for name in batch.uids]
    assert state["position"] == len(seen)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_that_begins_in_mid_epoch_changes_nothing(folder: Folder, workers: int) -> None:
    """Resumed in an epoch, the next one mixes kept and new pairs: the tokens are still right."""
    tokenizer = train_tokenizer(["0123456789abcdef"], 300)
    options = {"seed": 1, "image_px": 2, "batch_pairs": 8, "tokenizer": tokenizer}
    state = Stream(folder, **options).state() | {"position": 24}
    plain, kept = (
        Stream(folder, **options, state=state, cache_bytes=size, workers=workers)
        for size in (0, 1 << 30)
    )
    for left, right in islice(zip(plain, kept, strict=True), 20):
        assert left.uids == right.uids
        assert torch.equal(left.tokens, right.tokens)


def test_batches_in_the_making_are_not_counted(folder: Folder) -> None:
    """The state inside a loop is that after the batch in hand, however far workers are ahead."""
    stream = Stream(folder, seed=1, image_px=2, batch_pairs=8, workers=2)
    for step, _ in zip(range(1, 5), stream, strict=False):
        assert stream.state()["position"] == 8 * step


def test_the_state_is_small_and_plain(folder: Folder) -> None:
    """The state survives JSON and has the fields that the design names."""
    state = Stream(folder, seed=1, image_px=2, batch_pairs=8).state()
    assert json.loads(json.dumps(state)) == state
    assert set(state) == {"v", "data", "subset", "weights", "order", "position"}
    assert len(json.dumps(state)) < 200


def test_a_state_of_another_stream_is_refused(folder: Folder, tmp_path: Path) -> None:
    """Other seed, subset or data cannot continue a stream; the message says which differs."""
    state = Stream(folder, seed=1, image_px=2, batch_pairs=8).state()
    options = {"image_px": 2, "batch_pairs": 8, "state": state}
    other = make_folder(tmp_path / "other", first=7)
    with pytest.raises(OutputError, match=r"it was block64/seed1 and is block64/seed2"):
        Stream(folder, seed=2, **options)
    for changed, what in (
        (lambda: Stream(folder, seed=1, subset=folder.uids[:20], **options), "subset"),
        (lambda: Stream(other, seed=1, **options), "data"),
    ):
        with pytest.raises(OutputError, match=f"from that state: the {what} changed") as error:
            changed()
        assert "\n" not in str(error.value)
