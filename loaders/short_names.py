"""Name folders as shortly as tells them apart."""

from collections.abc import Sequence
from pathlib import Path

from .errors import Refused


def short_names(folders: Sequence[Path], verb: str) -> list[str]:
    """Return for each folder the shortest end of its path that no other has.

    All ends are equally long. Raises Refused, in the name of the verb, where one comes twice.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise Refused(f"{verb}: a folder is named twice; name each once")
    names: list[str] = []
    for length in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = [Path(*path.parts[-length:]).as_posix() for path in paths]
        if len(set(names)) == len(names):
            break
    return names
