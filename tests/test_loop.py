"""Training: equal curves, exact continuation, and what it says when it cannot go on."""

import contextlib
import shutil
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch._dynamo.utils import counters

from breadth.loaders.errors import Failed, OutputError, PoolError, Refused
from breadth.train import checkpoint, loop, trainee
from breadth.train.checkpoint import load_run, read_checkpoint
from breadth.train.loop import train
from breadth.train.model import Model, build_model
from breadth.train.ranks import TORCHRUN
from breadth.train.terms import InfoNCE

from .bars import JOINT, curve, make_recipe, write_bars

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder of 64 pairs."""
    return write_bars(tmp_path_factory.mktemp("data") / "pairs")


def weights(out):
    """Return a run's weights by name."""
    tensors, _ = read_checkpoint(out)
    return {name: t for name, t in tensors.items() if name.startswith("model.")}


def stop_at(step):
    """Return a progress function that stops a run as Ctrl-C would."""

    def stop(metrics):
        if metrics["step"] == step:
            raise KeyboardInterrupt

    return stop


def test_loss_falls_on_64_pairs(data, tmp_path):
    """Every term gets well below where it began."""
    recipe = make_recipe(steps=60, warmup_steps=5, checkpoint_steps=60)
    train(recipe, data, tmp_path / "run")
    rows = curve(tmp_path / "run")
    assert rows[-1]["InfoNCE"] < 0.5 * rows[0]["InfoNCE"]
    assert rows[-1]["Pixels"] < 0.5 * rows[0]["Pixels"]
    assert rows[-1]["Tokens"] < 0.5 * rows[0]["Tokens"]


def test_an_interrupted_run_ends_as_an_uninterrupted_one(data, tmp_path):
    """Stopped between checkpoints and started again: equal curve, weights and optimiser."""
    recipe, whole, broken = make_recipe(ema=0.8), tmp_path / "whole", tmp_path / "broken"
    train(recipe, data, whole)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, broken, progress=stop_at(5))
    assert [row["step"] for row in curve(broken)] == [1, 2, 3, 4, 5]
    with (broken / "metrics.jsonl").open("a") as log:
        log.write('{"step": 6, "lo')  # what a kill may leave
    train(recipe, data, broken)
    assert curve(broken) == curve(whole)
    left, right = read_checkpoint(broken), read_checkpoint(whole)
    assert left[1] == right[1]
    assert left[0].keys() == right[0].keys()
    assert all(torch.equal(left[0][name], right[0][name]) for name in left[0])


@pytest.mark.parametrize("moment", ["writing", "naming"])
def test_a_kill_while_a_checkpoint_is_written_costs_no_bit(data, tmp_path, monkeypatch, moment):
    """Killed in the second checkpoint, half written or not yet named: the end is the same."""
    recipe, whole, broken = make_recipe(checkpoint_steps=2), tmp_path / "whole", tmp_path / "broken"
    train(recipe, data, whole)
    save, calls = checkpoint.save_file, []

    def killed(tensors, path, metadata):
        calls.append(1)
        save(tensors, path, metadata=metadata)
        if len(calls) == 2:
            if moment == "writing":
                path.write_bytes(path.read_bytes()[:5000])
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", killed)
        with pytest.raises(SystemExit):
            train(recipe, data, broken)
    assert curve(broken)[-1]["step"] == 4  # the metrics are ahead of the checkpoint
    assert read_checkpoint(broken)[1]["step"] == 2
    train(recipe, data, broken)
    assert curve(broken) == curve(whole)
    left, right = (out / "checkpoint.safetensors" for out in (broken, whole))
    assert left.read_bytes() == right.read_bytes()


def test_a_run_that_another_began_meanwhile_is_left_alone(data, tmp_path, monkeypatch):
    """Two that both found the folder empty: the later one is refused and changes nothing."""
    out, learn = tmp_path / "run", loop.open_tokenizer

    def overtaken(*arguments):
        monkeypatch.setattr(loop, "open_tokenizer", learn)
        train(make_recipe(steps=1, lr=1e-3), data, out)
        return learn(*arguments)

    monkeypatch.setattr(loop, "open_tokenizer", overtaken)
    with pytest.raises(OutputError, match="other recipe"):
        train(make_recipe(steps=1), data, out)
    assert load_run(out).recipe.lr == 1e-3


def test_the_checkpoint_is_read_once_the_folder_is_held(data, tmp_path, monkeypatch):
    """What another process trained until just before is gone on from, not done again."""
    out, stream, seen = tmp_path / "run", loop.Stream, []

    def overtaken(*arguments, **options):
        if loop.Stream is not stream:
            monkeypatch.setattr(loop, "Stream", stream)
            train(make_recipe(), data, out)
        return stream(*arguments, **options)

    monkeypatch.setattr(loop, "Stream", overtaken)
    train(make_recipe(), data, out, progress=seen.append)
    assert seen == []


def test_lost_metrics_of_a_finished_run_are_named(data, tmp_path):
    """A trained run without its metrics.jsonl says so in one line."""
    train(make_recipe(steps=1), data, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(PoolError, match=r"metrics\.jsonl is empty or gone"):
        train(make_recipe(steps=1), data, tmp_path / "run")


def test_a_finished_run_is_left_alone(data, tmp_path):
    """The same command again takes no step, returns the same metrics and writes no other account.

    An account that is gone is one of no steps.
    """
    first = train(make_recipe(), data, tmp_path / "run")
    files = [tmp_path / "run" / name for name in ("checkpoint.safetensors", "loading.json")]
    before = [file.read_bytes() for file in files]
    assert train(make_recipe(), data, tmp_path / "run", progress=stop_at(6)) == first
    assert [file.read_bytes() for file in files] == before
    files[1].unlink()
    assert train(make_recipe(), data, tmp_path / "run") == first
    assert files[1].is_file()


def test_a_step_whose_gradients_are_looked_at_is_logged(data, tmp_path):
    """Whatever log_steps says: what was measured at a cost is not thrown away."""
    train(make_recipe(log_steps=4, gradient_steps=3), data, tmp_path / "run")
    rows = curve(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 3, 4, 6]
    assert [row["step"] for row in rows if "gradient/Pixels" in row] == [3, 6]


def test_weight_zero_is_clip_bit_for_bit(data, tmp_path):
    """MAE-CLIP with weights 0 ends in CLIP's weights and curve."""
    train(make_recipe({"InfoNCE": 1}), data, tmp_path / "clip")
    train(make_recipe({**JOINT, "Pixels": 0, "Tokens": 0}), data, tmp_path / "zero")
    clip, zero = weights(tmp_path / "clip"), weights(tmp_path / "zero")
    assert clip.keys() == zero.keys()
    assert all(torch.equal(clip[name], zero[name]) for name in clip)
    assert curve(tmp_path / "clip") == curve(tmp_path / "zero")


def test_a_placebo_s_encoder_is_clip_s_after_50_steps(data, tmp_path):
    """A decoder that learns from features it cannot change leaves no bit of the encoder other."""
    options = {"steps": 50, "checkpoint_steps": 50, "log_steps": 50}
    train(make_recipe({"InfoNCE": 1}, **options), data, tmp_path / "clip")
    train(make_recipe(placebo=True, **options), data, tmp_path / "placebo")
    clip, placebo = weights(tmp_path / "clip"), weights(tmp_path / "placebo")
    assert all(torch.equal(value, placebo[name]) for name, value in clip.items())
    begun = dict(build_model(make_recipe(placebo=True), 300).named_parameters())
    decoder = [name for name in begun if name.startswith("decoder.")]
    assert placebo.keys() - clip.keys() == {f"model.{name}" for name in decoder}
    assert all(not torch.equal(placebo[f"model.{name}"], begun[name]) for name in decoder)
    rows = [curve(tmp_path / name)[-1] for name in ("clip", "placebo")]
    assert rows[0]["pairs_digest"] == rows[1]["pairs_digest"]


def test_averaged_weights_are_the_closed_form(data, tmp_path):
    """Each step's share is what later decays leave of it: 2/11, 3/12, then the recipe's 0.3."""
    recipe = make_recipe({"InfoNCE": 1}, ema=0.3, checkpoint_steps=1, lr=0.05)
    begun = build_model(recipe, 300).image.patch.weight.detach()
    train(recipe, data, tmp_path / "run")
    steps = []
    for steps_done in range(1, 7):
        again = make_recipe({"InfoNCE": 1}, ema=0.3, checkpoint_steps=steps_done, lr=0.05)
        out = tmp_path / f"{steps_done}"
        with contextlib.suppress(KeyboardInterrupt):
            train(again, data, out, progress=stop_at(steps_done + 1))
        steps.append(read_checkpoint(out)[0]["model.image.patch.weight"])
    decays, left, expected = [2 / 11, 3 / 12, *[0.3] * 4], 1.0, torch.zeros_like(begun)
    for decay, weight in zip(reversed(decays), reversed(steps), strict=True):
        expected, left = expected + left * (1 - decay) * weight, left * decay
    expected = expected + left * begun
    found = load_run(tmp_path / "run").model.image.patch.weight
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, steps[-1], atol=1e-3)


@pytest.mark.parametrize("stop", [2, 6])
def test_tensorboard_shows_every_logged_step_once(data, tmp_path, stop):
    """Also where a run was stopped before its first checkpoint, or after its last, and went on."""
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(make_recipe(), data, out, progress=stop_at(stop))
    train(make_recipe(), data, out)
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    rows = curve(out)
    for name in ("loss", "InfoNCE", "logit_scale", "lr"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [row["step"] for row in rows]
        assert [s.value for s in scalars] == pytest.approx([row[name] for row in rows])
    assert {"samples_per_s", "mfu"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("terms", [JOINT, {"Tokens": {"masking": "corrupted"}}])
def test_a_compiled_run_has_the_curve_of_an_eager_one(data, tmp_path, monkeypatch, terms):
    """Within rounding, on one graph for all steps, whatever their captions' lengths.

    The graphs are run as they are: to make kernels of them takes minutes.
    """
    monkeypatch.setattr(Model, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    small = dict.fromkeys(("width", "text_width", "embedding", "decoder_width"), 32)
    small |= dict.fromkeys(("heads", "text_heads", "decoder_heads"), 2)
    small |= dict.fromkeys(("depth", "text_depth", "decoder_depth"), 1)
    options = {"steps": 8, "batch_pairs": 16, "size": small, "checkpoint_steps": 8}
    train(make_recipe(terms, **options), data, tmp_path / "eager")
    torch._dynamo.reset()
    counters.clear()
    train(make_recipe(terms, **options, compiled=True), data, tmp_path / "compiled")
    assert 1 <= counters["stats"]["unique_graphs"] <= 2
    assert not counters["graph_break"]
    pairs = zip(curve(tmp_path / "compiled"), curve(tmp_path / "eager"), strict=True)
    for compiled, eager in pairs:
        assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-4)
        assert compiled["masks_digest"] == eager["masks_digest"]


def test_initial_weights_depend_on_seed_and_name_alone():
    """CLIP begins with MAE-CLIP's towers, and another seed gives others."""
    clip = dict(build_model(make_recipe({"InfoNCE": 1}), 300).named_parameters())
    joint = dict(build_model(make_recipe(), 300).named_parameters())
    assert clip.keys() < joint.keys()
    assert all(torch.equal(clip[name], joint[name]) for name in clip)
    other = dict(build_model(make_recipe(seed=1), 300).named_parameters())
    assert not torch.equal(other["image.patch.weight"], clip["image.patch.weight"])


def test_the_caller_s_random_state_is_left_alone(data, tmp_path):
    """Training neither reads nor moves torch's global generator."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(make_recipe(steps=2), data, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    train(make_recipe(steps=2), data, tmp_path / "b")
    assert curve(tmp_path / "a") == curve(tmp_path / "b")


def test_a_subset_trains_on_its_pairs_alone(data, tmp_path, monkeypatch):
    """Only uids of the subset reach a step."""
    seen, step = set(), loop.take_step

    def watch(trainee, batch):
        seen.update(batch.uids)
        return step(trainee, batch)

    monkeypatch.setattr(loop, "take_step", watch)
    uids = sorted(loop.open_folder(data).uids)[:40]
    train(make_recipe(), data, tmp_path / "run", subset=uids)
    assert seen == set(uids)


def test_another_recipe_or_other_data_is_refused(data, tmp_path):
    """A run's folder takes no other run, and the line says what differs."""
    train(make_recipe(steps=1), data, tmp_path / "run")
    with pytest.raises(OutputError, match=r"other recipe \(lr: 0.003 there, 0.001 here\)"):
        train(make_recipe(steps=1, lr=1e-3), data, tmp_path / "run")
    uids = list(loop.open_folder(data).uids)[:40]
    with pytest.raises(OutputError, match=r"other data \(subset"):
        train(make_recipe(steps=1), data, tmp_path / "run", subset=uids)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no run"):
        train(make_recipe(steps=1), data, tmp_path / "full")


def test_a_second_trainer_is_told(data, tmp_path):
    """While one trains, another on the same folder is refused and takes no step."""

    def start_another(metrics):
        with pytest.raises(OutputError, match="being trained by another process"):
            train(make_recipe(steps=1), data, tmp_path / "run", progress=stop_at(1))

    train(make_recipe(steps=1), data, tmp_path / "run", progress=start_another)


def test_what_cannot_begin_leaves_no_folder(data, tmp_path):
    """Too few pairs or missing data: refused, nothing written."""
    out = tmp_path / "run"
    with pytest.raises(PoolError, match="fewer than a batch"):
        train(make_recipe(batch_pairs=65), data, out)
    with pytest.raises(PoolError):
        train(make_recipe(), tmp_path / "nowhere", out)
    assert not out.exists()


@pytest.mark.parametrize("device", ["warp", "meta", "cpu:x", "cuda:99"])
def test_an_unknown_device_is_refused_in_a_short_line(data, tmp_path, device):
    """A name that torch does not know, one that holds no numbers, a card that is not there."""
    with pytest.raises(Refused, match=f"'{device}'.*use cpu") as refused:
        train(make_recipe(), data, tmp_path / "run", device=device)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_other_processes_without_torchrun_are_refused(data, tmp_path, monkeypatch):
    """WORLD_SIZE alone, as some clusters set it, says in one line what to do."""
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Refused, match="start by torchrun, or unset WORLD_SIZE"):
        train(make_recipe(), data, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run(data, tmp_path, monkeypatch):
    """Step, rate and uids are named, and the checkpoint before it stays as it was."""
    out, loss = tmp_path / "run", InfoNCE.loss
    calls = []

    def spoil(term, views):
        calls.append(1)
        total, count = loss(term, views)
        return (total * float("nan") if len(calls) == 5 else total), count

    monkeypatch.setattr(InfoNCE, "loss", spoil)
    with pytest.raises(Failed, match=r"not finite at step 5 .*learning rate 0\.00\d+"):
        train(make_recipe(), data, out)
    assert len((out / "not_finite.txt").read_text().split()) == 32
    assert read_checkpoint(out)[1]["step"] == 4
    assert all(tensor.isfinite().all() for tensor in weights(out).values())


def test_the_logit_scale_stays_at_most_100(data, tmp_path):
    """A rate that drives it up meets the clamp."""
    train(make_recipe({"InfoNCE": 1}, lr=2.0, steps=3), data, tmp_path / "run")
    assert all(row["logit_scale"] <= 100.001 for row in curve(tmp_path / "run"))


@pytest.mark.parametrize("pool", ["cls", "max", "topk:2"])
def test_every_pool_trains(data, tmp_path, pool):
    """Each pool's run takes its steps and embeds with norm 1."""
    train(make_recipe({"InfoNCE": 1}, pool=pool, steps=2), data, tmp_path / "run")
    vectors = load_run(tmp_path / "run").embed_pictures(np.zeros((3, 3, 32, 32), np.uint8))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.gpu
def test_cuda_follows_the_cpu(data, tmp_path):
    """The same recipe gives nearly the same curve on both kinds of device."""
    recipe = replace(make_recipe(), steps=4)
    train(recipe, data, tmp_path / "cpu")
    train(recipe, data, tmp_path / "cuda", device="cuda")
    for left, right in zip(curve(tmp_path / "cpu"), curve(tmp_path / "cuda"), strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-3)


def test_a_run_of_another_size_is_no_start(data, tmp_path):
    """Weights that fit by name and not by shape are refused, not left out silently."""
    train(make_recipe({"InfoNCE": 1}, steps=1), data, tmp_path / "small")
    with pytest.raises(PoolError, match="has another shape; use the same size"):
        train(
            make_recipe({"InfoNCE": 1}, steps=1, size="micro"),
            data,
            tmp_path / "large",
            start=tmp_path / "small",
        )
    assert not (tmp_path / "large").exists()


def test_a_model_that_cannot_be_made_leaves_no_folder(data, tmp_path, monkeypatch):
    """Whatever is wrong with it: the folder is free for the recipe that is mended."""

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(trainee, "build_model", fail)
    with pytest.raises(MemoryError):
        train(make_recipe(), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def began(data, tmp_path_factory):
    """Return a run that others begin with."""
    out = tmp_path_factory.mktemp("began") / "mae"
    train(make_recipe({"Pixels": 1}, steps=1), data, out)
    return out


@pytest.mark.parametrize("change", ["gone", "trained on"])
def test_a_run_with_a_checkpoint_needs_its_start_no_more(data, began, tmp_path, change):
    """The same command goes on with it, to the same end, whatever became of the start."""
    recipe, start = make_recipe({"InfoNCE": 1}), tmp_path / "mae"
    shutil.copytree(began, start)
    train(recipe, data, tmp_path / "whole", start=start)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "run", start=start, progress=stop_at(5))
    if change == "gone":
        shutil.rmtree(start)
    else:
        (start / "checkpoint.safetensors").write_bytes(b"other")
    train(recipe, data, tmp_path / "run", start=start)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    with pytest.raises(OutputError, match="other start"):
        train(recipe, data, tmp_path / "run")


def test_a_start_that_is_gone_before_the_first_checkpoint_is_missed(data, began, tmp_path):
    """Its weights are nowhere else then."""
    recipe, start = make_recipe({"InfoNCE": 1}), tmp_path / "mae"
    shutil.copytree(began, start)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "run", start=start, progress=stop_at(2))
    shutil.rmtree(start)
    with pytest.raises(PoolError, match="has no checkpoint to start from"):
        train(recipe, data, tmp_path / "run", start=start)


def test_a_start_without_its_tokenizer_is_refused(data, began, tmp_path):
    """Another one would number the words that its weights know anew."""
    start = tmp_path / "mae"
    shutil.copytree(began, start)
    (start / "tokenizer.json").unlink()
    with pytest.raises(PoolError, match="there is no tokenizer"):
        train(make_recipe({"InfoNCE": 1}), data, tmp_path / "run", start=start)
    assert not (tmp_path / "run").exists()
