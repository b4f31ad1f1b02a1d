"""Keep some batches in the making, and put another pair where one cannot be read."""

from collections import deque
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from .engine import Engine
from .errors import ShardError
from .noise import CaptionNoise
from .plan import Order
from .reader import Fault
from .stall import Stopwatch

MOST_ATTEMPTS = 100  # draws of a substitute; more only where nearly every pair is broken


@dataclass
class Making:
    """A batch in the making; ``lost`` are the rows planned for places, with their first faults."""

    start: int
    slot: int
    is_asked: bool = True
    attempts: int = 0
    faults: list[Fault] = field(default_factory=list)
    lost: dict[int, tuple[int, Fault]] = field(default_factory=dict)


class Pipeline:
    """Makes one rank's batches in order; ``start`` is the position of the first pair of the first.

    Batches are ``step`` positions apart; ``ahead`` are in the making while one is waited for.
    """

    def __init__(
        self,
        engine: Engine,
        order: Order,
        noise: CaptionNoise,
        start: int,
        step: int,
        ahead: int,
    ) -> None:
        self._engine, self._order, self._batches = engine, order, engine.batches
        self._noise = noise
        self._starts, self._ahead = count(start, step), ahead
        self._making: deque[Making] = deque()

    def next_batch(self, bearable: int, watch: Stopwatch) -> Making:
        """Wait for the next batch; the caller then lends or releases its slot.

        Pairs that cannot be read are replaced where they are no more than ``bearable``; else the
        batch is returned with places that hold anything.
        """
        self._begin()
        made = self._making[0]
        self._replace(made, bearable)
        while made.is_asked:
            answer = self._engine.answer()
            watch.merge(answer.spent)
            making = next(m for m in self._making if m.slot == answer.slot)
            making.is_asked, making.faults = False, answer.faults
            rows = self._batches.rows[making.slot]
            for fault in answer.faults:
                making.lost.setdefault(fault.place, (int(rows[fault.place]), fault))
            self._replace(making, bearable)
        if made.faults and made.attempts == MOST_ATTEMPTS:
            raise ShardError(
                f"{MOST_ATTEMPTS} pairs drawn in turn for position"
                f" {made.start + made.faults[0].place} cannot be read: check the shards"
            )
        return self._making.popleft()

    def _begin(self) -> None:
        while len(self._making) <= self._ahead:
            slot = self._batches.claim()
            if slot is None:
                return
            start, pairs = next(self._starts), self._batches.sizes.pairs
            self._batches.rows[slot] = rows = self._order.rows(start, start + pairs)
            self._batches.givers[slot] = self._noise.givers(rows)
            self._batches.positions[slot] = np.arange(start, start + pairs)
            self._making.append(Making(start, slot))
            self._engine.ask(slot, np.arange(pairs))

    def _replace(self, making: Making, bearable: int) -> None:
        """Ask for other pairs; which depends on nothing but position and attempt."""
        tired = making.attempts == MOST_ATTEMPTS
        if not making.faults or len(making.lost) > bearable or tired:
            return
        making.attempts += 1
        places = np.array([fault.place for fault in making.faults])
        rows = np.array(
            [self._order.substitute(making.start + place, making.attempts) for place in places]
        )
        self._batches.rows[making.slot, places] = rows
        self._batches.givers[making.slot, places] = self._noise.givers(rows)
        making.faults, making.is_asked = [], True
        self._engine.ask(making.slot, places)
