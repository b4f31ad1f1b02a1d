"""Does an answer hold when what it should hang on stays, and fall when that is gone?

Every scene is drawn once as it is and once for each change, so the comparison is within scenes:
accuracy before and after, their paired difference, and the share of answers that flip.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from breadth.loaders.errors import Refused
from breadth.loaders.scene_changes import on_another_background, unseen_twin
from breadth.loaders.scene_drawing import Scene, picture
from breadth.loaders.world import World, scene

from ..checkpoint import Run
from .drawn_scores import CHANGES, changed, combined
from .probe import STRENGTHS, fit
from .zero_shot import class_vectors, fill

TEMPLATES = ("this is a {}",)
_AT_ONCE = 256
_DIGITS = 6  # a matrix product gives equal vectors unequal last bits

Answer = Callable[[np.ndarray], np.ndarray]
"""Names the class of each of uint8 pictures [n, 3, H, W]: int64 [n]."""


def robustness(
    run: Run, world: World, indices: Sequence[int], task: str = "shape", by: str = "zero_shot"
) -> dict[str, Any]:
    """Change the scenes ``indices`` of a world one thing at a time, and score ``task`` each time.

    ``by`` is zero_shot, or probe: a linear probe on features of as many other scenes, which any
    run with pictures has. The result has the pool and, for each of CHANGES, ``before``, ``after``,
    ``difference`` and ``flips``, with errors over scenes; ``rows`` holds every answer, -1 where a
    change does not apply. Cost: four passes over the pictures.
    """
    classes = world.classes(task)
    scenes = [scene(world, index) for index in indices]
    if not scenes:
        raise Refused("robustness needs one scene at least")
    answer = _answer(run, world, indices, task, by)
    labels = np.array([classes.index(shown.labels[task]) for shown in scenes])
    rows = {
        "scene": np.asarray(indices),
        "label": labels,
        "original": answer_all(run, answer, scenes),
    }
    rows |= {change: _changed_answers(run, answer, scenes, change) for change in CHANGES}
    about = {"task": task, "by": by, "pool": run.recipe.pool, "classes": len(classes)}
    return {**about, "changes": changed(rows, len(classes)), "rows": rows}


def held_out_combinations(
    run: Run, world: World, indices: Sequence[int], task: str = "colour_shape"
) -> dict[str, Any]:
    """Score zero-shot on scenes as they are and on their twins of combinations never trained on.

    A twin differs in colour and shape of the main object alone; both are named among all
    combinations, colours or shapes. The result has ``before`` (seen), ``after`` (unseen), their
    paired ``difference`` with the error over scenes, and ``error_over_combinations`` of the unseen
    score: few combinations are a small sample, however many scenes show them.
    """
    scenes = [scene(world, index) for index in indices]
    if not scenes:
        raise Refused("held-out combinations need one scene at least")
    twins = [unseen_twin(world, shown) for shown in scenes]
    classes = list(world.classes(task))
    if task == "colour_shape":
        classes = sorted(classes + [f"{c} {s}" for c, s in world.unseen_combinations])
    answer = zero_shot_answer(run, classes)
    place = {name: number for number, name in enumerate(classes)}
    rows = {"scene": np.asarray(indices)}
    for name, shown in (("seen", scenes), ("unseen", twins)):
        rows[f"{name}_label"] = np.array([place[one.labels[task]] for one in shown])
        rows[f"{name}_answer"] = answer_all(run, answer, shown)
    rows["unseen_combination"] = np.array([one.labels["colour_shape"] for one in twins])
    about = {"task": task, "classes": len(classes)}
    return {**about, **combined(rows, len(classes)), "rows": rows}


def answer_all(
    run: Run, answer: Answer, scenes: Sequence[Scene], without: Sequence[int] = ()
) -> np.ndarray:
    """Answer for every scene, some of its things left out: int64 [n]."""
    answers = [
        answer(pictures(run, scenes[start : start + _AT_ONCE], without))
        for start in range(0, len(scenes), _AT_ONCE)
    ]
    return np.concatenate(answers)


def pictures(run: Run, scenes: Sequence[Scene], without: Sequence[int] = ()) -> np.ndarray:
    """Draw scenes at the run's size: uint8 [n, 3, px, px]."""
    drawn = [picture(shown, run.recipe.image_px, without) for shown in scenes]
    return np.ascontiguousarray(np.stack(drawn).transpose(0, 3, 1, 2))


def zero_shot_answer(run: Run, classes: Sequence[str]) -> Answer:
    """Name the class whose prompt is nearest; of equally near ones the first."""
    prompts = run.embed_captions(fill(TEMPLATES, tuple(classes)))
    vectors_CD = class_vectors(prompts.reshape(len(classes), len(TEMPLATES), -1))
    return lambda images: _first_best(run.embed_pictures(images) @ vectors_CD.T)


def probe_answer(run: Run, scenes: Sequence[Scene], task: str, classes: Sequence[str]) -> Answer:
    """Name the class that a linear probe reads off the features, fitted on ``scenes``."""
    features = np.concatenate(
        [
            run.features(pictures(run, scenes[start : start + _AT_ONCE]))
            for start in range(0, len(scenes), _AT_ONCE)
        ]
    )
    mean, spread = features.mean(axis=0), features.std(axis=0).clip(1e-8)
    labels = np.array([classes.index(shown.labels[task]) for shown in scenes])
    linear = fit((features - mean) / spread, labels, len(classes), STRENGTHS[2])
    return lambda images: linear.predict((run.features(images) - mean) / spread)


def _answer(run: Run, world: World, indices: Sequence[int], task: str, by: str) -> Answer:
    if by == "zero_shot":
        return zero_shot_answer(run, world.classes(task))
    if by != "probe":
        raise Refused(f"answers come by zero_shot or probe, not {by!r}")
    after = max(indices) + 1
    others = [scene(world, index) for index in range(after, after + len(indices))]
    return probe_answer(run, others, task, world.classes(task))


def _changed_answers(run: Run, answer: Answer, scenes: Sequence[Scene], change: str) -> np.ndarray:
    if change == "background":
        return answer_all(run, answer, [on_another_background(shown) for shown in scenes])
    if change == "main":
        return answer_all(run, answer, scenes, without=(0,))
    answers = answer_all(run, answer, scenes, without=(1, 2, 3))
    return np.where([len(shown.companions) > 0 for shown in scenes], answers, -1)


def _first_best(similarity_nC: np.ndarray) -> np.ndarray:
    return np.round(similarity_nC, _DIGITS).argmax(axis=1)
