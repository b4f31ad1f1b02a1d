"""Two real processes under gloo: they agree on every batch and state without exchanging any."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from breadth.loaders.folder import Folder
from breadth.loaders.stream import Stream
from tests.pair_folders import write_pairs

PAIRS, BATCH = 61, 8

RANK = """
import json, sys
import torch
import torch.distributed as dist
from breadth.loaders.folder import open_folder
from breadth.loaders.stream import Stream

if __name__ == "__main__":
    folder, batch, steps, in_process, state, port, world, rank = map(json.loads, sys.argv[1:])
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=world, rank=rank
    )
    stream = Stream(
        open_folder(folder), batch_pairs=batch, seed=1, image_px=4, workers=1,
        process=in_process, cache_bytes=0, rank=rank, world=world, state=state,
    )
    for step, found in zip(range(steps), stream):
        seen = [torch.empty(batch // world, dtype=torch.int64) for _ in range(world)]
        dist.all_gather(seen, torch.from_numpy(found.positions))
        sums = found.images.long().sum().reshape(1)
        dist.all_reduce(sums)
        uids = [int(uid, 16) for uid in found.uids]
        names = [torch.empty(batch // world, dtype=torch.int64) for _ in range(world)]
        dist.all_gather(names, torch.tensor(uids))
        print(json.dumps([
            torch.cat(seen).tolist(), torch.cat(names).tolist(), int(sums), stream.state()
        ]), flush=True)
    stream.close()
    dist.destroy_process_group()
"""


def together(
    folder: Folder, world: int, steps: int, batch: int, process: bool, state: dict | None
) -> list[list]:
    """Run the ranks of a world, and return what each step saw; all ranks saw the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = str(folder.shards[0].parent)
    words = [json.dumps(word) for word in (path, batch, steps, process, state, port, world)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, *words, str(rank)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [rank.communicate(timeout=120)[0].splitlines() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * world
    assert len({tuple(lines) for lines in said}) == 1
    assert len(said[0]) == steps
    return [json.loads(line) for line in said[0]]


@pytest.mark.parametrize("process", [False, True])
def test_two_ranks_see_what_one_sees(tmp_path: Path, process: bool) -> None:
    """Over an epoch and a resume by one process with other batches, nothing is lost or twice."""
    folder = write_pairs(tmp_path, PAIRS)
    first = together(folder, 2, 9, BATCH, process, None)
    second = together(folder, 1, 3, 4, process, first[-1][3])
    third = together(folder, 2, 3, 12, process, second[-1][3])
    steps = first + second + third
    assert [p for positions, *_ in steps for p in positions] == list(range(9 * 8 + 12 + 36))
    whole = Stream(folder, batch_pairs=1, seed=1, image_px=4, process=False)
    reference = [(int(batch.uids[0], 16), int(batch.images.sum())) for batch, _ in
                 zip(whole, range(9 * 8 + 12 + 36), strict=False)]  # fmt: skip
    assert [uid for _, uids, *_ in steps for uid in uids] == [uid for uid, _ in reference]
    at = 0
    for positions, _, pixels, _ in steps:
        assert pixels == sum(value for _, value in reference[at : at + len(positions)])
        at += len(positions)
