"""Processes that train together as torchrun would start them, forked from one that has torch."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from breadth.train import loop, parallel, ranks, run_log  # noqa: F401  (imported once, then forked)

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.ranks_at_work"])
MOST_S = 150


def together(
    world: int, act: Callable[..., Any], folder: Path, *given: Any
) -> tuple[list[int | None], list[str]]:
    """Run ``act(*given)`` as every rank; return exit statuses and what each said on stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"rank{rank}.txt" for rank in range(world)]
    processes = [
        CONTEXT.Process(target=_rank, args=(act, rank, world, port, files[rank], given))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(MOST_S)
    statuses = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return statuses, [file.read_text() for file in files]


def _rank(
    act: Callable[..., Any], rank: int, world: int, port: int, file: Path, given: tuple[Any, ...]
) -> None:
    said = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {key: str(value) for key, value in own.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    act(*given)
