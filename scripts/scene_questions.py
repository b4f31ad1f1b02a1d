"""Ask about drawn scenes, each question with its kind and the uid of its picture."""

from collections.abc import Callable, Iterable, Iterator

from breadth.loaders.scene_words import KINDS
from breadth.loaders.world import World, questions, scene
from breadth.train.evaluate.questions import Question


def scene_questions(
    world: World, scenes: Iterable[int], uid: Callable[[int], str]
) -> Iterator[Question]:
    """Yield every question about some scenes; ``uid`` names the pair that shows a scene."""
    for index in scenes:
        for place, (question, answer) in enumerate(questions(scene(world, index))):
            kind = KINDS[min(place, len(KINDS) - 1)]
            yield Question(uid(index), question, answer, kind)
