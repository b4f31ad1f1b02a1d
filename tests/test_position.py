"""The state of a stream: small, plain, and refused with a reason where it does not fit."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import OutputError
from breadth.loaders.folder import open_folder
from breadth.loaders.plan import Order
from breadth.loaders.position import differences, lineage, make_state, position_in

SHARD_OF = np.repeat(np.arange(10), 10).astype(np.int32)


def some_order(rows: np.ndarray | None = None, digest: str = "0a1b2c3d4e5f", **options) -> Order:
    """Order a hundred pairs in ten shards."""
    rows = np.arange(100) if rows is None else rows
    return Order(SHARD_OF, rows, **{"seed": 0, "digest": digest, **options})


def test_a_state_survives_json_in_200_bytes() -> None:
    """The longest state there can be is short, and says where the stream is."""
    order = some_order(
        np.arange(50), seed=2**63 - 1, shuffle="block", visits=np.full(50, 1.5), block_shards=10**6
    )
    state = make_state(order, 2**50)
    text = json.dumps(state)
    assert len(text) < 200
    assert position_in(json.loads(text), order) == 2**50
    assert make_state(some_order(), 7) == {
        "v": 2,
        "data": "0a1b2c3d",
        "subset": "all",
        "weights": "none",
        "order": "block64/seed0",
        "position": 7,
    }


CHANGES = {
    "data": (some_order(digest="ffff0000aaaa"), "the data changed: .* 0a1b2c3d and is ffff0000"),
    "subset": (some_order(np.arange(60)), "the subset changed: it was all and is [0-9a-f]{8}"),
    "weights": (some_order(visits=np.full(100, 2.0)), "the weights changed: they were none"),
    "seed": (some_order(seed=1), "the order changed: it was block64/seed0 and is block64/seed1"),
    "shuffle": (some_order(shuffle="global"), "block64/seed0 and is global/seed0"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_plan_is_refused_with_what_changed(name: str) -> None:
    """Data, subset, weights, shuffle and seed are each named, in one line, and nothing else is."""
    order, message = CHANGES[name]
    state = make_state(some_order(), 30)
    with pytest.raises(OutputError, match=message) as error:
        position_in(state, order)
    assert "\n" not in str(error.value)
    assert str(error.value).count(" changed: ") == 1


def test_all_that_changed_is_said() -> None:
    """Two changes are both in the line; of equal plans nothing is said."""
    first, second = (make_state(some_order(), 1), make_state(some_order(seed=2, digest="e"), 5))
    assert differences(first, second).count(" changed: ") == 2
    assert differences(first, make_state(some_order(), 99)) == ""


@pytest.mark.parametrize("position", [-1, 1.5, "3", None, True])
def test_a_damaged_position_is_refused(position: object) -> None:
    """A position is a whole number from 0."""
    with pytest.raises(OutputError, match="damaged"):
        position_in(make_state(some_order(), 0) | {"position": position}, some_order())


def test_a_state_of_another_version_is_refused() -> None:
    """What an earlier Breadth wrote is not misread."""
    old = {"v": 1, "plan": "0123456789abcdef", "position": 8, "seed": 0}
    with pytest.raises(OutputError, match="has version 1 and this Breadth writes 2"):
        position_in(old, some_order())


def test_a_batch_can_be_traced_to_its_uids(tmp_path: Path) -> None:
    """The uids of a step are those at its positions, over the border of epochs too."""
    blank = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    uids = [f"{(i * 7) % 23:032x}" for i in range(23)]
    pairs = pa.table({"uid": uids, "caption": [""] * 23, "image": [blank] * 23})
    write_folder(tmp_path, pairs, name="lineage", pairs_per_shard=5)
    folder = open_folder(tmp_path)
    order = Order(folder.shard_of, np.arange(23), seed=3, digest=folder.digest)
    whole = [folder.uids[row] for row in order.rows(0, 80)]
    assert [lineage(order, folder, step, 8) for step in range(10)] == [
        whole[8 * step : 8 * step + 8] for step in range(10)
    ]
