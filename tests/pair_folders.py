"""Small folders of pairs for the loaders' tests: noise pictures, numbered captions and uids."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from breadth.curate.shard_writer import write_folder
from breadth.loaders.folder import Folder, open_folder


def write_pairs(path: Path, pairs: int, first: int = 0, pairs_per_shard: int = 10) -> Folder:
    """Write pictures of 4 x 4 noise, whose column ``level`` runs from 0 to 9 again and again."""
    numbers = range(first, first + pairs)
    table = pa.table(
        {
            "uid": [f"{(number * 37) % 1009:032x}" for number in numbers],
            "caption": [f"picture {number}" for number in numbers],
            "image": [noise(number) for number in numbers],
            "level": pa.array([number % 10 for number in numbers], pa.int32()),
        }
    )
    write_folder(path, table, name="noise", pairs_per_shard=pairs_per_shard)
    return open_folder(path)


def noise(seed: int, side: int = 4) -> bytes:
    """Encode noise, so that no two pictures are equal."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()
