"""Make a run of another's CLIP, to be evaluated, embedded with, or trained on."""

from hashlib import sha256
from pathlib import Path

import torch

from breadth.loaders.errors import OutputError, RecipeError
from breadth.loaders.tokenize import save_tokenizer

from ..checkpoint import restore_weights, save_checkpoint
from ..recipe import TrainRecipe
from ..run_folder import describe_run, hold_folder
from ..trainee import make_trainee
from .foreign import read_foreign
from .layout import to_ours
from .names import CLIP_TOKENS, OPEN_CLIP_TOKENS, clip_rules, open_clip_rules
from .numbering import renumber, rows_of

RULES = {
    "transformers": (clip_rules, CLIP_TOKENS),
    "open_clip": (open_clip_rules, OPEN_CLIP_TOKENS),
}


def import_run(
    source: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
) -> TrainRecipe:
    """Make a run folder of a CLIP folder of transformers or a checkpoint of open_clip.

    The run's recipe describes the model and has the one term InfoNCE; it is at step 0. The
    tokenizer is the source's tokenizer.json unless another is given. Raises PoolError where the
    source is no plain CLIP, OutputError where ``out`` holds something. Cost: the weights, three
    times, in memory.
    """
    source, out = Path(source), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not empty; name another folder")
    foreign = read_foreign(source, None if config is None else Path(config))
    beside = foreign.folder / "tokenizer.json"
    renumbered, numbers = renumber(beside if tokenizer is None else Path(tokenizer))
    rules, tokens = RULES[foreign.layout]
    weights = foreign.weights
    recipe = _recipe(source, foreign.options)
    trainee = make_trainee(recipe, len(numbers), torch.device("cpu"))
    shapes = {name: parameter.shape for name, parameter in trainee.model.named_parameters()}
    if tokens in weights:
        weights = weights | {tokens: rows_of(weights[tokens], numbers)}
    restore_weights(to_ours(rules(recipe), weights, shapes), trainee.model)
    about = describe_run(recipe, {"digest": None, "pairs": 0}, None)
    about["imported"] = {"layout": foreign.layout, "weights": _digest(foreign.weights)}
    with hold_folder(out, about):
        save_tokenizer(renumbered, out / "tokenizer.json")
        save_checkpoint(out, trainee, {})
    return recipe


def _recipe(source: Path, options: dict[str, object]) -> TrainRecipe:
    named = {"name": source.stem, "terms": {"InfoNCE": 1}, "steps": 1, "pool": "cls"}
    try:
        return TrainRecipe.from_options({**named, **options})
    except RecipeError as error:
        raise RecipeError(f"{source} describes no model that trains here: {error}") from error


def _digest(weights: dict[str, torch.Tensor]) -> str:
    digest = sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()
