"""What labels.json says: which columns are classes, and how to put them in words."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from breadth.loaders.errors import PoolError
from breadth.loaders.remote import read_beside
from breadth.loaders.whole_file import replaced

LABELS = "labels.json"
EXACT = "exact"
"""The task of a description that equals the pair's caption; no task of labels has its name."""


@dataclass(frozen=True)
class Task:
    """One column of labels, its classes as texts, and the templates that make captions of them."""

    name: str
    column: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]


def read_tasks(folder: str | Path) -> tuple[Task, ...]:
    """Read the tasks of a data folder, here or at a URL; none where it has no labels.json.

    Raises PoolError where the file is not what it should be.
    """
    text = read_beside(folder, LABELS)
    if text is None:
        return ()
    try:
        tasks = json.loads(text)["tasks"]
        return tuple(_task(name, entry) for name, entry in sorted(tasks.items()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PoolError(
            f"{folder}/{LABELS}: not a list of tasks ({error}); each needs column, classes and "
            "templates"
        ) from error


def write_tasks(folder: Path, tasks: Sequence[Task]) -> None:
    """Write labels.json."""
    rows = {task.name: {k: v for k, v in asdict(task).items() if k != "name"} for task in tasks}
    text = json.dumps({"tasks": rows}, indent=1, sort_keys=True) + "\n"
    with replaced(folder / LABELS) as file:
        file.write(text.encode())


def _task(name: str, entry: dict) -> Task:
    classes, templates = tuple(map(str, entry["classes"])), tuple(map(str, entry["templates"]))
    if len(set(classes)) < max(2, len(classes)) or not templates:
        raise ValueError(f"{name}: two or more different classes and one template at least")
    if not all("{}" in template for template in templates):
        raise ValueError(f"{name}: a template needs {{}} where the class goes")
    if name == EXACT:
        raise ValueError(f"{name} is what a whole caption is called: give the task another name")
    return Task(name, entry["column"], classes, templates)
