"""Ours beside open_clip, which lives in an environment of its own: losses and a whole model."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from breadth.loaders.tokenize import save_tokenizer, train_tokenizer
from breadth.train.checkpoint import load_run
from breadth.train.exchange.adopt import import_run
from breadth.train.exchange.layout import to_ours
from breadth.train.exchange.names import open_clip_rules
from breadth.train.exchange.numbering import for_others
from breadth.train.inputs import Inputs, draw_inputs
from breadth.train.model import build_model
from breadth.train.step import Step, weights_at
from breadth.train.terms import Caption, InfoNCE

from .parity import CONTEXT, CPU, PAIRS, TOLERANCE, VOCABULARY, make_batch, make_recipe

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv/peers/open_clip/bin/python"
pytestmark = [
    pytest.mark.usefixtures("double"),
    pytest.mark.skipif(
        not PYTHON.is_file(), reason="open_clip has an environment of its own: make proofs makes it"
    ),
]

CLIP = {"terms": {"InfoNCE": 1}, "pool": "cls"}
CAPTIONS = ["a red disc above a blue star", "two green squares", "a disc"]
CONFIG = {
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 300, "width": 48, "heads": 2, "layers": 3},
}


def their_numbers(captions: list[str]) -> Tensor:
    """Cut captions by the run's tokenizer as open_clip would: zeros after the end."""
    tokenizer, _ = for_others(train_tokenizer(CAPTIONS, 290))
    numbers = torch.zeros(len(captions), CONTEXT, dtype=torch.long)
    for row, caption in zip(numbers, captions, strict=True):
        ids = torch.tensor(tokenizer.encode(caption).ids)
        row[: len(ids)] = ids
    return numbers


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What both compute with."""
    draws = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    images, tokens = make_batch()
    recipe = make_recipe(architecture="clip", **CLIP)
    mean, std = (
        torch.tensor(figures, dtype=torch.float64).view(3, 1, 1)
        for figures in (recipe.pixel_mean, recipe.pixel_std)
    )
    return {
        "image": F.normalize(normal(PAIRS, 16)),
        "text": F.normalize(normal(PAIRS, 16)),
        "logit_scale": torch.tensor(2.0, dtype=torch.float64),
        "logits": normal(PAIRS, CONTEXT, VOCABULARY),
        "tokens": tokens,
        "numbers": (tokens - 4) % VOCABULARY,  # open_clip takes the largest for the end
        "captions": their_numbers(CAPTIONS),
        "images": ((images.float() / 255).double() - mean) / std,
    }


@pytest.fixture(scope="module")
def theirs(
    request_of: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Tensor]:
    """What open_clip computes."""
    folder = tmp_path_factory.mktemp("open_clip")
    save_file(request_of, folder / "request.safetensors")
    command = [PYTHON, ROOT / "tests/open_clip_oracle.py", folder / "request.safetensors"]
    command += [folder / "result.safetensors", json.dumps(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "result.safetensors")


def test_infonce_is_clip_loss(request_of, theirs):
    """The value, and the gradient on both embeddings and on the scale."""
    leaves = {n: request_of[n].clone().requires_grad_() for n in ("image", "text", "logit_scale")}
    views = leaves | {"all_image": leaves["image"], "all_text": leaves["text"]}
    total, count = InfoNCE().loss({**views, "first": torch.tensor(0)})
    torch.testing.assert_close(total / count, theirs["clip"], **TOLERANCE)
    for name, gradient in zip(
        leaves, torch.autograd.grad(total / count, list(leaves.values())), strict=True
    ):
        torch.testing.assert_close(gradient, theirs[f"clip.{name}"], **TOLERANCE)


def test_infonce_and_caption_are_coca_loss(request_of, theirs):
    """With weights 1 and 2: the value, and the gradient on embeddings, scale and logits."""
    names = ("image", "text", "logit_scale", "logits")
    leaves = {name: request_of[name].clone().requires_grad_() for name in names}
    inputs = Inputs(make_batch()[0], request_of["tokens"]).on(CPU)
    views = {**leaves, "all_image": leaves["image"], "all_text": leaves["text"]}
    views |= inputs.known | {"first": torch.tensor(0)}
    views["caption_logits"] = leaves["logits"].flatten(0, 1)[inputs.places["before"]]
    contrast, caption = InfoNCE().loss(views), Caption().loss(views)
    loss = contrast[0] / contrast[1] + 2 * caption[0] / caption[1]
    torch.testing.assert_close(loss, theirs["coca"], **TOLERANCE)
    for name, gradient in zip(
        leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True
    ):
        torch.testing.assert_close(gradient, theirs[f"coca.{name}"], **TOLERANCE)


def named(theirs: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {n.removeprefix(start): t for n, t in theirs.items() if n.startswith(start)}


@pytest.mark.parametrize(("architecture", "kind"), [("clip", "quick_gelu"), ("clip_gelu", "gelu")])
def test_a_whole_model_is_that_of_open_clip(architecture, kind, theirs):
    """Its weights in ours give its loss, and its gradient on every weight."""
    recipe = make_recipe(architecture=architecture, **CLIP)
    model = build_model(recipe, VOCABULARY)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def in_ours(what: str) -> dict[str, Tensor]:
        given = named(theirs, f"{kind}.{what}.")
        given["token_embedding.weight"] = given["token_embedding.weight"].roll(4, 0)
        return to_ours(open_clip_rules(recipe), given, shapes)

    model.load_state_dict(in_ours("weight"))
    inputs = draw_inputs(recipe, *make_batch(), 0, vocabulary=VOCABULARY)
    means = Step(recipe, model.double(), CPU).backward(inputs, weights_at(recipe.objective, 0, {}))
    torch.testing.assert_close(means["InfoNCE"], theirs[f"{kind}.loss"], **TOLERANCE)
    gradients = in_ours("gradient")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], **TOLERANCE, msg=name)


@pytest.mark.parametrize("kind", ["quick_gelu", "gelu"])
def test_a_checkpoint_of_open_clip_is_a_run(kind, theirs, tmp_path):
    """breadth import gives a run that embeds pictures and captions as open_clip does."""
    weights = {n: t.float() for n, t in named(theirs, f"{kind}.weight.").items()}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    recipe = make_recipe(architecture="clip", **CLIP)
    pixel = {"mean": recipe.pixel_mean, "std": recipe.pixel_std}
    model = {"embed_dim": 16, "quick_gelu": kind == "quick_gelu", **CONFIG}
    config = {"model_cfg": model, "preprocess_cfg": pixel}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_tokenizer(for_others(train_tokenizer(CAPTIONS, 290))[0], tmp_path / "tokenizer.json")
    torch.set_default_dtype(torch.float32)
    import_run(tmp_path, tmp_path / "run")
    run = load_run(tmp_path / "run")
    images = run.embed_pictures(make_batch()[0].numpy())
    np.testing.assert_allclose(images, theirs[f"{kind}.images"].numpy(), rtol=0, atol=1e-5)
    captions = run.embed_captions(CAPTIONS)
    np.testing.assert_allclose(captions, theirs[f"{kind}.captions"].numpy(), rtol=0, atol=1e-5)
