"""Read pairs into the memory of a batch, and keep what was decoded where it fits."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from .captions import Captions
from .crop import random_resized_crop
from .decode import DecodeError, decode_into
from .errors import ShardError
from .folder import Folder
from .quarantine import one_line
from .shared_batches import SharedBatches
from .stall import Stopwatch
from .storage import View
from .tokenize import encode

TASK_PAIRS = 16  # so that no thread is left long with the last task of a batch
AUGMENTS = ("center", "random_resized_crop")


class Fault(NamedTuple):
    """Why there is no pair in a place of a batch: the class of the error and its message."""

    place: int
    error: str
    message: str


class Answer(NamedTuple):
    """A slot's places that were asked for are filled, but for faults; ``spent``: Stopwatch sums."""

    slot: int
    faults: list[Fault]
    spent: dict[str, tuple[float, int]]


class Reader:
    """Fills batches from a folder: ``rows``, ``givers`` and ``positions`` say with what.

    ``kept_pairs`` is how many different rows will be asked for, where decoded ones shall be kept.
    """

    def __init__(
        self,
        folder: Folder,
        batches: SharedBatches,
        *,
        tokenizer: Tokenizer | None,
        augment: str,
        seed: int,
        check: bool,
        kept_pairs: int,
    ) -> None:
        self._folder, self._batches, self._tokenizer = folder, batches, tokenizer
        self._captions = Captions(folder)
        self._is_random, self._seed, self._check = augment != "center", seed, check
        px, length = batches.sizes.image_px, batches.sizes.context_length
        self._kept_images = np.empty((kept_pairs, px, px, 3), np.uint8)
        self._kept_tokens = np.empty((kept_pairs, length), np.int32)
        rows = len(folder) if kept_pairs else 0
        self._kept_at = np.full(rows, -1, np.int32)
        self._has_choice = np.zeros(rows, bool)  # of captions: its tokens are of one visit only
        self._kept, self._keeping = 0, threading.Lock()

    def fill(self, slot: int, places: np.ndarray, decoders: Executor | None) -> Answer:
        """Read the pairs at some places of a slot, with the help of some threads."""
        watch = Stopwatch()
        missing, untold = self._copy_kept(slot, places, watch)
        work = self._decoding(slot, missing, watch, decoders)
        faults = self._encode(slot, untold, watch)  # while others decode
        for found in work:
            faults += found
        self._keep(slot, missing, faults, watch)
        return Answer(slot, sorted({f.place: f for f in faults}.values()), dict(watch.sums()))

    def _decoding(
        self, slot: int, places: np.ndarray, watch: Stopwatch, decoders: Executor | None
    ) -> Iterable[list[Fault]]:
        """Begin to decode the pictures at some places, and return the faults as they are known."""
        if not len(places):
            return ()
        began = perf_counter()
        views = self._folder.pictures(self._batches.rows[slot, places], check=self._check)
        watch.add("fetch", perf_counter() - began, len(places))
        step = max(1, min(TASK_PAIRS, len(places) // 4))
        cuts = [slice(at, at + step) for at in range(0, len(places), step)]
        run = decoders.map if decoders else map
        return run(partial(self._decode, slot, places, views, watch), cuts)

    def _decode(
        self, slot: int, places: np.ndarray, views: list[View], watch: Stopwatch, cut: slice
    ) -> list[Fault]:
        """Decode the pictures of some of the places, in one thread."""
        began, faults = perf_counter(), []
        images, positions = self._batches.images[slot], self._batches.positions[slot]
        for place, view in zip(places[cut].tolist(), views[cut], strict=True):
            if isinstance(view, ShardError):
                faults.append(Fault(place, type(view).__name__, one_line(view)))
                continue
            crop = None
            if self._is_random:
                crop = partial(random_resized_crop, int(positions[place]), self._seed)
            try:
                decode_into(view, images[place], crop)
            except DecodeError as error:
                faults.append(Fault(place, type(error).__name__, one_line(error)))
        watch.add("decode", perf_counter() - began, len(places[cut]))
        return faults

    def _encode(self, slot: int, places: np.ndarray, watch: Stopwatch) -> list[Fault]:
        if self._tokenizer is None or not len(places):
            return []
        began = perf_counter()
        givers, positions = (
            numbers[slot, places] for numbers in (self._batches.givers, self._batches.positions)
        )
        captions, several = self._captions.drawn(givers, positions, self._seed)
        if len(self._has_choice):
            self._has_choice[self._batches.rows[slot, places]] = several
        fetched = perf_counter()
        faults = [
            Fault(place, type(caption).__name__, one_line(caption))
            for place, caption in zip(places.tolist(), captions, strict=True)
            if isinstance(caption, ShardError)
        ]
        texts = ["" if isinstance(caption, ShardError) else caption for caption in captions]
        length = self._batches.sizes.context_length
        self._batches.tokens[slot, places] = encode(self._tokenizer, texts, length)
        watch.add("fetch", fetched - began, 0)
        watch.add("collate", perf_counter() - fetched, len(places))
        return faults

    def _copy_kept(
        self, slot: int, places: np.ndarray, watch: Stopwatch
    ) -> tuple[np.ndarray, np.ndarray]:
        """Copy what is kept; return the places that lack a picture, and those without tokens."""
        if not len(self._kept_images):
            return places, places
        began = perf_counter()
        rows = self._batches.rows[slot, places]
        at = self._kept_at[rows]
        known = at >= 0
        for place, kept in zip(places[known], at[known], strict=True):
            self._batches.images[slot, place] = self._kept_images[kept]
        told = known & ~self._has_choice[rows]
        self._batches.tokens[slot, places[told]] = self._kept_tokens[at[told]]
        watch.add("copy", perf_counter() - began, int(known.sum()))
        return places[~known], places[~told]

    def _keep(self, slot: int, places: np.ndarray, faults: list[Fault], watch: Stopwatch) -> None:
        if not (len(self._kept_images) and len(places)):
            return
        began, bad = perf_counter(), {fault.place for fault in faults}
        with self._keeping:
            for place in places.tolist():
                row = self._batches.rows[slot, place]
                if place in bad or self._kept_at[row] >= 0:
                    continue
                self._kept_images[self._kept] = self._batches.images[slot, place]
                self._kept_tokens[self._kept] = self._batches.tokens[slot, place]
                self._kept_at[row] = self._kept  # last: others copy what it says is there
                self._kept += 1
        watch.add("copy", perf_counter() - began, 0)


class ReaderThreads:
    """Runs a reader in threads, or at once where there are none; ``done`` gets what comes of it."""

    def __init__(
        self, reader: Reader, threads: int, ahead: int, done: Callable[[Answer | Exception], None]
    ) -> None:
        self._reader, self._done = reader, done
        self._decoders = ThreadPoolExecutor(threads) if threads else None
        self._fillers = ThreadPoolExecutor(ahead + 1) if threads else None

    def ask(self, slot: int, places: np.ndarray) -> None:
        """Begin to fill some places of a slot."""
        if self._fillers is None:
            self._fill(slot, places)
        else:
            self._fillers.submit(self._fill, slot, places)

    def close(self) -> None:
        """Finish what is being decoded, and forget the rest."""
        for pool in (self._fillers, self._decoders):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self, slot: int, places: np.ndarray) -> None:
        try:
            self._done(self._reader.fill(slot, places, self._decoders))
        except Exception as error:  # whatever it is belongs to who waits for the batch
            self._done(error)
