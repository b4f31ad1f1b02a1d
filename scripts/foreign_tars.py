"""Find the tars of a folder, here or far away, and bring each to hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from breadth.loaders.errors import PoolError
from breadth.loaders.manifest import find_shards
from breadth.loaders.remote import Remote, is_url
from breadth.loaders.remote_folder import far_tars

PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class ForeignTars:
    """The tars of a folder in order: paths with their sizes, or URLs and where to ask for them."""

    name: str
    tars: tuple[tuple[str, int], ...]
    remote: Remote | None = None

    @contextmanager
    def at_hand(self, tar: str, size: int, scratch: Path) -> Iterator[Path]:
        """Give a tar as a file: itself, or a copy in ``scratch`` with the parquet beside it."""
        if self.remote is None:
            yield Path(tar)
            return
        with TemporaryDirectory(dir=scratch, prefix=".fetched.") as folder:
            copy = Path(folder) / tar.rsplit("/", 1)[1]
            with copy.open("wb") as file:
                for begin in range(0, size, PIECE_BYTES):
                    file.write(self.remote.range(tar, begin, min(size, begin + PIECE_BYTES)))
            try:
                parquet = self.remote.get(tar.removesuffix(".tar") + ".parquet")
                copy.with_suffix(".parquet").write_bytes(parquet)
            except FileNotFoundError:
                pass  # the columns are in the json members then
            yield copy


def find_tars(folder: str | Path) -> ForeignTars:
    """Return the tars of a folder or URL; raises PoolError where there is none."""
    if not is_url(folder):
        path = Path(folder)
        if path.is_file():
            raise PoolError(f"{path} is a file: give the folder that it is in")
        tars = tuple((str(tar), tar.stat().st_size) for tar in find_shards(path))
        return ForeignTars(path.resolve().name, tars)
    url = str(folder).rstrip("/")
    remote = Remote(url)
    found = far_tars(remote, url)
    remote.check_ranges(found[0].url)
    tars = tuple((tar.url, tar.bytes) for tar in found)
    return ForeignTars(url.rsplit("/", 1)[1], tars, remote)
