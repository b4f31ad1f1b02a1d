"""Score a run on a data folder, each score beside what guessing would give, and keep its items."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from breadth.loaders.errors import PoolError
from breadth.loaders.folder import Folder, open_folder

from ..checkpoint import Run, load_run
from ..run_folder import read_config
from .drawn import read_drawn
from .drawn_items import drawn_items
from .items import items
from .labels import LABELS, Task, read_tasks
from .pairs import Pairs, read_pairs
from .predictions import Predictions, predictions_folder, write_predictions
from .questions import QUESTIONS, Question, read_questions
from .rebuild import scores_of


def evaluate(
    run_path: str | Path, data: str | Path, *, limit: int | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Score a run on the pairs of a folder, or on ``limit`` of them drawn by hash of their uid.

    ``data`` may be a URL that fsspec knows; ``device`` is "cpu", "cuda" or "cuda:N".
    The result has the scores of ``rebuild.MAKERS`` by name, and ``notes`` on whatever has no score
    and why. The folder's labels.json gives the tasks of ``zero_shot``, ``probe`` and ``knn``, its
    questions.jsonl the kinds of ``vqa``, its world.json the scenes that are drawn again for
    ``grounding`` and what follows it. What was predicted for every item is kept in the run's
    folder, at ``predictions``. Cost: one pass over the pictures without gradients, O(pairs x
    captions) similarities, five small regressions per task, six for the questions; some ten
    seconds for drawn scenes.
    """
    run, folder = load_run(run_path, device), open_folder(data)
    tasks, questions, drawn = read_tasks(data), _questions(folder, data), read_drawn(data)
    pairs = read_pairs(run, folder, tasks, limit)
    notes = list(_notes(run, folder, pairs, tasks, questions))
    kept = list(items(run, pairs, tasks, questions, notes))
    if drawn is not None:
        kept += drawn_items(run, drawn, limit, notes)
    limited = len(pairs.uids) + pairs.undecodable < len(folder)
    place = predictions_folder(run.path, folder.digest, limit if limited else None)
    about = {
        "run": run.recipe.name,
        "run_digest": run.digest,
        "step": run.step,
        "data_digest": folder.digest,
        "pairs": len(pairs.uids),
    }
    notes += _keep(place, kept, about)
    return {
        **about,
        "terms": run.recipe.to_json()["terms"],
        **scores_of(kept),
        "predictions": place.relative_to(run.path).as_posix(),
        "notes": notes,
    }


def _questions(folder: Folder, data: str | Path) -> tuple[Question, ...]:
    questions = read_questions(data)
    strange = {question.uid for question in questions} - set(folder.uids)
    if strange:
        raise PoolError(
            f"{data}/{QUESTIONS} asks about {min(strange)}, which is no pair of the folder"
        )
    return questions


def _keep(place: Path, kept: Sequence[Predictions], about: dict[str, Any]) -> list[str]:
    """Write what was predicted; a run that may only be read is scored all the same."""
    try:
        write_predictions(place, kept, about)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return ["the run's folder may not be written, so the predictions are not kept"]
    return []


def _notes(
    run: Run,
    folder: Folder,
    pairs: Pairs,
    tasks: Sequence[Task],
    questions: Sequence[Question],
) -> Sequence[str]:
    name, notes = run.recipe.name, []
    if pairs.embedded is None:
        notes.append(
            f"{name} has no joint space of pictures and captions (no InfoNCE or Sigmoid), so "
            "it has no zero-shot and no retrieval score; its features are probed"
        )
    lacking = {
        "captioning (no Caption term)": run.has_captioner,
        "reconstruction (no Pixels term)": run.has_pixels,
    }
    if absent := [score for score, able in lacking.items() if not able]:
        notes.append(f"{name} has no score of {' and none of '.join(absent)}")
    if not tasks:
        notes.append(
            f"the data has no {LABELS}, so there is no zero-shot, probe or neighbour score"
        )
    if not questions:
        notes.append(f"the data has no {QUESTIONS}, so there is no score of answers")
    if read_config(run.path).get("data", {}).get("digest") == folder.digest:
        notes.append("the run was trained on pairs of this folder: no score on new ones")
    if pairs.undecodable:
        notes.append(f"{pairs.undecodable} pictures cannot be decoded and are left out")
    return notes
