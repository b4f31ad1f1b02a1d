"""Give webdataset's pipelines our pairs: dicts as from a tar, planned, resumable, in any subset."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from .captions import Captions
from .errors import ShardError
from .folder import Folder
from .losses import Losses
from .pipeline import MOST_ATTEMPTS, Making
from .quarantine import one_line
from .reader import Fault
from .stream import BUDGET_PPM, Stream
from .torch_dataset import EpochDataset

Pair = dict[str, Any]


class Dicts(EpochDataset):
    """The pairs of a folder one by one, for ``webdataset.FluidWrapper`` or ``DataPipeline``.

    ``{"__key__", "__url__", "jpg" (or png, webp, gif), "txt", "json"}``, the members as bytes; a
    caption that only the json holds is given as txt, a pair without caption or json lacks the key;
    of several captions txt is the one that a Stream gives at this place.
    Nothing else of a tar is handed on, so nothing that a decoder would unpickle.

    Takes those options of a Stream that say which pair comes when, and ``check``, ``quarantine``
    and ``budget_ppm``: a pair whose bytes cannot be read is replaced as a Stream replaces it. What
    cannot be decoded is met later, by webdataset's own handlers. A state counts whole batches.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        batch_pairs: int,
        seed: int,
        check: bool = False,
        quarantine: str | Path | None = None,
        budget_ppm: float = BUDGET_PPM,
        **options: Any,
    ) -> None:
        self._check, self._quarantine, self._budget_ppm = check, quarantine, budget_ppm
        self._seed = seed
        super().__init__(folder, batch_pairs=batch_pairs, seed=seed, **options)

    def _plan_options(self) -> dict[str, Any]:
        return self._options | {"image_px": 1, "cache_bytes": 0}  # nothing is decoded

    def _open(self, state: dict[str, Any], batch_pairs: int, rank: int, world: int) -> Iterator:
        plan, share, captions = self._plan(), batch_pairs // world, Captions(self._folder)
        losses = Losses(
            self._folder, plan.order, batch_pairs, rank, self._quarantine, self._budget_ppm
        )
        for start in count(state["position"] + rank * share, batch_pairs):
            yield self._batch(plan, captions, losses, start, share)

    def _hand_out(self, batch: list[Pair], after: int) -> Iterator[Pair]:
        yield from batch[:-1]
        self._count(after)
        yield batch[-1]

    def _batch(
        self, plan: Stream, captions: Captions, losses: Losses, start: int, share: int
    ) -> list[Pair]:
        """Read the pairs at ``share`` positions, or in their places others, as a Stream does."""
        order = plan.order
        rows, made = order.rows(start, start + share), Making(start, 0)
        pairs: list[Pair] = [{}] * share
        places = np.arange(share)
        for attempt in range(1, MOST_ATTEMPTS + 2):
            givers = plan.noise.givers(rows[places])
            told, _ = captions.drawn(givers, start + places, self._seed)
            bad = self._read(rows, places, told, pairs, made)
            if not bad or len(made.lost) > losses.bearable(share):
                losses.count(made, rows)
                return pairs
            rows[bad] = [order.substitute(start + place, attempt) for place in bad]
            places = np.array(bad)
        raise ShardError(
            f"{MOST_ATTEMPTS} pairs drawn in turn for position {start + bad[0]} cannot be read: "
            "check the shards"
        )

    def _read(
        self,
        rows: np.ndarray,
        places: np.ndarray,
        captions: list[str | ShardError],
        pairs: list[Pair],
        made: Making,
    ) -> list[int]:
        """Fill some places; return those whose pair cannot be read."""
        folder, asked, bad = self._folder, rows[places], []
        pictures, described = folder.pictures(asked, check=self._check), folder.json_members(asked)
        names = folder.index.select(["key", "image_ext"]).take(asked).to_pylist()
        found = zip(places.tolist(), names, pictures, captions, described, strict=True)
        for place, name, *members in found:
            row = int(rows[place])
            error = next((member for member in members if isinstance(member, ShardError)), None)
            if error is not None:
                fault = Fault(place, type(error).__name__, one_line(error))
                made.lost.setdefault(place, (row, fault))
                bad.append(place)
                continue
            shard = folder.shards[int(folder.shard_of[row])]
            pairs[place] = {"__key__": name["key"], "__url__": str(shard)} | _bodies(name, members)
        return bad


def _bodies(name: dict[str, str], members: list[Any]) -> Pair:
    """Return the bytes of picture, caption and json under their extensions, empty ones left out."""
    picture, caption, described = members
    bodies = {name["image_ext"]: picture, "txt": caption.encode(), "json": described}
    return {extension: bytes(body) for extension, body in bodies.items() if len(body)}
