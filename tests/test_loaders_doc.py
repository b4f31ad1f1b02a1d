"""docs/loaders.md is true: its code runs, in order, and its names exist."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from breadth.curate.shard_writer import write_folder
from breadth.loaders.stream import Stream
from tests.pair_folders import noise

TEXT = (Path(__file__).parent.parent / "docs/loaders.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
PAIRS = 70


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go where there is a folder ``pairs`` with the columns that the page names, and a list."""
    uids = [f"{number:032x}" for number in range(PAIRS)]
    pairs = pa.table(
        {
            "uid": uids,
            "caption": [f"picture {number}" for number in range(PAIRS)],
            "image": [noise(number, 16) for number in range(PAIRS)],
            "clip_score": np.linspace(0.2, 0.5, PAIRS).astype(np.float32),
            "width": pa.array(np.arange(PAIRS) + 230, pa.int32()),
        }
    )
    write_folder(tmp_path / "pairs", pairs, name="pairs", pairs_per_shard=20)
    (tmp_path / "kept.txt").write_text("\n".join(uids[:40]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_runs(place: Path) -> None:
    """Every block runs after those before it, and what a reader would train on arrives."""
    seen: list[tuple] = []
    names = {
        "device": "cpu",
        "train": lambda *batch: seen.append(batch),
        "preprocess": np.asarray,
        "tokenize": str.split,
    }
    assert len(BLOCKS) == 7
    for block in BLOCKS:
        exec(compile(block, "docs/loaders.md", "exec"), names)
    shapes = [tuple(np.shape(images)) for images, _ in seen]
    assert shapes[:20] == [(16, 3, 224, 224)] * 19 + [(16, 16, 16, 3)]
    assert len(seen) == 10 + 9 + 9


@pytest.mark.parametrize(
    "name", ["subset", "weights", "shuffle", "caption_noise", "quarantine", "budget_ppm"]
)
def test_every_option_that_the_page_names_is_one(name: str) -> None:
    """An option under another name than the stream's would be found out by a reader only."""
    assert f"{name}=" in TEXT
    assert name in Stream.__init__.__annotations__
