"""About 950 real captioned pictures in many languages, from Debian's ``tuxpaint-stamps-default``.

The package is fetched and unpacked with apt and dpkg into a cache folder, without root. Each stamp
is a PNG or SVG with a text file: the first line is English, the others ``fr.utf8=...`` and so on.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from breadth.loaders.errors import Refused

PACKAGE = "tuxpaint-stamps-default"
CACHE = Path.home() / ".cache" / "breadth"
# English of another country is English, and dialects written alike are not told apart.
_LANGUAGES = ("de", "fr", "es", "it", "nl", "pl", "ru", "uk", "el", "cs", "sv", "hu", "fi")


@dataclass(frozen=True)
class Stamp:
    """A picture file with its English caption and those in other languages."""

    file: Path
    caption: str
    foreign: dict[str, str]


def fetch_stamps(cache: Path = CACHE) -> Path:
    """Return the folder of stamps, fetched into ``cache`` (161 MB) unless it is there.

    Raises Refused where apt or dpkg are missing or the package cannot be had.
    """
    unpacked = cache / PACKAGE
    if not unpacked.is_dir():
        for program in ("apt-get", "dpkg"):
            if shutil.which(program) is None:
                raise Refused(
                    f"--source stamps needs {program} (Debian or Ubuntu): "
                    "use --source world, which needs nothing"
                )
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _unpack(Path(scratch)).replace(unpacked)
    return unpacked / "usr" / "share" / "tuxpaint" / "stamps"


def _unpack(scratch: Path) -> Path:
    """Fetch the package with lists of our own, so that neither root nor old lists matter."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    places = {"Dir::State::Lists": scratch / "lists", "Dir::Cache": scratch / "cache"}
    options = [f"-o{name}={place}" for name, place in places.items()]
    apt = ["apt-get", "-qq", "-oDebug::NoLocking=1", *options]
    _call([*apt, "update"], scratch)
    _call([*apt, "download", PACKAGE], scratch)
    archive = next(scratch.glob("*.deb"))
    _call(["dpkg", "-x", archive.name, "unpacked"], scratch)
    return scratch / "unpacked"


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise Refused(
            f"{command[0]} {command[-1]} failed ({said[0] if said else 'no reason given'}): check "
            "the network and apt's sources, then run the same command again"
        )


def read_stamps(folder: Path) -> list[Stamp]:
    """Return every stamp with a caption, PNG before SVG where there are both, in order of name."""
    stamps = []
    for described in sorted(folder.rglob("*.txt")):
        pictures = [described.with_suffix(s) for s in (".png", ".svg")]
        first, *others = described.read_text("utf-8").splitlines() or [""]
        file = next((p for p in pictures if p.is_file()), None)
        if file and first.strip():
            stamps.append(Stamp(file, first.strip(), _translations(others)))
    if not stamps:
        raise Refused(f"{folder} holds no stamps: delete the cache folder and try again")
    return stamps


def _translations(lines: Sequence[str]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines)
    return {
        name.removesuffix(".utf8"): text.strip()
        for name, _, text in pairs
        if name.removesuffix(".utf8") in _LANGUAGES and len(text.split()) > 1
    }


def split_stamps(stamps: Sequence[Stamp], seed: int, part: float = 0.1) -> tuple[list[Stamp], ...]:
    """Return stamps for the pool and held-out ones, which are PNG files of one tenth."""
    rasters = [i for i, stamp in enumerate(stamps) if stamp.file.suffix == ".png"]
    rng = np.random.default_rng([seed, 5])
    held = set(rng.permutation(rasters)[: round(part * len(stamps))].tolist())
    return (
        [stamp for i, stamp in enumerate(stamps) if i not in held],
        [stamp for i, stamp in enumerate(stamps) if i in held],
    )
