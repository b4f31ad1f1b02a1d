"""Find the shards of a far folder, and bring its manifest, indexes and keep list here."""

import os
from pathlib import Path

import pyarrow as pa

from .errors import PoolError, ShardError
from .index import made_for, read_index_file
from .manifest import MANIFEST_NAME, Manifest
from .opened import Opened
from .remote import Remote, RemoteShard, is_url, read_beside
from .remote_shards import RemoteShards
from .shard_cache import ShardCache
from .whole_file import replaced

CACHE_BYTES = 16 << 30


def is_index_of_urls(folder: Path) -> bool:
    """Say whether a local folder's manifest names URLs: ``breadth index URL --out`` wrote it."""
    if not (folder / MANIFEST_NAME).is_file():
        return False
    return any(is_url(shard.name) for shard in Manifest.read(folder).shards)


def open_remote(
    place: str, index_dir: Path | None, cache_dir: Path | None, cache_bytes: int
) -> Opened:
    """Open a URL, or a local folder whose manifest names URLs.

    Raises PoolError where there is no shard or no index, ShardError for an index of another tar.
    Cost: a request for the manifest, and once for every index.
    """
    cache_dir = cache_dir or _default_cache_dir()
    if is_url(place):
        place = place.rstrip("/")
        remote = Remote(place)
        manifest = _manifest(place)
        shards = _shards(remote, place, manifest)
    else:
        index_dir = index_dir or Path(place)
        manifest = Manifest.read(Path(place))
        remote = Remote(manifest.shards[0].name)
        shards = [RemoteShard(shard.name, shard.bytes, shard.sha256) for shard in manifest.shards]
    _check_one_kind(place, shards)
    cache = ShardCache(cache_dir / "shards", cache_bytes)
    storage = RemoteShards(remote, shards, cache, cache_dir / "sidecars")
    indexes = _indexes(place, storage, shards, index_dir)
    names = [Path(shard.url.rpartition("/")[2]) for shard in shards]
    keep = _keep(remote, place, manifest, cache_dir / "sidecars")
    return Opened(manifest, names, indexes, keep, storage)


def _default_cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "breadth"


def _manifest(url: str) -> Manifest | None:
    if url.endswith(".tar"):
        return None
    text = read_beside(url, MANIFEST_NAME)
    return None if text is None else Manifest.parse(text, f"{url}/{MANIFEST_NAME}")


def _shards(remote: Remote, url: str, manifest: Manifest | None) -> list[RemoteShard]:
    """Return the shards of a URL in order: its manifest's, else every tar."""
    if manifest is None:
        return [remote.describe(url)] if url.endswith(".tar") else far_tars(remote, url)
    if not manifest.shards:
        raise PoolError(f"{url} holds no pair, its manifest says: choose another folder")
    inner = f"{url}/shards"
    try:
        remote.describe(f"{inner}/{manifest.shards[0].name}")
    except FileNotFoundError:
        inner = url
    return [
        RemoteShard(s.name if is_url(s.name) else f"{inner}/{s.name}", s.bytes, s.sha256)
        for s in manifest.shards
    ]


def far_tars(remote: Remote, url: str) -> list[RemoteShard]:
    """Return the tars in ``shards/`` of a URL, else in it, in order; raises PoolError for none."""
    for folder in (f"{url}/shards", url):
        try:
            shards = remote.find(folder, ".tar")
        except FileNotFoundError:
            continue
        if shards:
            return shards
    raise PoolError(f"{url} holds no .tar shard: give a folder of WebDataset tars")


def _check_one_kind(place: str, shards: list[RemoteShard]) -> None:
    protocols = {shard.url.partition("://")[0] if is_url(shard.url) else "" for shard in shards}
    if len(protocols) > 1 or "" in protocols:
        raise PoolError(f"{place} names shards in places of several kinds: index each alone")


def _indexes(
    place: str, storage: RemoteShards, shards: list[RemoteShard], index_dir: Path | None
) -> list[pa.Table]:
    if index_dir:
        stems = [shard.url.rpartition("/")[2].removesuffix(".tar") for shard in shards]
        paths = [index_dir / f"{stem}.index" for stem in stems]
        files = [path if path.is_file() else None for path in paths]
    else:
        files = storage.beside(range(len(shards)), ".index")
    tables = []
    for shard, file in zip(shards, files, strict=True):
        table = read_index_file(file) if file else None
        if table is None:
            raise PoolError(
                f"shard {shard.url} has no index: run `breadth index {_folder(place, shard)} --out "
                "INDEXDIR` and open INDEXDIR"
            )
        if made_for(table) != shard.bytes:
            raise ShardError(
                f"shard {shard.url} has {shard.bytes} bytes and its index is for one of "
                f"{made_for(table)}: put the right file back or index it again"
            )
        tables.append(table)
    return tables


def _folder(place: str, shard: RemoteShard) -> str:
    return place if is_url(place) else shard.url.rpartition("/")[0]


def _keep(remote: Remote, place: str, manifest: Manifest | None, sidecars: Path) -> pa.Array | None:
    """Return the uids of a manifest's keep list."""
    if manifest is None or not manifest.keep_list:
        return None
    from .subset import read_uids  # slow to import

    if not is_url(place):
        return read_uids(Path(place) / manifest.keep_list)
    path = sidecars / f"{manifest.digest}{Path(manifest.keep_list).suffix}"
    if not path.is_file():
        try:
            body = remote.get(f"{place}/{manifest.keep_list}")
        except FileNotFoundError as error:
            raise PoolError(f"{place} has no {manifest.keep_list}: build it again") from error
        with replaced(path) as file:
            file.write(body)
    return read_uids(path)
