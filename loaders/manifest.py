"""Say what a folder of shards holds; written last, so a folder with a manifest is complete."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from .errors import PoolError, ShardError
from .whole_file import replaced

MANIFEST_NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """One tar: its name (or path, where it is only referenced), size and hash."""

    name: str
    pairs: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder holds and how it came to be; equal builds have equal manifests.

    ``funnel`` has one entry per stage: stage, kind, in, kept, dropped (reason -> pairs). Where
    ``keep_list`` is set it names a parquet of uids, and only those pairs of the shards count.
    ``download`` is what whoever fetched the pictures answers for: the engine, and which of its
    manners towards other people's servers were on.
    """

    name: str
    recipe: str = ""
    seed: int = 0
    fingerprint: str = ""
    pool: Mapping[str, Any] = field(default_factory=dict)
    parts: int = 0
    pairs: int = 0
    funnel: tuple[Mapping[str, Any], ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    keep_list: str = ""
    download: Mapping[str, Any] = field(default_factory=dict)
    embedders: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """The sha256 of the manifest's canonical text."""
        return sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        """Return the manifest as JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n"

    def write(self, folder: Path) -> None:
        """Write ``folder/manifest.json``; do it last."""
        with replaced(folder / MANIFEST_NAME) as file:
            file.write(self.text().encode())

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read ``folder/manifest.json``; raises PoolError where there is none of this format."""
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise PoolError(f"{folder} has no {MANIFEST_NAME}: give a finished build's folder")
        return cls.parse(path.read_bytes(), str(path))

    @classmethod
    def parse(cls, text: bytes, place: str) -> "Manifest":
        """Return the manifest that a text is, found at ``place``; raises as ``read`` does."""
        try:
            stored = json.loads(text)
            known = {f.name for f in fields(cls)}
            values = {k: v for k, v in stored.items() if k in known}
            shards = tuple(Shard(**shard) for shard in stored.get("shards", ()))
            funnel = tuple(stored.get("funnel", ()))
            manifest = cls(**values | {"shards": shards, "funnel": funnel})
        except (ValueError, TypeError, AttributeError) as error:
            raise PoolError(f"{place} is damaged: build the folder again") from error
        if manifest.format != FORMAT:
            raise PoolError(f"{place} has format {manifest.format}, this Breadth reads {FORMAT}")
        return manifest

    def locate(self, folder: Path, shard: Shard) -> Path:
        """Return where a shard of this manifest lies: in ``shards/``, beside it, or elsewhere.

        Raises ShardError where it is missing or its size is not the manifest's.
        """
        places = [folder / "shards" / shard.name, folder / shard.name]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise ShardError(
                f"shard {shard.name} of {folder} is missing: put it back or build again"
            )
        if path.stat().st_size != shard.bytes:
            raise ShardError(
                f"shard {path} has {path.stat().st_size} bytes and its manifest says "
                f"{shard.bytes}: put the right file back or build again"
            )
        return path

    def verify(self, folder: Path) -> None:
        """Compare every shard with its sha256; raises ShardError naming the first that differs.

        Cost: reads every shard.
        """
        for shard in self.shards:
            with self.locate(folder, shard).open("rb") as file:
                found = file_digest(file, "sha256").hexdigest()
            if found != shard.sha256:
                raise ShardError(
                    f"shard {shard.name} has sha256 {found} and its manifest says "
                    f"{shard.sha256}: put the right file back or build again"
                )


def find_shards(folder: Path) -> list[Path]:
    """Return the shards of a folder in order: its manifest's, those in ``shards/``, or every tar.

    Raises PoolError where the folder is missing, holds no tar or is an unfinished build.
    """
    if folder.is_file() and folder.suffix == ".tar":
        return [folder]
    if not folder.is_dir():
        raise PoolError(f"there is no folder {folder}: check the path")
    if (folder / MANIFEST_NAME).is_file():
        manifest = Manifest.read(folder)
        return [manifest.locate(folder, shard) for shard in manifest.shards]
    if (folder / "parts").is_dir():
        raise PoolError(f"the build in {folder} is not finished: run the same build command again")
    inner = folder / "shards"
    shards = sorted((inner if inner.is_dir() else folder).glob("*.tar"))
    if not shards:
        raise PoolError(f"{folder} holds no .tar shard: give a folder of WebDataset tars")
    return shards
