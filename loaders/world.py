"""A procedural world of captioned scenes in which everything is known.

One big main object, none to three small companions of one kind, a background. Scene i of a world is
a pure function of (world, i), so a world of any size needs no storage and held-out scenes are just
other indices. The caption names the main object first; the dials say how many colour-shape
combinations there are, how evenly they occur and how much of a scene its caption tells.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .errors import Refused
from .scene_drawing import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing
from .scene_drawing import boxes as boxes  # with picture and masks, what can be known of a scene
from .scene_drawing import masks as masks
from .scene_drawing import picture as picture
from .scene_words import NUMBERS, TEXTURES
from .scene_words import RELATIONS as RELATIONS
from .scene_words import caption as caption  # and what can be said of it
from .scene_words import questions as questions

_SIZES = {"large": (0.30, 0.34), "small": (0.23, 0.26)}
_SWAY = 0.1  # how far the main object stands from the middle of its room
# After each of these fastText calls every scene English; bare noun phrases it takes for French.
_OPENINGS = (
    "this is",
    "there is",
    "here is",
    "you can see",
    "here you can see",
    "this picture shows",
)
_OPTIONAL = ("size", "texture", "background", "companions")


@dataclass(frozen=True)
class World:
    """The dials of a world.

    ``concepts`` colour-shape combinations occur (all if None) with frequencies whose entropy is
    ``entropy`` times that of equal ones; ``unseen`` others never occur, not even as companions,
    though each of their colours and shapes does. A caption tells each of size, texture, background
    and companions with probability ``caption_detail``. In a share ``background_bias`` of scenes
    the background follows from the main object's shape. Raises Refused where a dial is out of
    range.
    """

    seed: int = 0
    shapes: int = 8
    colours: int = 8
    concepts: int | None = None
    entropy: float = 1.0
    caption_detail: float = 0.6
    unseen: int = 0
    background_bias: float = 0.0

    def __post_init__(self) -> None:
        most = self.shapes * self.colours
        _within("shapes", self.shapes, 1, len(SHAPES))
        _within("colours", self.colours, 2, len(COLOURS))
        # The first diagonal of the table stays: it holds every colour and every shape.
        _within("unseen", self.unseen, 0, most - max(self.shapes, self.colours))
        most -= self.unseen
        _within("concepts", most if self.concepts is None else self.concepts, 1, most)
        _within("entropy", self.entropy, 0.01, 1)
        _within("caption_detail", self.caption_detail, 0, 1)
        _within("background_bias", self.background_bias, 0, 1)

    @cached_property
    def combinations(self) -> list[tuple[str, str]]:
        """The (colour, shape) combinations that occur, the most frequent first.

        They are taken along diagonals of the colour-shape table: a few already use every colour
        and every shape about equally often.
        """
        rng = np.random.default_rng([self.seed, 0])
        table = self._diagonals(rng)
        chosen = table[: len(table) - self.unseen][: self.concepts]
        return [chosen[i] for i in rng.permutation(len(chosen))]

    @cached_property
    def unseen_combinations(self) -> list[tuple[str, str]]:
        """The (colour, shape) combinations held back: the last of the table's diagonals."""
        table = self._diagonals(np.random.default_rng([self.seed, 0]))
        return table[len(table) - self.unseen :]

    def _diagonals(self, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Return all combinations, diagonal by diagonal of a table in random order."""
        colours = rng.permutation(list(COLOURS)[: self.colours]).tolist()
        shapes = rng.permutation(SHAPES[: self.shapes]).tolist()
        longer = max(self.colours, self.shapes)
        table = [
            (colours[i % self.colours], shapes[(i + step) % self.shapes])
            for step in range(longer)
            for i in range(longer)
        ]
        return list(dict.fromkeys(table))

    @cached_property
    def frequencies(self) -> np.ndarray:
        """How often each combination occurs: float64 [concepts], Zipf's law with our entropy."""
        ranks = np.arange(1, len(self.combinations) + 1, dtype=np.float64)
        if len(ranks) == 1 or self.entropy == 1:
            return np.full(len(ranks), 1 / len(ranks))
        low, high = 0.0, 64.0
        for _ in range(60):
            middle = (low + high) / 2
            if _entropy(ranks, middle) > self.entropy * np.log(len(ranks)):
                low = middle
            else:
                high = middle
        weights = ranks**-low
        return weights / weights.sum()

    def classes(self, task: str) -> list[str]:
        """Return the names a label may take; for colours and shapes those that occur."""
        occurring = {
            "colour": [c for c in COLOURS if any(c == colour for colour, _ in self.combinations)],
            "shape": [s for s in SHAPES if any(s == shape for _, shape in self.combinations)],
            "colour_shape": sorted(f"{c} {s}" for c, s in self.combinations),
            "texture": list(TEXTURES),
            "size": list(_SIZES),
            "count": [str(n) for n in range(len(NUMBERS))],
            "relation": ["alone", *RELATIONS],
            "background": list(BACKGROUNDS),
        }
        if task not in occurring:
            raise Refused(f"no task {task!r} in this world; there are {', '.join(occurring)}")
        return occurring[task]


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise Refused(f"world: {name} = {value} is not between {low} and {high}")


def _entropy(ranks: np.ndarray, exponent: float) -> float:
    p = ranks**-exponent
    p /= p.sum()
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def scene(world: World, index: int) -> Scene:
    """Return scene ``index`` of a world."""
    rng = np.random.default_rng([world.seed, 1, index])
    which = int(np.searchsorted(np.cumsum(world.frequencies), rng.random(), side="right"))
    colour, shape = world.combinations[min(which, len(world.combinations) - 1)]
    size = str(rng.choice(list(_SIZES)))
    radius = float(rng.uniform(*_SIZES[size]))
    count = int(rng.integers(len(NUMBERS)))
    relation = str(rng.choice(RELATIONS)) if count else "alone"
    main = Thing(
        shape,
        colour,
        str(rng.choice(list(TEXTURES))),
        _main_centre(relation, 1.1 * radius, rng),
        radius,
        float(rng.uniform(-0.2, 0.2)),
    )
    return Scene(
        main,
        _companions(world, main, count, relation, rng),
        size,
        relation,
        _background(world, index, shape, str(rng.choice(list(BACKGROUNDS)))),
        frozenset(what for what in _OPTIONAL if rng.random() < world.caption_detail),
        str(rng.choice(_OPENINGS)),
        (world.seed, index),
    )


def _background(world: World, index: int, shape: str, drawn: str) -> str:
    """Return the background drawn, or with the chance of ``background_bias`` the shape's own."""
    # A stream of its own, so that the dial moves nothing else.
    if (
        not world.background_bias
        or np.random.default_rng([world.seed, 1, index, 1]).random() >= world.background_bias
    ):
        return drawn
    return list(BACKGROUNDS)[SHAPES.index(shape) % len(BACKGROUNDS)]


def _main_centre(relation: str, reach: float, rng: np.random.Generator) -> tuple[float, float]:
    """Place the main object near the middle; a quarter of the picture belongs to companions."""
    room = 1.0 if relation == "alone" else 0.76
    along, across = (
        middle + float(rng.uniform(-1, 1)) * min(_SWAY, max(middle - reach, 0))
        for middle in (0.5, room / 2)
    )
    return _placed(relation, along, across)


def _companions(
    world: World, main: Thing, count: int, relation: str, rng: np.random.Generator
) -> tuple[Thing, ...]:
    """Set ``count`` equal things in the strip beside the main object, each in its own slot."""
    others = [name for name in list(COLOURS)[: world.colours] if name != main.colour]
    colour = str(rng.choice(others))
    shapes = [s for s in SHAPES[: world.shapes] if (colour, s) not in world.unseen_combinations]
    shape = str(rng.choice(shapes))
    radius = float(rng.uniform(0.075, 0.095))
    slack = 0.5 / max(count, 1) - 1.1 * radius
    things = []
    for slot in range(count):
        along = (slot + 0.5) / count + float(rng.uniform(-slack, slack))
        centre = _placed(relation, along, float(rng.uniform(0.875, 0.89)))
        things.append(Thing(shape, colour, "plain", centre, radius, float(rng.uniform(-0.2, 0.2))))
    return tuple(things)


def _placed(relation: str, along: float, across: float) -> tuple[float, float]:
    """Turn a place in the layout of "above" (companions at the bottom) into that of a relation."""
    if relation in ("below", "right of"):
        across = 1 - across
    return (across, along) if relation.endswith("of") else (along, across)
