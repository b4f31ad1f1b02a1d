"""Ask a far place (any fsspec URL) for files, ranges and lists, again where a request fails."""

import time
from collections.abc import Callable
from pathlib import Path
from random import random
from typing import Any, NamedTuple, TypeVar

from .errors import ShardError

T = TypeVar("T")

REQUESTS = 64  # under way at once
TRIES = 6
FIRST_WAIT_S = 0.2  # doubles with each try: six seconds in all
TIMEOUT_S = 60
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "Last-Modified", "mtime")


class RemoteShard(NamedTuple):
    """A tar at a URL; ``version`` tells it from others of its name (a hash, etag or time)."""

    url: str
    bytes: int
    version: str


def is_url(path: object) -> bool:
    """Say whether a path is a URL, such as ``s3://bucket/set`` or ``https://host/set``."""
    return isinstance(path, str) and "://" in path


class Remote:
    """The place that a URL is in; threads may share it."""

    def __init__(self, url: str) -> None:
        import fsspec  # a fifth of what the loader process would import

        protocol = url.partition("://")[0]
        options: dict[str, Any] = {}
        if protocol in ("s3", "s3a"):  # it keeps ten connections unless told
            own = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
            options["config_kwargs"] = own | {"max_pool_connections": REQUESTS}
        try:
            self._files = fsspec.filesystem(protocol, **options)
        except (ImportError, ValueError) as error:
            raise ShardError(f"{url} cannot be opened: {error}") from error
        self._is_http = protocol in ("http", "https")
        self._deadline = {"timeout": TIMEOUT_S} if self._files.async_impl else {}

    def get(self, url: str) -> bytes:
        """Return a file; raises FileNotFoundError, and ShardError when all tries have failed."""
        return self._tried(url, lambda: self._files.cat_file(url, **self._deadline))

    def range(self, url: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of a file; raises as ``get`` does."""

        def whole() -> bytes:
            body = self._files.cat_file(url, start=start, end=stop, **self._deadline)
            if len(body) != stop - start:
                raise OSError(f"{len(body)} bytes came for [{start}, {stop})")
            return body

        return self._tried(url, whole)

    def find(self, url: str, suffix: str) -> list[RemoteShard]:
        """Return the files with a suffix in a folder, by name; raises as ``get`` does."""
        self._files.invalidate_cache()
        listed = self._tried(url, lambda: self._files.ls(url.rstrip("/") + "/", detail=True))
        names = sorted(e["name"] for e in listed if e["name"].endswith(suffix))
        entries = {entry["name"]: entry for entry in listed}
        return [self._described(name, entries[name]) for name in names]

    def describe(self, url: str) -> RemoteShard:
        """Return the size and version of a file; raises as ``get`` does."""
        return self._described(url, {})

    def check_ranges(self, url: str) -> None:
        """Raise ShardError for a web server that would send the whole file each time."""
        if self._is_http and not self._tried(url, lambda: self._has_ranges(url)):
            raise ShardError(
                f"the server of {url} does not serve ranges: use one that does, or copy the "
                "shards here"
            )

    def _has_ranges(self, url: str) -> bool:
        # A range is not asked for as elsewhere: a server without them would send all of the file.
        with self._files.open(url, cache_type="none", size=2) as file:
            file.seek(1)
            try:
                return len(file.read(1)) == 1
            except ValueError:
                return False

    def _described(self, name: str, entry: dict[str, Any]) -> RemoteShard:
        found = entry if entry.get("size") is not None else self._info(name)
        version = next((str(found[key]) for key in _VERSIONS if found.get(key)), "")
        return RemoteShard(
            str(self._files.unstrip_protocol(name)), int(found["size"] or 0), version
        )

    def _info(self, url: str) -> dict[str, Any]:
        return self._tried(url, lambda: self._files.info(url, **self._deadline))

    def _tried(self, url: str, request: Callable[[], T]) -> T:
        attempt = 0
        while True:
            try:
                return request()
            except FileNotFoundError:
                raise
            except Exception as error:  # each file system has errors of its own
                attempt += 1
                if attempt == TRIES or _is_final(error):
                    why = str(error).partition("\n")[0] or type(error).__name__
                    raise ShardError(f"{url} cannot be read: {why}") from error
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1) * (0.5 + random()))


def read_beside(place: str | Path, name: str) -> bytes | None:
    """Return a file of a folder, here or at a URL; None where it has none of that name.

    Raises ShardError where a far place does not answer.
    """
    if not is_url(place):
        path = Path(place) / name
        return path.read_bytes() if path.is_file() else None
    url = str(place).rstrip("/")
    try:
        return Remote(url).get(f"{url}/{name}")
    except FileNotFoundError:
        return None


def _is_final(error: Exception) -> bool:
    """Say whether trying again is of no use: it is not allowed, or not understood."""
    status = getattr(error, "status", 0)
    asks_to_wait = status in (408, 429)
    return isinstance(error, PermissionError) or (400 <= status < 500 and not asks_to_wait)
