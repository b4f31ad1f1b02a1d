"""Read stretches of far shards by ranged requests, through a cache on disk."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from threading import Lock

import numpy as np

from .errors import OutputError, ShardError
from .remote import REQUESTS, Remote, RemoteShard
from .shard_cache import BLOCK, PartialShard, ShardCache, extents
from .storage import View
from .whole_file import replaced

GAP = 1 << 16  # at 500 MB/s this passes in a hundredth of a request's latency
LONGEST = 8 << 20
WAVE_SHARDS = 64  # open at once, of the usual limit of 1024 open files

Stretch = tuple[int, int]


class RemoteShards:
    """Far shards; what is near each other in a shard is fetched together, and kept on disk."""

    is_remote = True

    def __init__(
        self, remote: Remote, shards: Sequence[RemoteShard], cache: ShardCache, sidecars: Path
    ) -> None:
        self._remote, self._shards = remote, shards
        self._cache, self._sidecars = cache, sidecars
        self._grain = BLOCK
        self._absent: set[Path] = set()
        self._checking, self._is_checked = Lock(), False

    @property
    def bytes(self) -> int:
        """How large all shards together are."""
        return sum(shard.bytes for shard in self._shards)

    @cached_property
    def _requests(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(REQUESTS, "ranges")

    def fetch_whole(self) -> None:
        """From now on fetch all of a shard around what is asked for, in the longest extents."""
        self._grain = LONGEST

    def views(
        self,
        shards: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        spans: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> list[View]:
        """Return stretches, fetching what is not in the cache with ``spans`` around it.

        What cannot be fetched is an error in its places. Raises OutputError where the cache cannot
        be written. Cost: a request for each extent, 64 at once.
        """
        stops = starts + lengths
        stretches = list(zip(starts.tolist(), stops.tolist(), strict=True))
        around = list(zip(*(end.tolist() for end in spans), strict=True)) if spans else stretches
        places: dict[int, list[int]] = {}
        for place, number in enumerate(shards.tolist()):
            places.setdefault(number, []).append(place)
        found: list[View] = [memoryview(b"")] * len(stretches)
        numbers = list(places)
        for first in range(0, len(numbers), WAVE_SHARDS):
            wave = {number: places[number] for number in numbers[first : first + WAVE_SHARDS]}
            try:
                self._read(wave, stretches, around, found)
            except OSError as error:
                raise OutputError(f"the cache cannot be written ({error}): give another") from error
        return found

    def beside(self, numbers: Sequence[int], suffix: str) -> list[Path | None]:
        """Return local copies of the files beside shards that have another suffix, None if none."""
        return list(self._requests.map(lambda number: self._sidecar(number, suffix), numbers))

    def _sidecar(self, number: int, suffix: str) -> Path | None:
        shard = self._shards[number]
        path = self._sidecars / f"{_key(shard)}{suffix}"
        if path.is_file():
            return path
        if path in self._absent:
            return None
        try:
            body = self._remote.get(shard.url.removesuffix(".tar") + suffix)
        except FileNotFoundError:
            self._absent.add(path)
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            file.write(body)
        return path

    def _read(
        self,
        wave: dict[int, list[int]],
        stretches: list[Stretch],
        around: list[Stretch],
        found: list[View],
    ) -> None:
        """Fill in the places of a few shards."""
        with ExitStack() as stack:
            here = {number: self._open(stack, number) for number in wave}
            jobs = []
            for number, places in wave.items():
                wanted = [part for p in places for part in (stretches[p], around[p])]
                for extent in self._missing(number, here[number], wanted):
                    job = self._requests.submit(self._fetch, number, here[number], extent)
                    jobs.append((number, extent, job))
            failed: dict[int, list[tuple[Stretch, ShardError]]] = {}
            for number, extent, job in jobs:
                error = job.result()
                if error:
                    failed.setdefault(number, []).append((extent, error))
            for number, places in wave.items():
                for p in places:
                    found[p] = _read(here[number], stretches[p], failed.get(number, ()))

    def _open(self, stack: ExitStack, number: int) -> PartialShard:
        shard = self._shards[number]
        return stack.enter_context(closing(self._cache.open(_key(shard), shard.bytes)))

    def _missing(self, number: int, here: PartialShard, wanted: Sequence[Stretch]) -> list[Stretch]:
        absent = [
            (a, b) for a, b in wanted if b <= self._shards[number].bytes and not here.has(a, b)
        ]
        return extents(
            absent,
            size=self._shards[number].bytes,
            grain=self._grain,
            gap=GAP,
            longest=LONGEST,
        )

    def _fetch(self, number: int, here: PartialShard, extent: Stretch) -> ShardError | None:
        """Bring an extent here, unless another process does; returns why that was not possible."""
        shard = self._shards[number]
        with here.claimed(*extent):
            if here.has(*extent):
                return None
            try:
                self._check_once(shard.url)
                body = self._remote.range(shard.url, *extent)
            except FileNotFoundError:
                return ShardError(f"shard {shard.url} is missing: put it back or build it again")
            except ShardError as error:
                return error
            here.write(extent[0], body)
        self._cache.count(len(body))
        return None

    def _check_once(self, url: str) -> None:
        with self._checking:
            if not self._is_checked:
                self._remote.check_ranges(url)
                self._is_checked = True


def _key(shard: RemoteShard) -> str:
    return blake2b("\n".join(map(str, shard)).encode(), digest_size=16).hexdigest()


def _read(
    here: PartialShard, stretch: Stretch, failed: Sequence[tuple[Stretch, ShardError]]
) -> View:
    start, stop = stretch
    if start == stop:
        return memoryview(b"")
    if here.has(start, stop):
        return memoryview(here.read(start, stop))
    reasons = (error for (first, last), error in failed if first < stop and start < last)
    return next(reasons, ShardError(f"a shard ends before byte {stop}: build or fetch it again"))
