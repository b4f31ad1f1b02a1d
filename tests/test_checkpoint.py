"""Runs on disk: whole at any moment, opened again with the same vectors."""

import cv2
import numpy as np
import pytest
import torch

from breadth.loaders.errors import Failed, PoolError, Refused
from breadth.loaders.tokenize import save_tokenizer, train_tokenizer
from breadth.train import checkpoint
from breadth.train.checkpoint import (
    Run,
    load_run,
    read_checkpoint,
    restore_training,
    save_checkpoint,
)
from breadth.train.embedder import open_run
from breadth.train.model import build_model
from breadth.train.recipe import TrainRecipe
from breadth.train.run_folder import write_json
from breadth.train.trainee import make_trainee

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)


def make_run(out, terms, seed=0):
    """Write a run of one step without data; return its trainee."""
    recipe = TrainRecipe(name="t", terms=terms, steps=1, vocabulary=300, seed=seed)
    tokenizer = train_tokenizer(["a red circle", "a blue square"], 300)
    trainee = make_trainee(recipe, tokenizer.get_vocab_size(), torch.device("cpu"))
    for parameter in trainee.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainee.optimiser.step()
    trainee.step = 1
    out.mkdir()
    write_json(out / "config.json", {"recipe": recipe.to_json()})
    save_tokenizer(tokenizer, out / "tokenizer.json")
    save_checkpoint(out, trainee, {"position": 7})
    return trainee


def test_a_checkpoint_gives_back_every_bit(tmp_path):
    """Weights, optimiser and state come back as they were saved."""
    trainee = make_run(tmp_path / "run", {"InfoNCE": 1, "Pixels": 1})
    tensors, state = read_checkpoint(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").stat().st_mode & 0o777 == 0o644
    assert state == {"step": 1, "stream": {"position": 7}, "units": {}, "seen": {}}
    again = make_trainee(trainee.recipe, trainee.vocabulary, torch.device("cpu"))
    restore_training((tensors, state), again)
    assert again.step == 1
    pairs = zip(trainee.model.parameters(), again.model.parameters(), strict=True)
    for left, right in pairs:
        assert torch.equal(left, right)
        for key, value in trainee.optimiser.state[left].items():
            assert torch.equal(value, again.optimiser.state[right][key])


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    """What was written half is not the checkpoint, and the line says to make room."""
    trainee = make_run(tmp_path / "run", {"InfoNCE": 1})
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()

    def fill_up(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fill_up)
    with pytest.raises(Failed, match=r"No space left.*make room and run the same command again"):
        save_checkpoint(tmp_path / "run", trainee, {})
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    assert load_run(tmp_path / "run").step == 1


def test_digests_tell_runs_apart(tmp_path):
    """Equal runs in two folders have one digest, another seed another."""
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_run(tmp_path / name, {"InfoNCE": 1}, seed)
    digests = [load_run(tmp_path / name).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_a_run_keeps_the_order_of_its_terms(tmp_path):
    """The first term measures those in units of gradient, so a run opens with the same first."""
    terms = {"Tokens": 1, "Pixels": {"weight": 1, "unit": "gradient"}}
    make_run(tmp_path / "run", terms)
    assert list(load_run(tmp_path / "run").recipe.objective) == ["Tokens", "Pixels"]


def test_captions_do_not_depend_on_their_company(tmp_path):
    """A caption embeds alike by itself and among longer ones, with norm 1."""
    make_run(tmp_path / "run", {"InfoNCE": 1})
    run = load_run(tmp_path / "run")
    together = run.embed_captions(["a red circle", "a blue square and a red circle", ""])
    np.testing.assert_allclose(run.embed_captions(["a red circle"]), together[:1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)


def test_a_run_is_an_embedder(tmp_path):
    """Encoded pictures embed as decoded ones do; what is no picture embeds as zero."""
    make_run(tmp_path / "run", {"InfoNCE": 1})
    embedder, run = open_run(tmp_path / "run"), load_run(tmp_path / "run")
    encoded = [
        cv2.imencode(".png", p.transpose(1, 2, 0)[:, :, ::-1])[1].tobytes() for p in PICTURES
    ]
    vectors = embedder.pictures([encoded[0], b"no picture", *encoded[1:]])
    assert vectors.shape == (6, embedder.width)
    assert vectors.dtype == np.float32
    assert (vectors[1] == 0).all()
    np.testing.assert_allclose(vectors[[0, 2, 3, 4, 5]], run.embed_pictures(PICTURES), atol=1e-6)
    assert embedder.pictures([]).shape == embedder.captions([]).shape == (0, embedder.width)
    assert embedder.embeds_captions
    assert embedder.captions(["a red circle"]).shape == (1, embedder.width)


def test_without_info_nce_there_is_no_joint_space(tmp_path):
    """An mae run says so when asked to compare; its features embed pictures alone."""
    make_run(tmp_path / "mae", {"Pixels": 1})
    run = load_run(tmp_path / "mae")
    with pytest.raises(Refused, match="trained without InfoNCE"):
        run.embed_pictures(PICTURES)
    with pytest.raises(Refused, match="trained without InfoNCE"):
        run.embed_captions(["a red circle"])
    assert run.features(PICTURES).shape == (5, 64)
    embedder = open_run(tmp_path / "mae")
    assert not embedder.embeds_captions
    with pytest.raises(Refused, match="embeds no captions"):
        embedder.captions(["a red circle"])


@pytest.mark.parametrize("images", [PICTURES / 255, PICTURES[:, :, :16, :16], PICTURES[0]])
def test_pictures_of_another_kind_are_refused(tmp_path, images):
    """Floats, which would be scaled twice, and other sizes say what is taken instead."""
    make_run(tmp_path / "run", {"InfoNCE": 1})
    run = load_run(tmp_path / "run")
    for embed in (run.embed_pictures, run.features):
        with pytest.raises(Refused, match=r"takes pictures as uint8 \[n, 3, 32, 32\], not"):
            embed(images)
    assert np.array_equal(run.features(torch.from_numpy(PICTURES)), run.features(PICTURES))


def test_damaged_and_unfinished_runs_are_named(tmp_path):
    """No run, a run without a checkpoint, a checkpoint cut in half: one line each."""
    with pytest.raises(PoolError, match="is not a run"):
        load_run(tmp_path)
    make_run(tmp_path / "run", {"InfoNCE": 1})
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(PoolError, match="is damaged"):
        load_run(tmp_path / "run")
    path.unlink()
    with pytest.raises(PoolError, match="no checkpoint yet"):
        load_run(tmp_path / "run")
    with pytest.raises(PoolError, match="is not a run: it has no config"):
        load_run(tmp_path / "run" / "config.json")
    (tmp_path / "run" / "config.json").write_text('{"model": "another tool\'s"}')
    with pytest.raises(PoolError, match="holds no recipe"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize("content", [b"{}", b"\xff", b'{"version": "1.0", "mod'])
def test_a_damaged_tokenizer_is_named(tmp_path, content):
    """A tokenizer.json that is none, is no text or was cut: one line."""
    make_run(tmp_path / "run", {"InfoNCE": 1})
    (tmp_path / "run" / "tokenizer.json").write_bytes(content)
    with pytest.raises(PoolError, match=r"tokenizer\.json is no tokenizer") as error:
        load_run(tmp_path / "run")
    assert "\n" not in str(error.value)


def test_only_terms_that_compare_pairs_make_a_joint_space(tmp_path):
    """A captioner alone encodes pictures and captions and never brings them together."""
    assert not joint_space_of(tmp_path / "writes", {"Caption": 1})
    assert joint_space_of(tmp_path / "both", {"InfoNCE": 1, "Caption": 1})


def joint_space_of(out, terms):
    """Say whether a run of these terms can compare pictures and captions."""
    recipe = TrainRecipe(name="t", terms=terms, steps=1, vocabulary=300, architecture="coca")
    model, tokenizer = build_model(recipe, 300), train_tokenizer(["a"], 300)
    return Run(out, model, recipe, tokenizer, 1, torch.device("cpu")).has_joint_space
