"""Train a run: take a batch, encode the planned views, add up the terms, step; and go on later."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from breadth.loaders.batch import Batch
from breadth.loaders.errors import Failed, Refused
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.stream import Stream
from breadth.loaders.tokenize import PAD, load_tokenizer, save_tokenizer, train_tokenizer
from breadth.loaders.whole_file import replaced

from .checkpoint import read_checkpoint, restore_training, save_checkpoint
from .mask import Mask, hide_patches, hide_tokens
from .model import Model, build_model
from .recipe import TrainRecipe
from .run_folder import check_folder, cut_metrics, describe_run, hold_folder, last_metrics
from .schedule import MAX_LOGIT_SCALE, clip_gradients, learning_rate, make_optimiser
from .seeds import generator
from .terms import evaluate_terms

LOADING_NAME = "loading.json"
TOKENIZER_CAPTIONS = 100_000  # enough for any vocabulary that a recipe names

Metrics = dict[str, Any]
Progress = Callable[[Metrics], None]


@dataclass
class Trainee:
    """What a step changes: the weights, the optimiser's state and the count of steps."""

    recipe: TrainRecipe
    model: Model
    optimiser: torch.optim.AdamW
    device: torch.device
    step: int = 0


def train(
    recipe: TrainRecipe,
    data: str | Path,
    out: str | Path,
    *,
    subset: Iterable[str] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Metrics:
    """Train a run in ``out`` on the pairs of ``data``, from its last checkpoint if it has one.

    ``data`` may be a URL that fsspec knows; ``subset`` holds the uids to use. ``progress`` is shown
    each logged step's metrics; the last are returned. On the CPU an interrupted run ends in the
    same bits as one that was not.

    Raises Refused where the request is wrong, Failed where the loss is no number any more or the
    disk is full: the last checkpoint is kept then.
    """
    out, place = Path(out), open_device(device)
    folder = open_folder(data)
    uids = None if subset is None else sorted(set(subset))
    config = describe_run(recipe, {"digest": folder.digest, "pairs": len(folder)}, uids)
    check_folder(out, config)
    tokenizer = open_tokenizer(out, recipe, folder, uids)
    open_stream = partial(
        Stream,
        folder,
        batch_pairs=recipe.batch_pairs,
        seed=recipe.seed,
        image_px=recipe.image_px,
        tokenizer=tokenizer,
        context_length=recipe.context_length,
        subset=uids,
        quarantine=out / "quarantine",
    )
    open_stream()  # too few pairs are refused before anything is written
    with hold_folder(out, config):
        saved = read_checkpoint(out)
        stream = open_stream(state=saved[1]["stream"] if saved else None)
        save_tokenizer(tokenizer, out / "tokenizer.json")
        trainee = make_trainee(recipe, tokenizer.get_vocab_size(), place)
        if saved:
            restore_training(saved[0], trainee.model, trainee.optimiser)
            trainee.step = saved[1]["step"]
        cut_metrics(out, trainee.step)
        with stream:
            take_steps(trainee, stream, out, progress)
        write_loading(stream, recipe.batch_pairs, out / LOADING_NAME)
        return last_metrics(out)


def write_loading(stream: Stream, batch_pairs: int, file: Path) -> None:
    """Write how the pairs were read, how well they were shuffled, and where the time went."""
    said = {
        "access": stream.access.why,
        "shards_per_batch": round(stream.order.shards_per_batch(batch_pairs), 1),
        "accounts": stream.accounts(),
        **json.loads(stream.report().to_json()),
    }
    with replaced(file) as sink:
        sink.write(json.dumps(said, indent=1).encode())


def open_device(name: str) -> torch.device:
    """Return the device of that name; raises Refused where this machine has none."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"there is no device {name!r} here ({reason}); use cpu") from error
    return device


def open_tokenizer(
    out: Path, recipe: TrainRecipe, folder: Folder, uids: list[str] | None
) -> Tokenizer:
    """Load the run's tokenizer, or learn one from the captions that the run will see."""
    if (out / "tokenizer.json").is_file():
        return load_tokenizer(out / "tokenizer.json")
    rows = np.arange(len(folder)) if uids is None else folder.rows_of(uids)
    some = rows[:: -(-len(rows) // TOKENIZER_CAPTIONS) or 1]
    return train_tokenizer((folder.caption(row) for row in some), recipe.vocabulary)


def make_trainee(recipe: TrainRecipe, vocabulary: int, device: torch.device) -> Trainee:
    """Make a model and its optimiser at step 0."""
    model = build_model(recipe, vocabulary).to(device).train()
    return Trainee(recipe, model, make_optimiser(recipe, model), device)


def take_steps(trainee: Trainee, stream: Stream, out: Path, progress: Progress | None) -> None:
    """Train to the last step, logging and saving on the way."""
    recipe, since, pairs = trainee.recipe, time.perf_counter(), 0
    if trainee.step >= recipe.steps:
        return
    with (out / "metrics.jsonl").open("a") as log:
        for batch in stream:
            measured = take_step(trainee, batch, out)
            pairs += len(batch.uids)
            last = trainee.step == recipe.steps
            if last or trainee.step == 1 or trainee.step % recipe.log_steps == 0:
                speed = pairs / (time.perf_counter() - since)
                metrics = measured | {"samples_per_s": round(speed, 1)}
                log.write(json.dumps(metrics) + "\n")
                log.flush()
                if progress is not None:
                    progress(metrics)
                since, pairs = time.perf_counter(), 0
            if last or trainee.step % recipe.checkpoint_steps == 0:
                paused = time.perf_counter()
                os.fsync(log.fileno())  # a checkpoint never outlives the metrics before it
                state = {"step": trainee.step, "stream": stream.state()}
                save_checkpoint(out, trainee.model, trainee.optimiser, state)
                since += time.perf_counter() - paused
            if last:
                return


def take_step(trainee: Trainee, batch: Batch, out: Path) -> Metrics:
    """Update the weights with one batch; return the step's metrics."""
    recipe, model = trainee.recipe, trainee.model
    tokens_BT = batch.tokens[:, : int((batch.tokens != PAD).sum(dim=1).max())]
    masks = draw_masks(recipe, model.views, tokens_BT, trainee.step, trainee.device)
    views = model(batch.images.to(trainee.device), tokens_BT.to(trainee.device), masks)
    loss, means = evaluate_terms(recipe.weights, views)
    trainee.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norms = clip_gradients(recipe, model)
    rate = learning_rate(recipe, trainee.step)
    if not bool((loss.isfinite() & norms.isfinite().all()).item()):
        report_not_finite(trainee, loss, rate, batch, out)
    for group in trainee.optimiser.param_groups:
        group["lr"] = rate
    trainee.optimiser.step()
    trainee.step += 1
    metrics: Metrics = {"step": trainee.step, "loss": loss.item(), "lr": rate}
    metrics |= {name: mean.item() for name, mean in means.items()}
    if "image" in model.views:
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        metrics["logit_scale"] = model.logit_scale.exp().item()
    return metrics


def draw_masks(
    recipe: TrainRecipe,
    views: frozenset[str],
    tokens_BT: Tensor,
    step: int,
    device: torch.device,
) -> dict[str, Mask]:
    """Draw the masks of one step, each view from a stream of its own."""
    masks = {}
    pairs, length = tokens_BT.shape
    if "masked image" in views:
        patches = (recipe.image_px // recipe.patch_px) ** 2
        noise_BN = torch.rand(pairs, patches, generator=generator(recipe.seed, "patches", step))
        masks["masked image"] = hide_patches(noise_BN, recipe.image_mask)
    if "masked text" in views:
        draws = generator(recipe.seed, "words", step)
        # The whole context is drawn, so that a mask does not depend on the longest caption.
        noise_BT = torch.rand(pairs, recipe.context_length, generator=draws)[:, :length]
        masks["masked text"] = hide_tokens(noise_BT, tokens_BT, recipe.text_mask)
    return {name: Mask(*(t.to(device) for t in mask)) for name, mask in masks.items()}


def report_not_finite(
    trainee: Trainee, loss: Tensor, rate: float, batch: Batch, out: Path
) -> NoReturn:
    """Raise Failed, with the batch's uids in a file; weights and checkpoint stay as they are."""
    listed = out / "not_finite.txt"
    listed.write_text("\n".join(batch.uids) + "\n", encoding="utf-8")
    raise Failed(
        f"loss or gradient is not finite at step {trainee.step + 1} (loss {loss.item():.4g},"
        f" learning rate {rate:.3g}, uids of the batch from {batch.uids[0]} on in {listed});"
        " the last checkpoint is kept: train again in another folder with a smaller lr"
    )
