"""The loaders that are compared, the environment of each, and how one is run on a task."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .peer_environment import install
from .process_tree import Usage, run
from .readers.task import Measured, Task

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "litdata": (
        "litdata==0.2.76",
        "boto3==1.44.5",
        "botocore==1.44.5",
        "jmespath",
        "lightning-utilities==0.15.3",
        "obstore==0.12.1",
        "s3transfer",
        "tifffile==2026.3.3",
    ),
    "mosaicml-streaming": (
        "mosaicml-streaming==0.13.0",
        "Brotli==1.2.1",
        "catalogue==2.0.10",
        "cramjam==2.14.0",
        "huggingface-hub==0.36.2",
        "python-snappy==0.7.3",
        "regex",
        "tokenizers==0.22.2",
        "transformers==4.57.6",
        "xxhash",
        "zstd==1.5.7.2",
    ),
    "spdl": ("spdl==0.8.0", "spdl-core==0.8.0", "spdl-io==0.8.0"),
}
"""What each peer needs beside this environment's packages, which it shares: the same torch, the
same decoders. Their requirement of torchvision is not met: its usual build replaces torch by one
for CUDA, and nothing that is measured here uses it."""

STAND_INS: Mapping[str, Mapping[str, str]] = {
    "mosaicml-streaming": {
        "torchvision/__init__.py": "",
        "torchvision/datasets.py": "VisionDataset = object\n",
        "torchvision/transforms/__init__.py": "",
        "torchvision/transforms/functional.py": "to_tensor = None\n",
    }
}
"""What is imported without being used."""


@dataclass(frozen=True)
class Loader:
    """One loader as it is set up; ``module`` is its file in ``readers``."""

    name: str
    module: str
    package: str = ""  # of its own environment, else it is in this one
    converts: bool = False  # it reads its own format only
    decoder: str = "simplejpeg"

    def python(self, peers: Path) -> Path:
        """Return the interpreter that has it."""
        return peers / self.package / "bin/python" if self.package else Path(sys.executable)

    def is_there(self, peers: Path) -> bool:
        """Say whether it can be run."""
        return self.python(peers).is_file()

    def measure(self, case: str, task: Task, peers: Path, folder: Path) -> tuple[Measured, Usage]:
        """Run it on a task in a process of its own."""
        request, result = folder / "task.json", folder / "measured.json"
        replace(task, decoder=self.decoder).write(request)
        result.unlink(missing_ok=True)
        usage = self._run(case, request, result, peers, folder)
        return Measured(**json.loads(result.read_text())), usage

    def convert(self, task: Task, peers: Path, folder: Path) -> None:
        """Have it write a folder in its own format."""
        request = folder / "task.json"
        task.write(request)
        self._run("convert", request, folder / "none.json", peers, folder)

    def _run(self, case: str, request: Path, result: Path, peers: Path, folder: Path) -> Usage:
        command = [str(self.python(peers)), "-m", "benchmarks.readers.run", self.module, case]
        here = Path(__file__).parent.parent
        private = folder / "home"  # caches and locks of the peers
        private.mkdir(exist_ok=True)
        environment = {
            "PYTHONPATH": str(here),
            "HOME": str(private),
            "TMPDIR": str(private),
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "PYTHONDONTWRITEBYTECODE": "",  # installed packages are compiled, sources must be, too
        }
        log = folder / f"{self.module}.log"
        return run([*command, str(request), str(result)], environment, log)


OURS = Loader("Breadth", "ours")
IN_MEMORY = Loader("decoding from memory", "memory")
PLAIN_READ = Loader("reading alone", "memory")
WEB = Loader("webdataset", "web")
WEB_PILLOW = Loader("webdataset, Pillow", "web", decoder="pillow")
WEB_SIMPLEJPEG = Loader("webdataset, simplejpeg", "web")
LITDATA = Loader("litdata, simplejpeg", "lit", "litdata", converts=True)
MOSAIC = Loader("mosaicml-streaming, simplejpeg", "mosaic", "mosaicml-streaming", converts=True)
SPDL_RAW = Loader("spdl", "pipelines", "spdl")
SPDL = Loader("spdl, simplejpeg", "pipelines", "spdl")


def set_up(peers: Path) -> list[str]:
    """Make an environment for each peer, and return the names of those that cannot be installed.

    Cost: a minute, and 220 MB.
    """
    failed = []
    for package in PACKAGES:
        try:
            _install(package, peers)
        except RuntimeError:  # its log says why
            shutil.rmtree(peers / package)
            failed.append(package)
    return failed


def _install(package: str, peers: Path) -> None:
    install(peers / package, PACKAGES[package])
    packages = next((peers / package).glob("lib/python*/site-packages"))
    for name, text in STAND_INS.get(package, {}).items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text)
