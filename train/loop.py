"""Train a run: take a batch, encode the planned views, add up the terms, step; and go on later."""

import json
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from breadth.loaders.errors import PoolError, Refused
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.stream import Stream
from breadth.loaders.tokenize import load_tokenizer, save_tokenizer, train_tokenizer
from breadth.loaders.whole_file import replaced

from .checkpoint import read_checkpoint, restore_training, save_checkpoint, used_weights
from .exchange.numbering import given_tokenizer
from .recipe import TrainRecipe
from .run_folder import check_folder, cut_metrics, describe_run, hold_folder, last_metrics
from .trainee import Trainee, make_trainee, start_from
from .update import Metrics, take_step

LOADING_NAME = "loading.json"
TOKENIZER_CAPTIONS = 100_000  # enough for any vocabulary that a recipe names

Progress = Callable[[Metrics], None]


def train(
    recipe: TrainRecipe,
    data: str | Path,
    out: str | Path,
    *,
    subset: Iterable[str] | None = None,
    start: str | Path | None = None,
    tokenizer_file: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Metrics:
    """Train a run in ``out`` on the pairs of ``data``, from its last checkpoint if it has one.

    ``data`` may be a URL that fsspec knows; ``subset`` holds the uids to use; ``start`` is a run
    whose tokenizer, and whose weights where they fit, a new run begins with (MAE, then CLIP);
    ``tokenizer_file`` is the tokenizer.json of CLIP, BERT or another to cut captions with.
    ``progress`` is shown each logged step's metrics; the last are returned. On the CPU an
    interrupted run ends in the same bits as one that was not.

    Raises Refused where the request is wrong, Failed where the loss is no number any more or the
    disk is full: the last checkpoint is kept then.
    """
    out, place = Path(out), open_device(device)
    folder = open_folder(data)
    uids = None if subset is None else sorted(set(subset))
    about = {"digest": folder.digest, "pairs": len(folder)}
    config = describe_run(recipe, about, uids, None if start is None else Path(start))
    check_folder(out, config)
    source = out if start is None else Path(start)
    tokenizer = open_tokenizer(source, recipe, folder, uids, tokenizer_file)
    open_stream = partial(
        Stream,
        folder,
        batch_pairs=recipe.batch_pairs,
        seed=recipe.seed,
        image_px=recipe.image_px,
        tokenizer=tokenizer,
        context_length=recipe.context_length,
        augment=recipe.augment,
        subset=uids,
        weights=recipe.weights or None,
        quarantine=out / "quarantine",
    )
    open_stream()  # too few pairs are refused before anything is written
    with hold_folder(out, config):
        saved = read_checkpoint(out)
        stream = open_stream(state=saved[1]["stream"] if saved else None)
        save_tokenizer(tokenizer, out / "tokenizer.json")
        trainee = make_trainee(recipe, tokenizer.get_vocab_size(), place)
        if saved:
            restore_training(saved, trainee)
        elif start is not None:
            begin_with(trainee, Path(start))
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
    out: Path,
    recipe: TrainRecipe,
    folder: Folder,
    uids: list[str] | None,
    given: str | Path | None = None,
) -> Tokenizer:
    """Load the run's tokenizer or the one given, or learn one from captions that it will see."""
    if given is not None:
        return given_tokenizer(Path(given), out)
    if (out / "tokenizer.json").is_file():
        return load_tokenizer(out / "tokenizer.json")
    rows = np.arange(len(folder)) if uids is None else folder.rows_of(uids)
    some = rows[:: -(-len(rows) // TOKENIZER_CAPTIONS) or 1]
    return train_tokenizer((folder.caption(row) for row in some), recipe.vocabulary)


def begin_with(trainee: Trainee, start: Path) -> None:
    """Take over another run's weights; raises PoolError where not one of them fits."""
    saved = read_checkpoint(start)
    if saved is None:
        raise PoolError(f"{start} has no checkpoint yet; train it first")
    if not start_from(trainee, used_weights(saved[0])):
        raise PoolError(f"{start} has no weight of this recipe's names and shapes; use one size")


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
                save_checkpoint(out, trainee, stream.state())
                since += time.perf_counter() - paused
            if last:
                return
