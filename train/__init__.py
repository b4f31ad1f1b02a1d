"""A compact trainer for the MAE-CLIP family: views x terms.

In a notebook: ``train(load_recipe("demo_clip"), "built", "run")``, then
``load_run("run").embed_captions(["a red circle"])``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import Run as Run
    from .checkpoint import load_run as load_run
    from .embedder import open_run as open_run
    from .loop import train as train
    from .recipe import TrainRecipe as TrainRecipe
    from .recipe import load_recipe as load_recipe

_HOMES = {
    "Run": "checkpoint",
    "TrainRecipe": "recipe",
    "load_recipe": "recipe",
    "load_run": "checkpoint",
    "open_run": "embedder",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    # On first use: torch takes a second, which a recipe alone need not wait for.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
