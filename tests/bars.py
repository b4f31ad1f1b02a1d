"""A folder of 64 pairs that are learnt in seconds, and what to read of a run on it."""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from breadth.curate.shard_writer import write_folder
from breadth.train.recipe import TrainRecipe

COLOURS = {"red": (40, 40, 220), "green": (40, 200, 40), "blue": (220, 60, 40), "grey": (128,) * 3}
JOINT = {"InfoNCE": 1, "Pixels": 1, "Tokens": 0.5}


def write_bars(folder: Path) -> Path:
    """Write a coloured bar at one of 16 heights, with its caption."""
    pairs = []
    for number in range(64):
        colour, height = list(COLOURS)[number % 4], number // 4
        picture = np.full((32, 32, 3), 250, np.uint8)
        picture[2 * height : 2 * height + 2] = COLOURS[colour]
        caption = f"a {colour} bar on line {'abcdefghijklmnop'[height]}"
        uid = blake2b(caption.encode(), digest_size=16).hexdigest()
        encoded = cv2.imencode(".png", picture)[1].tobytes()
        pairs.append(({"uid": uid, "caption": caption}, encoded, "png"))
    write_folder(folder, pairs, name="bars", pairs_per_shard=40)
    return folder


def make_recipe(terms: dict[str, Any] = JOINT, **options: Any) -> TrainRecipe:
    """Return a recipe of a few quick steps."""
    defaults = {
        "steps": 6,
        "patch_px": 8,
        "batch_pairs": 32,
        "vocabulary": 300,
        "log_steps": 1,
        "checkpoint_steps": 4,
        "warmup_steps": 2,
        "lr": 3e-3,
    }
    return TrainRecipe(**{"name": "t", "terms": terms, **defaults, **options})


def curve(out: Path) -> list[dict[str, Any]]:
    """Return a run's metrics without its speed."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("peak", None)
        assert all(row.pop(speed) > 0 for speed in ("samples_per_s", "tflop_per_s", "mfu"))
    return rows
