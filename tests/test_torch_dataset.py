"""Under torch's DataLoader: the same batches, whoever loads them, and a state that goes on."""

import json
import multiprocessing
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from breadth.loaders.errors import OutputError, PoolError, Refused
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.stream import Stream
from breadth.loaders.torch_dataset import StreamDataset
from tests.pair_folders import write_pairs

PAIRS, EPOCHS = 53, 3
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:'set_vital'")
OPTIONS = {"seed": 1, "image_px": 4, "process": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Share one folder, which nothing here changes."""
    return write_pairs(tmp_path_factory.mktemp("torch"), PAIRS)


def dataset(folder: Folder, batch_pairs: int = 8, **options: object) -> StreamDataset:
    """Make a dataset of small batches."""
    return StreamDataset(folder, batch_pairs=batch_pairs, **OPTIONS | options)


def reference(folder: Folder, batches: int, batch_pairs: int = 8) -> list[list[str]]:
    """Return the uids of the first batches of a plain stream."""
    stream = Stream(folder, batch_pairs=batch_pairs, **OPTIONS)
    return [batch.uids for batch in islice(stream, batches)]


def uids_of(loader: object, batches: int | None = None) -> list[list[str]]:
    """Read an iteration, or the beginning of it."""
    return [list(batch.uids) for batch in islice(loader, batches)]


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (0, {}),
        (1, {}),
        (2, {}),
        (3, {}),
        (2, {"persistent_workers": True, "multiprocessing_context": "spawn"}),
    ],
)
def test_workers_of_a_dataloader_change_nothing(folder: Folder, workers: int, options: dict):
    """Three epochs are those of a plain stream, in order: nothing comes twice or not at all."""
    data = dataset(folder)
    loader = DataLoader(data, batch_size=None, num_workers=workers, **options)
    found, lengths = [], []
    for epoch in range(EPOCHS):
        data.set_epoch(epoch)
        lengths.append(len(loader))
        found += uids_of(loader)
    assert lengths == [7, 7, 6]
    assert found == reference(folder, sum(lengths))


def test_batches_arrive_whole(folder: Folder) -> None:
    """What a worker sends is what the stream yields: pictures, tokens, positions."""
    for workers in (0, 2):
        loader = DataLoader(dataset(folder), batch_size=None, num_workers=workers)
        for ours, theirs in zip(loader, Stream(folder, batch_pairs=8, **OPTIONS), strict=False):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.tokens, theirs.tokens)
            assert np.array_equal(ours.positions, theirs.positions)


def test_iterations_go_on_where_the_last_one_was_left(folder: Folder) -> None:
    """Without workers nothing has to be said: an iteration broken off is continued."""
    data = dataset(folder)
    found = uids_of(data, 3) + uids_of(data) + uids_of(data)
    assert found == reference(folder, 14)


def refusal_in_a_worker(data: StreamDataset, monkeypatch: pytest.MonkeyPatch) -> str:
    """Begin an iteration as a new DataLoader worker does, and return why it is refused.

    Not by a DataLoader: torch takes five seconds for each worker that ends with an error.
    """
    said = multiprocessing.get_context("fork").SimpleQueue()

    def begin() -> None:
        try:
            iter(data)
            said.put("")
        except Refused as error:
            said.put(str(error))

    with monkeypatch.context() as patch:
        info = SimpleNamespace(id=0, num_workers=1)
        patch.setattr("breadth.loaders.torch_dataset.get_worker_info", lambda: info)
        worker = multiprocessing.get_context("fork").Process(target=begin)
        worker.start()
    worker.join(30)
    return said.get()


def test_an_iteration_that_would_repeat_another_is_refused(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that were not told the epoch say so; they do not read the first one again."""
    data = dataset(folder)
    loader = DataLoader(data, batch_size=None, num_workers=1)
    assert uids_of(loader) == reference(folder, 7)
    assert "call dataset.set_epoch(epoch)" in refusal_in_a_worker(data, monkeypatch)
    data.set_epoch(1)
    assert uids_of(loader) == reference(folder, 14)[7:]
    data.set_epoch(2)
    assert refusal_in_a_worker(data, monkeypatch) == ""
    data.set_epoch(0)
    uids_of(data)  # read here
    assert "set_epoch" in refusal_in_a_worker(data, monkeypatch)


def test_a_loader_that_was_left_does_not_take_what_is_said_to_the_next(folder: Folder) -> None:
    """``set_epoch`` is for loaders that begin after it, however slowly earlier ones begin."""
    data = dataset(folder)
    early = iter(DataLoader(data, batch_size=None, num_workers=2))
    data.set_epoch(1)
    late = DataLoader(data, batch_size=None, num_workers=2)
    assert uids_of(late) == reference(folder, 14)[7:]
    assert uids_of(early) == reference(folder, 7)


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_the_state_after_some_batches_goes_on_with_any_workers(
    folder: Folder, before: int, after: int
) -> None:
    """A step count is enough for a state, which other workers and batches continue exactly."""
    data = dataset(folder)
    data.set_epoch(1)
    found = uids_of(DataLoader(data, batch_size=None, num_workers=before), 3)
    state = json.loads(json.dumps(data.state_after(3)))
    assert len(json.dumps(state)) < 200
    rest = dataset(folder, 4, state=state)
    loader = DataLoader(rest, batch_size=None, num_workers=after)
    flat = [uid for batch in found + uids_of(loader) for uid in batch]
    rest.set_epoch(2)
    flat += [uid for batch in uids_of(loader) for uid in batch]
    whole = [uid for batch in reference(folder, 30) for uid in batch]
    assert flat == whole[56 : 56 + len(flat)]
    assert 56 + len(flat) == 3 * PAIRS + 1  # to the end of the batch that crosses the border


@pytest.mark.parametrize("world", [1, 2])
def test_ranks_have_equal_lengths_and_states(folder: Folder, world: int) -> None:
    """Ranks take slices of the same batches, as many of them, with the same state."""
    ranks = [dataset(folder, rank=rank, world=world) for rank in range(world)]
    found = [uids_of(DataLoader(data, batch_size=None, num_workers=2)) for data in ranks]
    assert {len(data) for data in ranks} == {7}
    joined = [[uid for share in shares for uid in share] for shares in zip(*found, strict=True)]
    assert joined == reference(folder, 7)
    states = [json.dumps(data.state_after(7)) for data in ranks]
    assert len(set(states)) == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [0, 1, 4, 7])
def test_stateful_dataloader_resumes_ours(folder: Folder, workers: int, steps: int) -> None:
    """torchdata's StatefulDataLoader saves and restores the place, at an epoch's end too."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def load(state: dict | None = None) -> tuple:
        data = dataset(folder)
        loader = stateful.StatefulDataLoader(data, batch_size=None, num_workers=workers)
        if state is not None:
            loader.load_state_dict(state)
        return data, loader

    _, loader = load()
    reading = iter(loader)
    found = [list(next(reading).uids) for _ in range(steps)]
    if steps == 7:
        assert next(reading, None) is None
    state = loader.state_dict()
    data, loader = load(state)
    if steps < 7:
        found += uids_of(loader)
        data.set_epoch(1)
    found += uids_of(loader)
    assert found == reference(folder, 14)


def test_a_state_of_others_is_refused(folder: Folder, tmp_path: Path) -> None:
    """Other data, other workers and other batches in a worker's state are errors in one line."""
    state = dataset(folder).state_after(1)
    other = write_pairs(tmp_path, PAIRS, first=7)
    with pytest.raises(OutputError, match="the data changed"):
        dataset(other, state=state)
    with pytest.raises(OutputError, match="other DataLoader workers") as error:
        dataset(folder, state=state | {"workers": 2, "batch_pairs": 8, "end": 56})
    assert "\n" not in str(error.value)


def test_too_few_pairs_for_the_workers_are_refused(folder: Folder, monkeypatch) -> None:
    """A batch for every worker at a time must be there; the message says what to change."""
    info = SimpleNamespace(id=0, num_workers=2)
    monkeypatch.setattr("breadth.loaders.torch_dataset.get_worker_info", lambda: info)
    with pytest.raises(PoolError, match="fewer workers"):
        next(iter(dataset(folder, 32)))


def test_a_stream_with_a_process_of_its_own(folder: Folder) -> None:
    """The default without workers: the dataset reads through the stream's own process."""
    data = dataset(folder, process=True, cache_bytes=0, workers=1)
    assert uids_of(DataLoader(data, batch_size=None), 9) == reference(folder, 7)
    assert open_folder(**folder.source).digest == folder.digest
