"""A run on disk: one file holds weights, optimiser and position, so that a kill leaves it whole."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from breadth.loaders.errors import Failed, PoolError, Refused
from breadth.loaders.tokenize import encode, load_tokenizer

from .digests import over_ranks
from .model import Model, build_model
from .parallel import share_like, whole
from .ranks import open_device
from .recipe import TrainRecipe
from .run_folder import CHECKPOINT, read_config
from .trainee import Trainee, start_from

MODEL, AVERAGE = "model.", "ema."
ADAM = ("step", "exp_avg", "exp_avg_sq")
EMBED_PAIRS = 256  # at a time: bounds memory; results do not depend on it within rounding


def save_checkpoint(out: Path, trainee: Trainee, stream: Mapping[str, Any]) -> None:
    """Replace the run's checkpoint; ``stream`` is the stream's state, as JSON values.

    All ranks call it and rank 0 writes: one file, whatever the number of ranks and whether they
    shared out the model, so that any other number can go on. Raises Failed where the disk does not
    take it; the checkpoint before then stays.
    """
    seen = over_ranks(trainee.seen, trainee.ranks)
    tensors = dict(_gathered(trainee))
    if trainee.ranks.rank > 0:
        return
    state = {"step": trainee.step, "stream": stream, "units": trainee.units, "seen": seen}
    temporary = out / (CHECKPOINT + ".tmp")
    try:
        save_file(tensors, temporary, metadata={"state": json.dumps(state, sort_keys=True)})
        temporary.chmod(0o644)  # safetensors lets nobody else read it
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(out / CHECKPOINT)
    except (OSError, SafetensorError) as error:
        raise Failed(
            f"cannot write {out / CHECKPOINT} ({error}); the checkpoint before is kept:"
            " make room and run the same command again"
        ) from error


def _gathered(trainee: Trainee) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a checkpoint, whole and on the CPU; on rank 0 alone."""
    held = {f"{AVERAGE}{name}": value for name, value in trainee.average.items()}
    for name, parameter in trainee.model.named_parameters():
        held[f"{MODEL}{name}"] = parameter.detach()
        for key, value in trainee.optimiser.state[parameter].items():
            held[f"optimiser.{key}.{name}"] = value.detach()
    for name, value in held.items():
        gathered = whole(value)  # all ranks take part, one tensor at a time
        if trainee.ranks.rank == 0:
            yield name, gathered.cpu().contiguous()


def read_checkpoint(out: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return a checkpoint's tensors and state, or None where the run has none yet."""
    path = out / CHECKPOINT
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["state"])
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise PoolError(f"{path} is damaged ({error}); delete it to begin again") from error


def restore_training(saved: tuple[dict[str, Tensor], dict[str, Any]], trainee: Trainee) -> None:
    """Give a trainee what a checkpoint holds, bit for bit; each rank takes its share."""
    tensors, state = saved
    restore_weights(_named(tensors, MODEL), trainee.model)
    for name, parameter in trainee.model.named_parameters():
        if f"optimiser.step.{name}" in tensors:  # a weight that never had a gradient has no state
            held = {key: tensors[f"optimiser.{key}.{name}"] for key in ADAM}
            state_of = {k: share_like(v, parameter) for k, v in held.items() if k != "step"}
            # A fused AdamW keeps its step count where the parameter is.
            state_of["step"] = held["step"].to(parameter.device)
            trainee.optimiser.state[parameter] = state_of
    for name, value in trainee.average.items():
        value.copy_(share_like(tensors[f"{AVERAGE}{name}"], value))
    trainee.step, trainee.units = state["step"], state["units"]
    trainee.seen = {n: s if trainee.ranks.rank == 0 else 0 for n, s in state["seen"].items()}


def begin_with(trainee: Trainee, start: Path | None) -> None:
    """Take over another run's weights, if any; raises PoolError where not one of them fits."""
    if start is None:
        return
    saved = read_checkpoint(start)
    if saved is None:
        raise PoolError(f"{start} has no checkpoint yet; train it first")
    weights = used_weights(saved[0])
    taken = set(start_from(trainee, weights))
    known = dict(trainee.model.named_parameters())
    unlike = [name for name in weights if name in known and name not in taken]
    if unlike or not taken:
        reason = f"its {unlike[0]} has another shape" if unlike else "no weight has a name of ours"
        raise PoolError(f"{start} does not fit this recipe: {reason}; use the same size")


def used_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that a run is used with: the averaged ones where it has them."""
    return _named(tensors, AVERAGE) or _named(tensors, MODEL)


def _named(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind): t for name, t in tensors.items() if name.startswith(kind)}


def restore_weights(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Copy saved weights into the model; raises PoolError where they are another model's."""
    for name, parameter in model.named_parameters():
        saved = weights.get(name)
        if saved is None or saved.shape != parameter.shape:
            raise PoolError(f"the checkpoint does not fit its config.json: {name}")
        parameter.data.copy_(share_like(saved, parameter))


@dataclass(frozen=True)
class Run:
    """A trained model with what it takes to use it."""

    path: Path
    model: Model
    recipe: TrainRecipe
    tokenizer: Tokenizer
    step: int
    device: torch.device

    @cached_property
    def digest(self) -> str:
        """A hash of recipe, tokenizer and weights: equal digests embed alike."""
        digest = sha256(json.dumps(self.recipe.to_json(), sort_keys=True).encode())
        digest.update(self.tokenizer.to_str().encode())
        for name, parameter in sorted(self.model.named_parameters()):
            digest.update(name.encode() + parameter.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def has_joint_space(self) -> bool:
        """Tell whether pictures and captions can be compared: InfoNCE and Sigmoid make them so."""
        return self.recipe.has_joint_space

    @property
    def has_captioner(self) -> bool:
        """Tell whether it can write captions."""
        return "caption" in self.model.views

    @property
    def has_pixels(self) -> bool:
        """Tell whether it can fill in hidden patches."""
        return "masked image" in self.model.views

    def embed_pictures(self, images_BCHW: np.ndarray) -> np.ndarray:
        """Embed uint8 pictures [n, 3, H, W] of the recipe's size: float32 [n, E] of norm 1."""
        self.require_joint_space()
        self.require_pictures(images_BCHW)
        return self.in_chunks(
            images_BCHW, lambda x: self.model.embed_patches(self.model.patches(x))
        )

    def embed_captions(self, captions: Sequence[str]) -> np.ndarray:
        """Embed captions: float32 [n, E] of norm 1."""
        self.require_joint_space()
        tokens = encode(self.tokenizer, list(captions), self.recipe.context_length)
        return self.in_chunks(np.asarray(tokens), self.model.embed_tokens)

    def features(self, images_BCHW: np.ndarray) -> np.ndarray:
        """Pool uint8 pictures [n, 3, H, W] before any projection: float32 [n, D]."""
        if not hasattr(self.model, "image"):
            raise Refused(f"{self.path} was trained on captions alone; it sees no pictures")
        self.require_pictures(images_BCHW)
        return self.in_chunks(images_BCHW, lambda x: self.model.features(self.model.patches(x)))

    def require_joint_space(self) -> None:
        """Refuse to compare pictures and captions that were never brought together."""
        if not self.has_joint_space:
            raise Refused(
                f"{self.path} was trained without InfoNCE or Sigmoid: pictures and captions share"
                " no space, so it has no zero-shot, retrieval or clip score; use a clip run"
            )

    def require_pictures(self, images_BCHW: np.ndarray) -> None:
        """Refuse pictures of another size, or numbers that are not those of uint8."""
        images, side = np.asarray(images_BCHW), self.recipe.image_px
        if images.dtype != np.uint8 or images.shape[1:] != (3, side, side):
            raise Refused(
                f"{self.path} takes pictures as uint8 [n, 3, {side}, {side}], not {images.dtype} "
                f"{list(images.shape)}"
            )

    @torch.inference_mode()
    def in_chunks(self, rows: np.ndarray, embed: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Apply ``embed`` to a few rows at a time; raises PoolError where a weight is no number."""
        chunks = torch.from_numpy(np.ascontiguousarray(rows)).split(EMBED_PAIRS)
        found = torch.cat([embed(chunk.to(self.device)).float().cpu() for chunk in chunks])
        if not bool(found.isfinite().all()):  # what follows would take NaN for a perfect match
            raise PoolError(f"{self.path} has weights that are no numbers: train or import it anew")
        return found.numpy()


def load_run(path: str | Path, device: str = "cpu") -> Run:
    """Open a run for use on a device.

    Raises PoolError where the folder holds none that has learnt anything, Refused where this
    machine has no such device.
    """
    place = open_device(device)
    path = Path(path)
    recipe = TrainRecipe.from_options(read_config(path)["recipe"])
    saved = read_checkpoint(path)
    if saved is None:
        raise PoolError(f"{path} has no checkpoint yet; train it first")
    tensors, state = saved
    tokenizer = load_tokenizer(path / "tokenizer.json")
    model = build_model(recipe, tokenizer.get_vocab_size())
    restore_weights(used_weights(tensors), model)
    return Run(path, model.to(place).eval(), recipe, tokenizer, state["step"], place)
