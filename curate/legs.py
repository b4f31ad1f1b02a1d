"""Cut a recipe into legs: runs of stages that one task can do for one part."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from breadth.loaders.errors import RecipeError

from .embedder import open_embedder
from .recipe import Recipe
from .stage import Matcher, Selector, Stage
from .stages.embed import Embed


@dataclass(frozen=True)
class Leg:
    """Stages fused into one task per part.

    ``measured`` fingerprints what is measured, ``verdict`` what is decided, with everything
    before it. Where the last stage is a Selector or Matcher the leg ends in a barrier: every
    part is looked at before any verdict of that stage.
    """

    number: int
    stages: tuple[Stage, ...]
    first_stage: int
    measured: str
    verdict: str
    retry_round: int = 0  # see retry.py

    @property
    def resource(self) -> str:
        """Return network, cpu or gpu."""
        return self.stages[0].resource

    @property
    def barrier(self) -> Selector | Matcher | None:
        """Return the Selector or Matcher that ends the leg, if one does."""
        last = self.stages[-1]
        return last if isinstance(last, Selector | Matcher) else None

    @property
    def folder(self) -> str:
        """Return the name of the leg's folder under ``parts/``."""
        return f"{self.stages[0].name}-{self.measured[:16]}"

    @property
    def writes_pictures(self) -> bool:
        """Whether the leg stores pictures of its own."""
        return any("image" in stage.writes for stage in self.stages)


def picture_legs(legs: Sequence[Leg]) -> tuple[str, ...]:
    """Return the folders of the legs that store pictures of their own, in order."""
    return tuple(leg.folder for leg in legs if leg.writes_pictures)


def bind_embedders(recipe: Recipe, run: str | None) -> tuple[Stage, ...]:
    """Return the recipe's stages with an embedding step before the first that reads each embedder.

    Raises RecipeError where a stage wants a run and none is given, or captions from an embedder
    that embeds none.
    """
    stages: list[Stage] = []
    bound: set[str] = set()
    for stage in recipe.stages:
        for name in _embedders_of(stage):
            if name not in bound:
                stages.append(_embed(stage, name, run))
                bound.add(name)
        stages.append(stage)
    return tuple(stages)


def _embedders_of(stage: Stage) -> list[str]:
    return sorted({c.split(":", 1)[1] for c in stage.reads if "_embedding:" in c})


def _embed(stage: Stage, name: str, run: str | None) -> Stage:
    if name == "run" and run is None:
        raise RecipeError(f"stage {stage.name} scores with a run of yours: add --embedder RUN")
    location = str(run) if name == "run" else name
    embedder = open_embedder(location)
    if f"caption_embedding:{name}" in stage.reads and not embedder.embeds_captions:
        raise RecipeError(
            f"stage {stage.name} compares captions with pictures, which {embedder.name} cannot"
        )
    return Embed(name, embedder.width, embedder.embeds_captions, embedder.digest, location)


def cut(
    stages: Sequence[Stage], pool_fingerprint: str, seed: int, retry_round: int = 0
) -> tuple[Leg, ...]:
    """Cut stages into legs at every Selector and Matcher and wherever the resource changes.

    A retry round changes every verdict and nothing of what is measured.
    """
    legs: list[Leg] = []
    producers: dict[str, str] = {}
    retries = {"retry_round": retry_round} if retry_round else {}
    verdict = digest({"pool": pool_fingerprint, "seed": seed, **retries})
    start = 0
    while start < len(stages):
        end = _end(stages, start)
        own = tuple(stages[start:end])
        measured = digest([_measure(stage, producers) for stage in own])
        verdict = digest([verdict, measured, [[s.name, s.options()] for s in own]])
        legs.append(Leg(len(legs), own, start, measured, verdict, retry_round))
        start = end
    return tuple(legs)


def _end(stages: Sequence[Stage], start: int) -> int:
    end = start
    while end < len(stages) and stages[end].resource == stages[start].resource:
        end += 1
        if isinstance(stages[end - 1], Selector | Matcher):
            break
        if "image" in stages[end - 1].writes:
            break  # the pictures are committed before anything reads them
    return end


def _measure(stage: Stage, producers: dict[str, str]) -> str:
    """Fingerprint what a stage measures; it depends on whatever wrote the columns it reads."""
    read = {c: producers.get(c, "pool") for c in sorted({*stage.reads, *stage.reads_if_there})}
    own = digest([stage.name, stage.version, dict(stage.measuring()), read])
    producers.update(dict.fromkeys(stage.writes, own))
    return own


def digest(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return 32 hexadecimal digits of a JSON-like value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
