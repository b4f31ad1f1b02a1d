"""Runs for tests of evaluation: untrained ones, and one that says what it was told to say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from breadth.loaders.tokenize import train_tokenizer
from breadth.loaders.world import World, caption, scene
from breadth.train.checkpoint import Run
from breadth.train.model import build_model
from breadth.train.recipe import TrainRecipe

OPTIONS: dict[str, Any] = {"terms": {"InfoNCE": 1.0}, "steps": 1, "vocabulary": 300}


def untrained(**options: Any) -> Run:
    """Make a nano run that has learnt nothing."""
    recipe = TrainRecipe("made", **{**OPTIONS, **options})
    tokenizer = train_tokenizer([caption(scene(World(), i)) for i in range(50)], recipe.vocabulary)
    model = build_model(recipe, tokenizer.get_vocab_size()).eval()
    return Run(Path("made"), model, recipe, tokenizer, 0, torch.device("cpu"))


@dataclass(frozen=True)
class Told(Run):
    """A run that knows what each picture shows: the vectors of equal words are equal."""

    words: tuple[str, ...] = ()
    says: dict[bytes, str] = field(default_factory=dict)  # by bytes of uint8 [H, W, 3]

    @property
    def has_joint_space(self) -> bool:
        return True

    def embed_captions(self, captions: Any) -> np.ndarray:
        words = [c.removeprefix("this is a ").removeprefix("this is an ") for c in captions]
        return np.eye(len(self.words), dtype=np.float32)[[self.words.index(w) for w in words]]

    def embed_pictures(self, images_BCHW: np.ndarray) -> np.ndarray:
        said = [self.says[i.transpose(1, 2, 0).tobytes()] for i in images_BCHW]
        return np.eye(len(self.words), dtype=np.float32)[[self.words.index(w) for w in said]]

    def features(self, images_BCHW: np.ndarray) -> np.ndarray:
        return self.embed_pictures(images_BCHW)


def told(words: tuple[str, ...], says: dict[bytes, str], image_px: int = 32) -> Told:
    """Make a run that says ``says``, words of ``words``, of pictures by their bytes."""
    recipe = TrainRecipe("told", **{**OPTIONS, "image_px": image_px})
    return Told(Path("told"), nn.Module(), recipe, None, 0, torch.device("cpu"), tuple(words), says)
