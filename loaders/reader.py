"""Read the pairs of a batch, and keep what was decoded where it fits in memory."""

# B pairs, H = W = image_px, T tokens

from concurrent.futures import Executor, Future
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from .batch import Batch
from .decode import DecodeError, decode
from .errors import ShardError
from .folder import Folder
from .tokenize import PAD, encode


class Reading(NamedTuple):
    """A batch in the making: its pictures are complete when every future is done."""

    rows: np.ndarray
    positions: np.ndarray
    pictures: np.ndarray
    futures: list[Future]


class Reader:
    """Decodes and encodes pairs of a folder; ``rows`` are all that will be asked for, sorted."""

    def __init__(
        self,
        folder: Folder,
        rows: np.ndarray,
        *,
        image_px: int,
        tokenizer: Tokenizer | None,
        context_length: int,
        cache_bytes: int,
    ) -> None:
        self._folder, self._rows, self._px = folder, rows, image_px
        self._tokenizer, self._context_length = tokenizer, context_length
        pair_bytes = 3 * image_px**2 + 4 * context_length + 1
        self.keeps_all = len(rows) * pair_bytes <= cache_bytes
        kept = len(rows) if self.keeps_all else 0
        self._pictures = np.empty((kept, 3, image_px, image_px), np.uint8)
        self._is_kept = np.zeros(kept, bool)
        self._tokens = np.full((kept, context_length), PAD, np.int32)

    def start(
        self, pool: Executor, threads: int, rows: np.ndarray, positions: np.ndarray
    ) -> Reading:
        """Begin to read the pairs at ``rows`` in ``threads`` tasks of ``pool``."""
        pictures = np.empty((len(rows), 3, self._px, self._px), np.uint8)
        missing = np.arange(len(rows))
        if self.keeps_all:
            slots = np.searchsorted(self._rows, rows)
            known = self._is_kept[slots]
            pictures[known] = self._pictures[slots[known]]
            missing = missing[~known]
        futures = [
            pool.submit(self._fill, pictures, rows, places)
            for places in np.array_split(missing, threads)
            if len(places)
        ]
        return Reading(rows, positions, pictures, futures)

    def finish(self, reading: Reading) -> Batch:
        """Wait for a batch; raises ShardError naming a pair that cannot be decoded."""
        for future in reading.futures:
            future.result()
        return Batch(
            [self._folder.uids[row] for row in reading.rows],
            torch.from_numpy(reading.pictures),
            torch.from_numpy(self._encoded(reading.rows)),
            reading.positions,
        )

    def _fill(self, pictures: np.ndarray, rows: np.ndarray, places: np.ndarray) -> None:
        for place in places:
            pictures[place] = self._decoded(int(rows[place])).transpose(2, 0, 1)
        if self.keeps_all:
            slots = np.searchsorted(self._rows, rows[places])
            self._pictures[slots] = pictures[places]
            self._is_kept[slots] = True  # last: another thread copies what this says is there

    def _decoded(self, row: int) -> np.ndarray:
        try:
            return decode(self._folder.image(row), self._px)
        except DecodeError as error:
            raise ShardError(
                f"{self._folder.name_of(row)} cannot be decoded ({error}): "
                "leave its uid out with --subset, or build the folder again"
            ) from error

    def _encoded(self, rows: np.ndarray) -> np.ndarray:
        """Return tokens of the captions: int64 [B, T], or [B, 0] without a tokenizer."""
        if self._tokenizer is None or not self.keeps_all:
            return self._encode(rows)
        slots = np.searchsorted(self._rows, rows)
        new = np.flatnonzero(self._tokens[slots, 0] == PAD)  # what is encoded begins with BOS
        if len(new):
            self._tokens[slots[new]] = self._encode(rows[new])
        return self._tokens[slots].astype(np.int64)

    def _encode(self, rows: np.ndarray) -> np.ndarray:
        if self._tokenizer is None:
            return np.empty((len(rows), 0), np.int64)
        captions = [self._folder.caption(int(row)) for row in rows]
        return encode(self._tokenizer, captions, self._context_length)
