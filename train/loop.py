"""Train a run: take a batch, encode the planned views, add up the terms, step; and go on later."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from breadth.loaders.captions import Captions
from breadth.loaders.errors import Refused
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.stream import Stream
from breadth.loaders.tokenize import load_tokenizer, save_tokenizer, train_tokenizer
from breadth.loaders.whole_file import replaced

from .checkpoint import begin_with, read_checkpoint, restore_training, save_checkpoint
from .exchange.numbering import given_tokenizer
from .flops import pair_flops
from .ranks import Ranks, join_ranks
from .recipe import TrainRecipe
from .run_folder import (
    CHECKPOINT,
    begun_with,
    check_folder,
    cut_metrics,
    describe_run,
    hold_folder,
    last_metrics,
)
from .run_log import RunLog
from .speed import Meter, device_peak
from .trainee import Trainee, make_trainee
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
    shard: bool = False,
    progress: Progress | None = None,
) -> Metrics:
    """Train a run in ``out`` on the pairs of ``data``, from its last checkpoint if it has one.

    ``data`` may be a URL that fsspec knows; ``subset`` holds the uids to use; ``start`` is a run
    whose tokenizer, and whose weights where they fit, a new run begins with (MAE, then CLIP) and
    needs until its first checkpoint; ``tokenizer_file`` is the tokenizer.json of CLIP, BERT or
    another to cut captions with.
    Started by torchrun, the ranks share each batch, and with ``shard`` the model too; all must see
    ``out``, and rank 0 writes it. Another number of ranks may go on with a run.
    ``progress`` is shown each logged step's metrics; the last are returned. On the CPU an
    interrupted run ends in the same bits as one that was not.

    Raises Refused where the request is wrong, Failed where the loss is no number any more or the
    disk is full: the last checkpoint is kept then.
    """
    with join_ranks(device) as (ranks, place):
        if shard and ranks.world == 1:
            raise Refused("one process has nobody to share the model with: start it by torchrun")
        given = None if tokenizer_file is None else Path(tokenizer_file)
        look = partial(look_at, recipe, data, Path(out), subset, start, given)
        request = ranks.agree(look)
        return run_on(ranks, place, request, shard=shard, progress=progress)


class Request(NamedTuple):
    """What is to be trained, on which pairs, where; ``config`` is what config.json holds."""

    recipe: TrainRecipe
    folder: Folder
    out: Path
    uids: list[str] | None
    start: Path | None
    tokenizer: Path | None
    config: dict[str, Any]


def look_at(
    recipe: TrainRecipe,
    data: str | Path,
    out: Path,
    subset: Iterable[str] | None,
    start: str | Path | None,
    tokenizer: Path | None,
) -> Request:
    """Open the data and look at ``out``, writing nothing; raises Refused where one is wrong."""
    folder, begin = open_folder(data), None if start is None else Path(start)
    uids = None if subset is None else sorted(set(subset))
    about = {"digest": folder.digest, "pairs": len(folder)}
    config = describe_run(recipe, about, uids, begun_with(out, begin))
    check_folder(out, config)
    if (out / CHECKPOINT).is_file():
        begin = None  # what it began with is in there
    return Request(recipe, folder, out, uids, begin, tokenizer, config)


def run_on(
    ranks: Ranks,
    place: torch.device,
    request: Request,
    *,
    shard: bool,
    progress: Progress | None,
) -> Metrics:
    """Train on some ranks; what raises on one of them ends all."""
    recipe, out = request.recipe, request.out
    tokenizer = ranks.first(partial(open_tokenizer, request))
    open_stream = stream_of(request, tokenizer, ranks)
    # Too few pairs, or a model that cannot be made or begun, are found before anything is written.
    ranks.agree(open_stream)
    trainee = make_trainee(recipe, tokenizer.get_vocab_size(), place, ranks, shard=shard)
    ranks.agree(partial(begin_with, trainee, request.start))
    with ExitStack() as held:
        ranks.first(partial(hold, held, out, request.config))
        saved = ranks.agree(partial(read_checkpoint, out))
        ranks.agree(partial(check_sight, ranks.each(saved and saved[1]["step"]), out))
        stream = open_stream(state=saved[1]["stream"] if saved else None)
        if saved:
            restore_training(saved, trainee)
        ranks.first(partial(prepare_folder, out, tokenizer, trainee.step))
        begun = trainee.step
        with stream:
            take_steps(trainee, stream, out, progress)
        return ranks.first(partial(finish, out, stream, recipe, trainee.step - begun))


def stream_of(request: Request, tokenizer: Tokenizer, ranks: Ranks) -> Callable[..., Stream]:
    """Return what opens this rank's stream of the run's pairs, at a state where one is given."""
    recipe = request.recipe
    # Half of the cores decode, shared by the ranks of this machine.
    near = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = max(1, len(os.sched_getaffinity(0)) // (2 * near)) if ranks.world > 1 else None
    return partial(
        Stream,
        request.folder,
        batch_pairs=recipe.batch_pairs,
        seed=recipe.seed,
        image_px=recipe.image_px,
        tokenizer=tokenizer,
        context_length=recipe.context_length,
        augment=recipe.augment,
        subset=request.uids,
        weights=recipe.weights or None,
        caption_noise=recipe.caption_noise,
        quarantine=request.out / "quarantine",
        rank=ranks.rank,
        world=ranks.world,
        workers=workers,
    )


def hold(held: ExitStack, out: Path, config: Mapping[str, Any]) -> None:
    """Keep the run's folder for this process until the stack ends."""
    held.enter_context(hold_folder(out, config))


def check_sight(steps: list[int | None], out: Path) -> None:
    """Refuse ranks that do not find the same checkpoint; ``steps`` are those they found."""
    if len(set(steps)) > 1:
        raise Refused(f"ranks find different checkpoints in {out}: give a folder that all share")


def prepare_folder(out: Path, tokenizer: Tokenizer, step: int) -> None:
    """Write the tokenizer and forget what was logged after a step."""
    save_tokenizer(tokenizer, out / "tokenizer.json")
    cut_metrics(out, step)


def finish(out: Path, stream: Stream, recipe: TrainRecipe, taken: int) -> Metrics:
    """Write how the pairs of the steps ``taken`` were read; return the last metrics."""
    if taken or not (out / LOADING_NAME).is_file():
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


def open_tokenizer(request: Request) -> Tokenizer:
    """Load the run's tokenizer or the one given, or learn one from captions that it will see."""
    if request.tokenizer is not None:
        return given_tokenizer(request.tokenizer, request.start or request.out)
    folder, file = request.folder, (request.start or request.out) / "tokenizer.json"
    if request.start is not None or file.is_file():
        return load_tokenizer(file)
    rows = np.arange(len(folder)) if request.uids is None else folder.rows_of(request.uids)
    some = rows[:: -(-len(rows) // TOKENIZER_CAPTIONS) or 1]
    listed = Captions(folder).all(some)
    captions = (caption for one in listed if isinstance(one, list) for caption in one)
    return train_tokenizer(captions, request.recipe.vocabulary)


def take_steps(trainee: Trainee, stream: Stream, out: Path, progress: Progress | None) -> None:
    """Train to the last step, logging and saving on the way."""
    recipe, ranks = trainee.recipe, trainee.ranks
    if trainee.step >= recipe.steps:
        return
    meter = Meter(device_peak(trainee.device, recipe.precision), ranks.world)
    with RunLog(out, trainee.step) if ranks.rank == 0 else nullcontext() as log:
        for batch in stream:
            taken = take_step(trainee, batch)
            meter.add(recipe.batch_pairs)
            last, logs = trainee.step == recipe.steps, recipe.logs(trainee.step)
            saves = last or trainee.step % recipe.checkpoint_steps == 0
            if logs or saves:
                trainee.watch.look(recipe, ranks, out)
            if logs:
                flops = pair_flops(recipe, trainee.vocabulary, taken.lengths)
                metrics = taken.metrics(trainee) | meter.read(flops)
                show(metrics, log, progress)
            if saves:
                paused = time.perf_counter()
                if log is not None:
                    log.sync()  # a checkpoint never outlives the metrics before it
                save_checkpoint(out, trainee, stream.state())
                meter.pause(time.perf_counter() - paused)
            if last:
                return


def show(metrics: Metrics, log: RunLog | None, progress: Progress | None) -> None:
    """Write a step's metrics and show them to the caller; on rank 0 alone."""
    if log is not None:
        log.write(metrics)
        if progress is not None:
            progress(metrics)
