"""What world.json says: of which world a folder is drawn, and which scenes it shows."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from breadth.loaders.errors import PoolError, Refused
from breadth.loaders.remote import read_beside
from breadth.loaders.whole_file import replaced
from breadth.loaders.world import World, scene

WORLD = "world.json"


@dataclass(frozen=True)
class Drawn:
    """A world and the scenes of it that a folder shows: any of them can be drawn again, changed."""

    world: World
    scenes: range


def read_drawn(folder: str | Path) -> Drawn | None:
    """Read of what a data folder is drawn, here or at a URL; None where it has no world.json.

    Raises PoolError where the file is not what it should be.
    """
    text = read_beside(folder, WORLD)
    if text is None:
        return None
    try:
        told = json.loads(text)
        first, last = told["scenes"]
        drawn = Drawn(World(**told["world"]), range(first, last + 1))
        if not drawn.scenes or first < 0:
            raise ValueError(f"no scenes from {first} to {last}")
        scene(drawn.world, first)  # dials of another kind than a number fail here
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, Refused) as error:
        raise PoolError(
            f"{folder}/{WORLD}: not a world ({error}); it needs world, a table of dials, and "
            "scenes, the first and the last"
        ) from error
    return drawn


def write_drawn(folder: Path, world: World, scenes: range) -> None:
    """Write world.json; ``scenes`` goes up by one."""
    told = {"world": asdict(world), "scenes": [scenes[0], scenes[-1]]}
    with replaced(folder / WORLD) as file:
        file.write((json.dumps(told, indent=1, sort_keys=True) + "\n").encode())
