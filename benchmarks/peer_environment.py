"""An environment for a peer whose packages do not go with ours; it shares all others.

``python -m benchmarks.peer_environment DIR`` makes the one of open_clip.
"""

import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import click

from .process_tree import run

OPEN_CLIP = (
    "open_clip_torch==3.3.0",
    "timm==1.0.31",
    "torchvision",
    "webdataset==0.2.86",  # later ones end a shard with a mark that its reader does not know
    "ftfy",
    "wcwidth",
    "regex",
)
"""torchvision's usual build is for CUDA: two of its operators have to be declared before any import
where torch is for CPUs (tests/open_clip_oracle.py does)."""


def install(home: Path, packages: Sequence[str]) -> None:
    """Make an environment with these packages and none that they ask for.

    Raises RuntimeError where one cannot be installed; the log beside the environment says why.
    """
    venv.create(home, clear=True)
    there = next(home.glob("lib/python*/site-packages"))
    shared = [entry for entry in sys.path if entry.endswith("site-packages")]
    (there / "shared.pth").write_text("\n".join(shared) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "install"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*pip, *options, *packages], {}, home.with_suffix(".log"))


@click.command()
@click.argument("home", type=click.Path(path_type=Path))
def main(home: Path) -> None:
    """Make open_clip's environment in HOME."""
    install(home.resolve(), OPEN_CLIP)


if __name__ == "__main__":
    main()
