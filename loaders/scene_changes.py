"""A scene with one thing changed and all else as it was, to see what an answer hangs on."""

from dataclasses import replace

import numpy as np

from .errors import Refused
from .scene_drawing import BACKGROUNDS, Scene
from .world import World


def on_another_background(scene: Scene) -> Scene:
    """Put a scene on one of the other backgrounds, drawn by the scene itself.

    Outside the objects every pixel changes; those that an object wholly covers do not.
    """
    others = [name for name in BACKGROUNDS if name != scene.background]
    return replace(scene, background=others[_draw(scene, 1) % len(others)])


def unseen_twin(world: World, scene: Scene) -> Scene:
    """Give the main object a combination that never occurs in the world, drawn by the scene.

    Its place, size, turn and texture, its companions and the background stay. Raises Refused where
    the world holds no combination back.
    """
    if not world.unseen:
        raise Refused("every combination may occur in this world; set its dial unseen above 0")
    taken = {thing.colour for thing in scene.companions}
    # One colour alone held back may be the companions': then they share it.
    fitting = [c for c in world.unseen_combinations if c[0] not in taken]
    fitting = fitting or world.unseen_combinations
    colour, shape = fitting[_draw(scene, 2) % len(fitting)]
    return replace(scene, main=replace(scene.main, colour=colour, shape=shape))


def _draw(scene: Scene, what: int) -> int:
    return int(np.random.default_rng([*scene.tint, 3, what]).integers(2**31))
