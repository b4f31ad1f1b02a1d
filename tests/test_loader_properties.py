"""Whatever is asked for and however often it is broken off: what is read is what was planned."""

import json
import signal
import subprocess
import sys
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from breadth.loaders.folder import Folder
from breadth.loaders.plan import Order
from breadth.loaders.stream import Stream
from breadth.loaders.subset import resolve_subset
from breadth.loaders.torch_dataset import StreamDataset
from breadth.loaders.weights import resolve_weights
from tests.pair_folders import write_pairs

SIZES = ((1, 1), (7, 2), (53, 10), (97, 40), (80, 1))  # pairs, and how many in a shard
DATA_WORKERS = (0, 1, 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Folder]:
    """Share a folder of each size, which nothing here changes."""
    path = tmp_path_factory.mktemp("properties")
    return {size[0]: write_pairs(path / str(size[0]), size[0], 0, size[1]) for size in SIZES}


plans = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 3),
        "shuffle": st.sampled_from(["block", "global"]),
        "subset": st.one_of(
            st.none(),
            st.integers(1, 10).map(lambda level: f"level < {level}"),
            st.integers(0, 99).map(lambda seed: ("bits", seed)),
            st.integers(0, 99).map(lambda seed: ("uids", seed)),
        ),
        "weights": st.one_of(
            st.none(),
            st.sampled_from([0.0, 0.3, 1.7, 3.0]).map(lambda weight: {"level > 4": weight}),
        ),
    }
)
legs = st.lists(
    st.tuples(
        st.integers(0, 6),  # batches
        st.integers(1, 5),  # pairs of a rank in a batch
        st.sampled_from([1, 2, 3, 4]),  # ranks
        st.sampled_from([0, 1, 3]),  # workers
        st.sampled_from([0, 1 << 30]),  # cache
    ),
    min_size=1,
    max_size=5,
)


def filled(plan: dict, folder: Folder) -> dict[str, Any]:
    """Make uids and bitmaps of a plan's chosen kind of subset."""
    subset = plan["subset"]
    if not isinstance(subset, tuple):
        return plan
    kind, seed = subset
    bits = np.random.default_rng(seed).random(len(folder)) < 0.6
    uids = [uid for uid, bit in zip(folder.uids, bits, strict=True) if bit]
    return plan | {"subset": bits if kind == "bits" else uids}


def order_of(folder: Folder, plan: dict[str, Any]) -> Order:
    """Return the order by itself: a pure function, without anything that reads."""
    rows = resolve_subset(folder, plan["subset"])
    visits = resolve_weights(folder, rows, plan["weights"])
    given_ = {key: plan[key] for key in ("seed", "shuffle")}
    return Order(folder.shard_of, rows, digest=folder.digest, visits=visits, **given_)


def planned(folder: Folder, order: Order, count: int) -> list[str]:
    """Return the uids that a single process is to read first."""
    return [folder.uids[row] for row in order.rows(0, count)]


@given(st.sampled_from([size for size, _ in SIZES]), plans, legs)
@settings(max_examples=60, deadline=None)
def test_what_is_consumed_is_what_was_planned(
    folders: dict[int, Folder], size: int, plan: dict, legs: list
) -> None:
    """Broken off anywhere and continued by other ranks, workers and batches: order is the plan's.

    Each leg is dropped with batches still in the making, as a kill drops them.
    """
    folder = folders[size]
    plan = filled(plan, folder)
    rows = resolve_subset(folder, plan["subset"])
    assume(len(rows))
    order = order_of(folder, plan)
    seen, state = [], None
    for steps, share, world, workers, cache_bytes in legs:
        options = {"batch_pairs": share * world, "workers": workers, "cache_bytes": cache_bytes}
        if share * world > len(order):
            continue
        found: list[tuple[int, str]] = []
        for rank in range(world):
            stream = Stream(
                folder,
                **plan | options,
                image_px=4,
                process=False,
                rank=rank,
                world=world,
                state=state,
            )
            with stream:
                for batch in islice(stream, steps):
                    found += zip(batch.positions.tolist(), batch.uids, strict=True)
            text = json.dumps(stream.state())
        assert len(text) < 200
        seen += [uid for _, uid in sorted(found)]
        state = json.loads(text)
        assert state["position"] == len(seen)
    assert seen == planned(folder, order, len(seen))


@given(st.sampled_from([size for size, _ in SIZES]), plans, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_every_pair_as_often_as_its_weight_says(
    folders: dict[int, Folder], size: int, plan: dict, epoch: int
) -> None:
    """Unweighted it is once; a weight of 1.7 is once or twice; ``len`` is exact in each epoch."""
    folder = folders[size]
    plan = filled(plan, folder)
    rows = resolve_subset(folder, plan["subset"])
    assume(len(rows))
    order = order_of(folder, plan)
    assume(len(order))
    levels = folder.column("level").to_pylist()
    weight = next(iter((plan["weights"] or {"": 1.0}).values()))
    counts = Counter(order.rows(epoch * len(order), (epoch + 1) * len(order)).tolist())
    assert counts.keys() <= set(rows.tolist())
    for row in rows.tolist():
        mean = weight if levels[row] > 4 else 1.0
        assert np.floor(mean) <= counts[row] <= np.ceil(mean)


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(
        st.tuples(st.sampled_from(DATA_WORKERS), st.integers(1, 3), st.integers(1, 2)),
        min_size=1,
        max_size=3,
    ),
)
@settings(max_examples=8, deadline=None)
def test_dataloaders_of_any_shape_continue_each_other(
    folders: dict[int, Folder], share: int, steps: int, loaders: list
) -> None:
    """Other DataLoader workers, ranks and batches go on with ``state_after`` exactly."""
    folder = folders[97]
    seen, state = [], None
    for workers, factor, world in loaders:
        found: list[tuple[int, str]] = []
        for rank in range(world):
            data = StreamDataset(
                folder,
                batch_pairs=share * factor * world,
                seed=1,
                image_px=4,
                process=False,
                rank=rank,
                world=world,
                state=state,
            )
            for batch in islice(DataLoader(data, batch_size=None, num_workers=workers), steps):
                found += zip(np.asarray(batch.positions).tolist(), batch.uids, strict=True)
            taken = min(steps, len(data))  # an iteration ends with its epoch
            text = json.dumps(data.state_after(taken))
        seen += [uid for _, uid in sorted(found)]
        state = json.loads(text)
    plan = {"seed": 1, "shuffle": "block", "subset": None, "weights": None}
    assert seen == planned(folder, order_of(folder, plan), len(seen))


READER = """
import json, sys
from breadth.loaders.folder import open_folder
from breadth.loaders.stream import Stream

if __name__ == "__main__":
    path, options, state = map(json.loads, sys.argv[1:])
    stream = Stream(open_folder(path), seed=1, image_px=4, state=state, cache_bytes=0, **options)
    for batch in stream:
        print(json.dumps([batch.uids, stream.state()]), flush=True)
"""


def killed_after(folder: Folder, steps: int, options: dict, state: dict | None) -> list:
    """Run a reader in a process, and kill it once it has said what it read in some steps."""
    words = map(json.dumps, (str(folder.shards[0].parent), options, state))
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, *words], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    try:
        return [json.loads(line) for line in islice(reader.stdout, steps)]
    finally:
        reader.send_signal(signal.SIGKILL)
        reader.communicate(timeout=60)


@pytest.mark.parametrize("process", [False, True])
def test_killed_readers_continue_each_other(folders: dict[int, Folder], process: bool) -> None:
    """SIGKILL between any two batches: from the last state noted, nothing is lost or twice."""
    folder = folders[97]
    seen, state = [], None
    for steps, batch_pairs, workers in ((3, 8, 2), (1, 12, 1), (9, 16, 3)):
        options = {"batch_pairs": batch_pairs, "workers": workers, "process": process}
        said = killed_after(folder, steps, options, state)
        assert len(said) == steps
        seen += [uid for uids, _ in said for uid in uids]
        state = said[-1][1]
    plan = {"seed": 1, "shuffle": "block", "subset": None, "weights": None}
    assert seen == planned(folder, order_of(folder, plan), len(seen))
    assert state["position"] == len(seen) > 97  # beyond the first epoch
