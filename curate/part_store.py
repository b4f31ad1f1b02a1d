"""What a leg measured on a part: column files and pictures, committed by ``done.json``."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.arrow_file import read_arrow, write_arrow

from .shard_writer import PairToWrite, write_shard
from .stage import Stage


@dataclass(frozen=True)
class PartStore:
    """One leg's measurements of one part, under ``OUT/parts/<leg>/<part>[+k]``.

    Later runs of an edited recipe add supplements (+1, +2, ...) for the rows that the earlier
    ones did not reach; a row that was measured is never measured again.
    """

    leg: Path
    part: int
    retry_round: int | None = None
    """Where set, columns measured in a later round do not count."""

    def commits(self) -> list[Path]:
        """Return the part's committed folders, oldest first."""
        found: list[Path] = []
        while (folder := self._folder(len(found))).joinpath("done.json").is_file():
            found.append(folder)
        return found

    def _folder(self, supplement: int) -> Path:
        return self.leg / (f"{self.part:05d}" + (f"+{supplement}" if supplement else ""))

    def rounds(self, stage: Stage, rows: int) -> np.ndarray:
        """Return int [rows]: the retry round in which this stage measured a row last, else -1."""
        last = np.full(rows, -1, np.int64)
        for file in self._files(stage):
            done = json.loads((file.parent / "done.json").read_text())
            last[read_arrow(file)["row"].to_numpy()] = done.get("round", 0)
        return last

    def columns(self, stage: Stage, rows: int, names: Iterable[str]) -> dict[str, pa.Array]:
        """Return measured columns over all the part's rows; null where not measured."""
        wanted = [n for n in names if n in stage.writes and n != "image"]
        tables = [read_arrow(file) for file in self._files(stage)]
        return {name: _scatter(tables, name, stage.writes[name], rows) for name in wanted}

    def _files(self, stage: Stage) -> list[Path]:
        return [
            folder / name
            for folder in self.commits()
            for name in self._counting(json.loads((folder / "done.json").read_text()))
            if name.startswith(f"{stem(stage)}.")
        ]

    def _counting(self, done: Mapping[str, Any]) -> Iterable[str]:
        later = self.retry_round is not None and done.get("round", 0) > self.retry_round
        return () if later else done["files"]

    def pictures(self) -> list[tuple[Path, np.ndarray]]:
        """Return every picture tar that is still on disk, with the part's rows in its order."""
        found = []
        for folder in self.commits():
            done = json.loads((folder / "done.json").read_text())
            tar = folder / done["pictures"] if done["pictures"] else None
            if tar is not None and tar.is_file():
                rows = read_arrow(folder / done["picture_rows"])["row"].to_numpy()
                found.append((tar, rows))
        return found

    def free(self) -> None:
        """Delete the staged pictures; the columns stay."""
        for tar, _ in self.pictures():
            for suffix in (".parquet", ".index", ".tar"):  # while the tar is there, it is not free
                tar.with_suffix(suffix).unlink(missing_ok=True)

    def attempt(self) -> "Attempt":
        """Begin a commit: files get a suffix of their own, so that attempts never collide."""
        folder = self._folder(len(self.commits()))
        folder.mkdir(parents=True, exist_ok=True)
        return Attempt(folder, secrets.token_hex(4))


@dataclass(frozen=True)
class Attempt:
    """Files being written for one commit; ``commit`` makes them count, all or none."""

    folder: Path
    suffix: str

    @property
    def scratch(self) -> Path:
        """Return a folder for files that are of no use after this try."""
        return self.folder / f"scratch.{self.suffix}"

    def write_columns(self, what: str, rows: np.ndarray, columns: Mapping[str, Any]) -> str:
        """Write the measured columns of ``rows`` (indices into the part) and return the file."""
        name = f"{what}.{self.suffix}.arrow"
        table = pa.table({"row": pa.array(rows, pa.int32()), **columns})
        write_arrow(self.folder / name, table)
        return name

    def write_pictures(self, pairs: Iterable[PairToWrite], schema: pa.Schema) -> str:
        """Write the tar of pictures and return its name, which tells its content.

        A manifest may name it, and equal builds have equal manifests.
        """
        tar = self.folder / f"pairs-{self.suffix}.tar"
        final = self.folder / f"pairs-{write_shard(tar, pairs, schema).sha256[:16]}.tar"
        for suffix in (".parquet", ".index", ".tar"):
            tar.with_suffix(suffix).replace(final.with_suffix(suffix))
        return final.name

    def write_timings(
        self, pairs: int, seconds: Mapping[str, float], phases: Mapping[str, float]
    ) -> None:
        """Write how long it took to measure so many pairs, for the report."""
        timings = {"pairs": pairs, "seconds": dict(seconds), "phases": dict(phases)}
        (self.folder / "timings.json").write_text(json.dumps(timings))

    def commit(self, files: Sequence[str], **facts: Any) -> bool:
        """Create ``done.json`` once, last; False where another attempt was first, which counts."""
        sums = {
            name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest() for name in files
        }
        done = {"pictures": None, "picture_rows": None, **facts, "files": sums}
        temporary = self.folder / f"done.{self.suffix}.tmp"
        temporary.write_text(json.dumps(done, sort_keys=True, indent=1))
        try:
            os.link(temporary, self.folder / "done.json")  # fails where it exists: create once
        except FileExistsError:
            return False  # what this attempt wrote is swept by the next build
        finally:
            temporary.unlink()
        return True


def stem(stage: Stage) -> str:
    """Return what the files of a stage begin with: its name, and what it measures."""
    own = json.dumps([stage.version, stage.measuring()], sort_keys=True, default=str)
    return f"{stage.name}-{hashlib.blake2b(own.encode(), digest_size=4).hexdigest()}"


def sweep(parts: Path) -> None:
    """Delete what no ``done.json`` names: the leavings of killed attempts."""
    for leg in parts.glob("*"):
        for folder in leg.iterdir() if leg.is_dir() else ():
            if not folder.is_dir():
                continue
            done = folder / "done.json"
            if not done.is_file():
                shutil.rmtree(folder)
                continue
            named = _named(json.loads(done.read_text()))
            for file in folder.iterdir():
                if file.is_dir():
                    shutil.rmtree(file)  # the places of a try that was killed
                elif file.name not in named:
                    file.unlink()


def _named(done: Mapping[str, Any]) -> set[str]:
    named = {"done.json", "timings.json", *done["files"]}
    if done["pictures"]:
        stem = Path(done["pictures"]).stem
        named |= {f"{stem}.tar", f"{stem}.index", f"{stem}.parquet"}
    return named


def _scatter(tables: Sequence[pa.Table], name: str, kind: pa.DataType, rows: int) -> pa.Array:
    """Lay measured values over the part's rows."""
    if not tables:
        return pa.nulls(rows, kind)
    where = np.full(rows, -1, np.int64)
    start = 0
    for table in tables:
        where[table["row"].to_numpy()] = np.arange(start, start + len(table))
        start += len(table)
    values = pa.concat_tables(t.select([name]) for t in tables)[name].combine_chunks()
    return pc.take(values, pa.array(where, mask=where < 0)).cast(kind)
