"""Several real processes under gloo train as one does, and end together when one of them errs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from breadth.loaders.errors import Failed, Refused
from breadth.scripts.cli import main
from breadth.train.checkpoint import read_checkpoint
from breadth.train.gradients import term_gradients
from breadth.train.inputs import draw_inputs
from breadth.train.loop import train
from breadth.train.model import build_model
from breadth.train.parallel import clip_norm_, single_numbers, spread_model, whole
from breadth.train.ranks import ALONE, join_ranks
from breadth.train.step import Step, weights_at
from breadth.train.terms import InfoNCE

from .bars import curve, make_recipe, write_bars
from .ranks_at_work import together
from .test_step import FAMILY
from .test_terms import CPU, make_batch
from .test_terms import make_recipe as make_small

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("clip", "siglip", "slip", "coca", "maeclip", "m3ae", "caption", "placebo")
MORE = {
    "caption": {"terms": {"Caption": 1}, "architecture": "coca"},  # its heads have no loss
    "placebo": {**FAMILY["maeclip"], "placebo": True},
}
DTYPES = {"float64": 1e-10, "float32": 1e-5}
CUTS = {"whole": 0, "micro-batches": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder of 64 pairs."""
    return write_bars(tmp_path_factory.mktemp("data") / "pairs")


def one_backward(name, dtype, micro, ranks, shard):
    """Return the gradients of one batch of 8 pairs, its means and each term's own gradient."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        options = {**FAMILY, **MORE}[name]
        recipe = make_small(**options, batch_pairs=8, micro_batch_pairs=micro)
        model = build_model(recipe, 300).to(torch.get_default_dtype())
        runs = spread_model(model, ranks, compiled=False, shard=shard)
        images, tokens = make_batch(8)
        rows = slice(8 // ranks.world * ranks.rank, 8 // ranks.world * (ranks.rank + 1))
        inputs = draw_inputs(recipe, images[rows], tokens[rows], 3, vocabulary=300, rank=ranks.rank)
        step = Step(recipe, runs, CPU, ranks, single_numbers(model) if shard else ())
        terms = term_gradients(step, model, inputs)
        means = step.backward(inputs, weights_at(recipe.objective, 0, {}))
        found = {n: whole(p.grad).clone() for n, p in model.named_parameters()}
        found |= {f"mean of {n}": mean for n, mean in means.items()}
        found |= {f"gradient of {n}": gradient for n, gradient in terms.items()}
        found["norm"] = clip_norm_(list(model.parameters()), 0.01)
        clipped = torch.stack([whole(p.grad).norm() for p in model.parameters()])
        return found | {"clipped": clipped}
    finally:
        torch.set_default_dtype(default)


def save_backwards(file):
    """As a rank: take all gradients, copied and shared out; rank 0 saves them."""
    saved = {}
    with join_ranks("cpu") as (ranks, _):
        for name in NAMES:
            for dtype in DTYPES:
                for cut, micro in CUTS.items():
                    given = (name, dtype, micro, ranks)
                    saved[name, dtype, cut, "copied"] = one_backward(*given, False)
            saved[name, "float64", "whole", "shared"] = one_backward(
                name, "float64", 0, ranks, True
            )
        saved["clip", "float64", "micro-batches", "shared"] = one_backward(
            "clip", "float64", 4, ranks, True
        )
        if ranks.rank == 0:
            torch.save(saved, file)


@pytest.fixture(scope="module")
def backwards(tmp_path_factory):
    """Return what two ranks found."""
    folder = tmp_path_factory.mktemp("backwards")
    statuses, said = together(2, save_backwards, folder, folder / "saved.pt")
    assert statuses == [0, 0], said
    return torch.load(folder / "saved.pt")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_have_the_gradient_of_one(backwards, name, dtype):
    """Towers, logit scale, every term's own gradient and norms; whole, in parts, or shared out."""
    expected = one_backward(name, dtype, 0, ALONE, False)
    found = {key: value for key, value in backwards.items() if key[:2] == (name, dtype)}
    assert len(found) == (2 if dtype == "float32" else 4 if name == "clip" else 3)
    for key, gradients in found.items():
        assert gradients.keys() == expected.keys()
        for entry, value in expected.items():
            scale = max(1.0, value.abs().max().item())
            assert (gradients[entry] - value).abs().max() < DTYPES[dtype] * scale, (key, entry)


def go_on(data, outs, recipe):
    """As a rank: go on with runs, the second of them shared out."""
    for out, shard in outs:
        train(recipe, data, out, shard=shard)


def be_killed(data, out, recipe):
    """As a rank: train; rank 0 is killed at step 5."""

    def kill(metrics):
        if metrics["step"] == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        train(recipe, data, out, progress=kill)
    except Failed as error:
        sys.exit(str(error))


def like(found, expected):
    """Tell whether two curves agree, with equal fingerprints at every step."""
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for left, right in zip(found, expected, strict=True):
        for key, value in right.items():
            close = pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
            assert left[key] == close, (left["step"], key)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Return a folder with a run of one rank, and runs that one rank began and two ended."""
    folder, recipe = tmp_path_factory.mktemp("runs"), make_recipe(ema=0.8)

    def stop(metrics):
        if metrics["step"] == 5:
            raise KeyboardInterrupt

    train(recipe, data, folder / "one")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, folder / "copied", progress=stop)
    shutil.copytree(folder / "copied", folder / "shared")
    outs = [(folder / "copied", False), (folder / "shared", True)]
    statuses, said = together(2, go_on, folder / "said", data, outs, recipe)
    assert statuses == [0, 0], said
    return folder


@pytest.mark.parametrize("kind", ["copied", "shared"])
def test_two_ranks_go_on_with_the_run_of_one(runs, kind):
    """Curve, weights, optimiser and average are those of the run that one rank finished."""
    like(curve(runs / kind), curve(runs / "one"))
    found, expected = read_checkpoint(runs / kind), read_checkpoint(runs / "one")
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=2e-3, atol=2e-4, msg=name)


def test_one_rank_goes_on_with_the_run_of_two_that_were_killed(runs, data, tmp_path):
    """Killed on the way, rank 0 takes the other with it; what they saved is gone on with."""
    recipe, out = make_recipe(ema=0.8), tmp_path / "run"
    statuses, said = together(2, be_killed, tmp_path, data, out, recipe)
    assert statuses == [-signal.SIGKILL, 1]
    assert "rank 1 lost the others" in said[1]
    assert read_checkpoint(out)[1]["step"] == 4
    train(recipe, data, out)
    like(curve(out), curve(runs / "one"))


def test_four_ranks_see_what_one_sees(runs, data, tmp_path):
    """Fingerprints of pairs and masks are equal at every step, and so is the curve."""
    outs = [(tmp_path / "run", False)]
    statuses, said = together(4, go_on, tmp_path, data, outs, make_recipe(ema=0.8))
    assert statuses == [0] * 4, said
    like(curve(tmp_path / "run"), curve(runs / "one"))


def write_recipe(folder, **options):
    """Write a recipe file; return its path."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    terms = "[terms]\nInfoNCE = 1\nPixels = 1\n"
    (folder / "r.toml").write_text("\n".join([*lines, terms]))
    return folder / "r.toml"


def spoiled_main(rank, arguments):
    """As a rank: one rank's loss is no number from the third step on."""
    loss, calls = InfoNCE.loss, []

    def spoil(term, views):
        calls.append(1)
        total, count = loss(term, views)
        return (total * float("nan") if len(calls) >= 3 else total), count

    if os.environ["RANK"] == str(rank):
        InfoNCE.loss = spoil
    main(arguments)


def blind_main(rank, arguments):
    """As a rank: one rank does not find the data."""
    if os.environ["RANK"] == str(rank):
        arguments = [word.replace("/pairs", "/nowhere") for word in arguments]
    main(arguments)


def test_a_loss_that_is_no_number_on_one_rank_ends_all(data, tmp_path):
    """One line, status 1 on all, and the uids of the whole batch in a file."""
    options = {"steps": 6, "batch_pairs": 32, "vocabulary": 300, "log_steps": 1}
    words = ["train", write_recipe(tmp_path, **options), "--data", data, "--out", tmp_path / "run"]
    arguments = [str(word) for word in [*words, "--device", "cpu"]]
    statuses, said = together(2, spoiled_main, tmp_path, 1, arguments)
    assert statuses == [1, 1]
    assert said[1] == ""
    assert said[0].startswith("error: loss or gradient is not finite at step 3 ")
    assert said[0].count("\n") == 1
    assert len(set((tmp_path / "run" / "not_finite.txt").read_text().split())) == 32


def test_what_one_rank_refuses_is_refused_by_all(data, tmp_path):
    """The rank at which it failed says why in one line; both leave with its status."""
    options = {"steps": 6, "batch_pairs": 32, "vocabulary": 300}
    words = ["train", write_recipe(tmp_path, **options), "--data", data, "--out", tmp_path / "run"]
    arguments = [str(word) for word in [*words, "--device", "cpu"]]
    statuses, said = together(2, blind_main, tmp_path, 1, arguments)
    assert statuses == [2, 2]
    assert said[0] == ""
    assert said[1].startswith("error: ") and said[1].count("\n") == 1
    assert not (tmp_path / "run").exists()


def refuse_last(agrees):
    """As a rank: rank 1 refuses something, and says so when rank 0, which has the store, is gone.

    Rank 0 left because it agreed to that, or for reasons of its own.
    """

    def refuse():
        if ranks.rank == 1:
            raise Refused("not for rank 1")

    try:
        with join_ranks("cpu") as (ranks, _):
            ranks.each(None)  # rank 1 has joined: nothing of rank 0 is needed any more
            if ranks.rank == 0 and not agrees:
                raise SystemExit(2)
            try:
                ranks.agree(refuse) if agrees else refuse()
            finally:
                while ranks.rank == 1 and is_open(int(os.environ["MASTER_PORT"])):
                    time.sleep(0.05)
    except Refused as error:
        sys.exit(error.exit_status)


def is_open(port):
    """Tell whether somebody listens at a port of this machine."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("agrees", [True, False])
def test_a_rank_that_is_last_to_leave_keeps_its_error(tmp_path, agrees):
    """No note can be left for the others any more; where all know, torch does not even warn."""
    statuses, said = together(2, refuse_last, tmp_path, agrees)
    assert statuses == [2, 2], said
    assert not agrees or said == ["", ""]


def test_torchrun_starts_the_command(data, tmp_path):
    """The module and the console command run under torchrun; a batch is refused in one line."""
    options = {"steps": 2, "batch_pairs": 31, "vocabulary": 300}
    words = ["train", write_recipe(tmp_path, **options), "--data", data, "--out", tmp_path / "run"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "--no-python", Path(sys.executable).with_name("breadth"), *words],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 1  # torchrun's own
    assert done.stderr.count("error: a batch of 31 cannot be cut for rank 0 of 2") == 1
    write_recipe(tmp_path, **{**options, "batch_pairs": 32})
    done = subprocess.run(
        [*torchrun, "-m", "breadth.scripts.cli", *words, "--shard", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'run'}: 2 steps of r, loss ")
    assert done.stdout.count("\n") == 1
