"""Weights cross over both ways: transformers loads a run; its CLIP and open_clip's become one."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import BreadthError, OutputError, PoolError, Refused
from breadth.loaders.tokenize import BOS, EOS, encode, save_tokenizer, train_tokenizer
from breadth.scripts.cli import cli
from breadth.train.checkpoint import Run, load_run, save_checkpoint
from breadth.train.embedder import open_run
from breadth.train.evaluate.scores import evaluate
from breadth.train.exchange.adopt import import_run
from breadth.train.exchange.export import export_run
from breadth.train.exchange.layout import to_theirs
from breadth.train.exchange.names import open_clip_rules
from breadth.train.exchange.numbering import for_others, renumber
from breadth.train.inputs import Inputs
from breadth.train.loop import train
from breadth.train.mask import hide_patches
from breadth.train.recipe import TrainRecipe
from breadth.train.run_folder import describe_run, write_json
from breadth.train.trainee import make_trainee

CAPTIONS = [
    "A red disc above a blue star",
    "two green squares",
    "a disc",
    "A picture of \u00dcmlauts, [MASK] and <|endoftext|> that goes on for longer than the context",
]
SIZE = {
    "width": 32,
    "depth": 2,
    "heads": 4,
    "text_width": 48,
    "text_depth": 2,
    "text_heads": 3,
    "embedding": 16,
    "decoder_width": 24,
    "decoder_depth": 1,
    "decoder_heads": 3,
}
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def pictures(count: int = 4) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def shaken(parameters: list[Tensor]) -> None:
    """Move weights away from where they are initialised, so that each counts."""
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draws))


def write_run(out: Path, **options: object) -> Path:
    """Write a run that was never trained, of random weights."""
    given = {"name": "r", "steps": 1, "size": SIZE, "context_length": 12, "terms": {"InfoNCE": 1}}
    recipe = TrainRecipe.from_options({**given, **options})
    tokenizer = train_tokenizer(CAPTIONS, 290)
    trainee = make_trainee(recipe, tokenizer.get_vocab_size(), torch.device("cpu"))
    shaken(list(trainee.model.parameters()))
    out.mkdir()
    write_json(out / "config.json", describe_run(recipe, {"digest": None, "pairs": 0}, None))
    save_tokenizer(tokenizer, out / "tokenizer.json")
    save_checkpoint(out, trainee, {})
    return out


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of CLIP."""
    return write_run(tmp_path_factory.mktemp("runs") / "clip", architecture="clip", pool="cls")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP folder that transformers wrote, with a tokenizer of CLIP's kind."""
    folder = tmp_path_factory.mktemp("hf") / "tiny-clip"
    words = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    words.train_from_iterator([caption.lower() for caption in CAPTIONS], trainer)
    learnt = json.loads(words.to_str())["model"]
    names = [*alphabet, *(f"{byte}</w>" for byte in alphabet)]
    names += [token for token in learnt["vocab"] if token not in names]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = transformers.CLIPTokenizer(vocabulary, [tuple(pair) for pair in learnt["merges"]])
    tokenizer.save_pretrained(folder)
    both = {"num_hidden_layers": 2, "hidden_act": "gelu"}
    text = {
        "hidden_size": 48,
        "intermediate_size": 192,
        "num_attention_heads": 3,
        "max_position_embeddings": 12,
        "vocab_size": len(names) + 3,  # rows that nothing uses
        "bos_token_id": len(names) - 2,
        "eos_token_id": len(names) - 1,
        "pad_token_id": 0,
    }
    vision = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4}
    vision |= {"image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config=both | text, vision_config=both | vision, projection_dim=16
    )
    model = transformers.CLIPModel(config)
    shaken(list(model.parameters()))
    model.save_pretrained(folder)
    return folder


def their_vectors(folder: Path) -> tuple[Tensor, Tensor]:
    """Embed pictures and captions by transformers alone: processor, tokenizer, model."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(CAPTIONS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    seen = pictures().transpose(0, 2, 3, 1)
    if (folder / "preprocessor_config.json").is_file():
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
    else:
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
    pixels = processor(list(seen), return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        found = model(**tokens, **pixels)
    return found.image_embeds, found.text_embeds


def assert_embeds_as(run: Run, image: Tensor, text: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(run.embed_pictures(pictures())), image, **NEAR)
    torch.testing.assert_close(torch.from_numpy(run.embed_captions(CAPTIONS)), text, **NEAR)


def test_transformers_computes_what_an_exported_clip_run_computes(clip_run, tmp_path):
    """from_pretrained of model, tokenizer and image processor gives the run's embeddings."""
    export_run(clip_run, tmp_path / "hf", "transformers")
    assert_embeds_as(load_run(clip_run), *their_vectors(tmp_path / "hf"))


def test_a_clip_of_transformers_is_a_run(theirs, tmp_path):
    """The run embeds pictures and captions as transformers does, by the embedder too."""
    import_run(theirs, tmp_path / "run")
    image, text = their_vectors(theirs)
    assert_embeds_as(load_run(tmp_path / "run"), image, text)
    embedder = open_run(tmp_path / "run")
    torch.testing.assert_close(torch.from_numpy(embedder.captions(CAPTIONS)), text, **NEAR)


def test_what_is_imported_and_exported_is_what_it_was(theirs, tmp_path):
    """A CLIP of transformers keeps its weights and its tokens' numbers, bit for bit."""
    import_run(theirs, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "back", "transformers")
    before, after = (load_file(f / "model.safetensors") for f in (theirs, tmp_path / "back"))
    rows = len(after["text_model.embeddings.token_embedding.weight"])
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        expected = before[name][:rows] if "token_embedding" in name else before[name]
        assert torch.equal(tensor, expected), name
    old, new = (transformers.AutoTokenizer.from_pretrained(f) for f in (theirs, tmp_path / "back"))
    assert old.get_vocab() == new.get_vocab()
    assert old(CAPTIONS)["input_ids"] == new(CAPTIONS)["input_ids"]


def test_what_is_exported_and_imported_is_what_it_was(clip_run, tmp_path):
    """A run keeps its embeddings bit for bit on the way there and back."""
    export_run(clip_run, tmp_path / "hf", "transformers")
    import_run(tmp_path / "hf", tmp_path / "run")
    before, after = load_run(clip_run), load_run(tmp_path / "run")
    assert np.array_equal(before.embed_pictures(pictures()), after.embed_pictures(pictures()))
    assert np.array_equal(before.embed_captions(CAPTIONS), after.embed_captions(CAPTIONS))


def test_transformers_computes_what_an_exported_mae_run_computes(tmp_path):
    """from_pretrained of ViTMAEForPreTraining predicts the run's patches and has its loss."""
    run_path = write_run(
        tmp_path / "mae", architecture="mae", terms={"Pixels": 1}, pixel_target="patch"
    )
    export_run(run_path, tmp_path / "hf", "transformers")
    theirs = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "hf").eval()
    run, images = load_run(run_path), torch.from_numpy(pictures())
    noise = torch.rand(4, 16, generator=torch.Generator().manual_seed(1))
    masks = {"masked image": hide_patches(noise, 0.75)}
    inputs = Inputs(images, torch.ones(4, 1, dtype=torch.long), masks).on(torch.device("cpu"))
    with torch.inference_mode():
        views = run.model(inputs)
        pixels = (images.float() / 255 - run.model.pixel_mean) / run.model.pixel_std
        found = theirs(pixels, noise=noise)
    total, count = run.recipe.objective["Pixels"].term.loss(views)
    torch.testing.assert_close(total / count, found.loss, rtol=1e-4, atol=1e-4)
    in_place = found.logits.unflatten(2, (64, 3)).transpose(2, 3).flatten(2)
    torch.testing.assert_close(views["predicted_patches"], in_place, **NEAR)


def test_what_a_layout_has_no_place_for_is_told(clip_run, tmp_path):
    """CLIP has no bias of similarities and no decoder, MAE no captions; whole runs lose nothing."""
    clip = {"architecture": "clip", "pool": "cls", "terms": {"Sigmoid": 1, "Pixels": 1}}
    mae = {"architecture": "mae", "terms": {"Pixels": 1, "InfoNCE": 1}}
    said = [
        export_run(run, tmp_path / f"{run.name} hf", "transformers").partition(", without ")[2]
        for run in (
            clip_run,
            write_run(tmp_path / "sigmoid", **clip),
            write_run(tmp_path / "both", **mae),
        )
    ]
    assert [set(left_out.split(", ")) for left_out in said] == [
        {""},
        {"logit_bias", "decoder"},
        {"text", "image_head", "text_head", "logit_scale"},
    ]


def test_plain_safetensors_hold_all_that_a_run_computes_with(clip_run, tmp_path):
    """Every parameter by its name, and the recipe that says what they are for."""
    export_run(clip_run, tmp_path / "plain", "safetensors")
    held, run = load_file(tmp_path / "plain/model.safetensors"), load_run(clip_run)
    for name, parameter in run.model.named_parameters():
        assert torch.equal(held[name], parameter)
    assert {"pixel_mean", "pixel_std"} <= held.keys()
    recipe = json.loads((tmp_path / "plain/recipe.json").read_bytes())
    assert TrainRecipe.from_options(recipe) == run.recipe


def open_clip_config(quick: bool) -> dict[str, object]:
    vision = {"width": 32, "layers": 2, "head_width": 8, "patch_size": 8, "image_size": 32}
    text = {"width": 48, "layers": 2, "heads": 3, "context_length": 12, "vocab_size": 290}
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_open_clip_checkpoint_is_a_run(clip_run, tmp_path, suffix):
    """A state dict by open_clip's names gives the run's embeddings, also in a checkpoint."""
    run = load_run(clip_run)
    tokenizer, numbers = for_others(run.tokenizer)
    weights = dict(run.model.named_parameters())
    weights["text.token.weight"] = weights["text.token.weight"][numbers]
    named = {n: t.detach() for n, t in to_theirs(open_clip_rules(run.recipe), weights).items()}
    file = tmp_path / f"epoch_3{suffix}"
    if suffix == ".pt":
        held = {f"module.{name}": tensor for name, tensor in named.items()}
        torch.save({"epoch": 3, "state_dict": held | {"module.attn_mask": torch.ones(2)}}, file)
    else:
        save_file(named, file)
    save_tokenizer(tokenizer, tmp_path / "words.json")
    (tmp_path / "ViT.json").write_text(json.dumps(open_clip_config(True)))
    import_run(
        file, tmp_path / "run", tokenizer=tmp_path / "words.json", config=tmp_path / "ViT.json"
    )
    found = load_run(tmp_path / "run")
    found_images, images = (r.embed_pictures(pictures()) for r in (found, run))
    # The recipe's pixel statistics are rounded, OpenAI's are not.
    np.testing.assert_allclose(found_images, images, rtol=0, atol=5e-3)
    assert np.array_equal(found.embed_captions(CAPTIONS), run.embed_captions(CAPTIONS))
    with pytest.raises(PoolError, match="give its configuration with --config"):
        import_run(file, tmp_path / "other", tokenizer=tmp_path / "words.json")


def test_a_bert_tokenizer_gets_our_numbers(tmp_path):
    """BERT's words are cut as transformers cuts them, between its own begin and end."""
    words = ["[PAD]", "a", "disc", "##s", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "star"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    bert = transformers.BertTokenizerFast(
        vocab={word: number for number, word in enumerate(words)}, do_lower_case=True
    )
    bert.save_pretrained(tmp_path)
    tokenizer, numbers = renumber(tmp_path / "tokenizer.json")
    captions = ["A red disc", "Discs, a [MASK] star"]
    ours = encode(tokenizer, captions, 12)
    assert ours[0, 0] == BOS and EOS in ours[0]
    back = [[numbers[n] for n in row if n != 0] for row in ours.tolist()]
    special = bert("Discs, a [MASK] star")["input_ids"]
    assert back[0] == bert(captions[0])["input_ids"]
    assert len(back[1]) > len(special)  # in a caption "[MASK]" is no mask, but three words
    assert sorted(numbers) == list(range(len(words)))


BAD = {
    "nothing": ({}, "holds no CLIP"),
    "another model": ({"config.json": {"model_type": "bert"}}, "is of the model 'bert'"),
    "another width": (
        {"config.json": {"model_type": "clip", "text_config": {"intermediate_size": 7}}},
        "sets intermediate_size = 7 for text",
    ),
    "another activation": (
        {"config.json": {"model_type": "clip", "vision_config": {"hidden_act": "relu"}}},
        "hidden_act",
    ),
    "no JSON": ({"config.json": "{"}, "is no JSON"),
    "no table": (
        {"config.json": {"model_type": "clip", "vision_config": [16, 16]}},
        r"config\.json is no configuration of a CLIP",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_clip_is_refused_in_one_line(case, tmp_path):
    """The line says what was found; nothing is written."""
    files, message = BAD[case]
    source = tmp_path / "source"
    source.mkdir()
    for name, held in files.items():
        (source / name).write_text(held if isinstance(held, str) else json.dumps(held))
        save_file({"logit_scale": torch.zeros(())}, source / "model.safetensors")
    with pytest.raises(BreadthError, match=message) as caught:
        import_run(source, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_damaged_folder_is_refused_in_one_line(theirs, tmp_path):
    """Weights that lack one, hold one too many, or fit no tokenizer; a tokenizer without an end."""

    def broken(name: str, change: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.json", "tokenizer.json"):
            (folder / file).write_bytes((theirs / file).read_bytes())
        weights = load_file(theirs / "model.safetensors")
        change(weights, folder)  # type: ignore[operator]
        save_file(weights, folder / "model.safetensors")
        return folder

    def endless(_: object, folder: Path) -> None:
        train_like = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
        train_like.save(str(folder / "tokenizer.json"))

    tokens = "text_model.embeddings.token_embedding.weight"
    cases = {
        "lack visual_projection.weight": lambda w, _: w.pop("visual_projection.weight"),
        "hold extra": lambda w, _: w.update(extra=torch.zeros(1)),
        "the weights know 5": lambda w, _: w.update({tokens: w[tokens][:5].clone()}),
        r"shape \[2, 2\], its configuration says \[16, 32\]": lambda w, _: w.update(
            {"visual_projection.weight": torch.zeros(2, 2)}
        ),
        r"shape \[32, 16\]": lambda w, _: w.update(
            {"visual_projection.weight": torch.zeros(32, 16)}  # as many numbers in another order
        ),
        "no token for the begin or the end": endless,
    }
    for number, (message, change) in enumerate(cases.items()):
        with pytest.raises(PoolError, match=message) as caught:
            import_run(broken(str(number), change), tmp_path / "run")
        assert "\n" not in str(caught.value)
    (tmp_path / "words.pt").write_bytes(b"no weights")
    (tmp_path / "ViT.json").write_text(json.dumps(open_clip_config(False)))
    with pytest.raises(PoolError, match="is no file of weights"):
        import_run(tmp_path / "words.pt", tmp_path / "run", config=tmp_path / "ViT.json")
    assert not (tmp_path / "run").exists()


def test_what_has_no_such_layout_is_refused(clip_run, tmp_path):
    """Breadth's own architecture is no model of transformers; a full folder is left alone."""
    with pytest.raises(Refused, match="no model of architecture breadth"):
        export_run(write_run(tmp_path / "own"), tmp_path / "hf", "transformers")
    pooled = write_run(tmp_path / "pooled", architecture="clip", pool="gap")
    with pytest.raises(Refused, match="the pool gap"):
        export_run(pooled, tmp_path / "hf", "transformers")
    blind = write_run(tmp_path / "blind", architecture="clip", pool="cls", terms={"Pixels": 1})
    with pytest.raises(Refused, match="no joint space: export as safetensors"):
        export_run(blind, tmp_path / "hf", "transformers")
    with pytest.raises(OutputError, match="not empty"):
        export_run(clip_run, tmp_path / "own", "safetensors")
    with pytest.raises(OutputError, match="another folder"):
        import_run(clip_run, tmp_path / "own")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 pairs."""
    folder, pairs = tmp_path_factory.mktemp("data") / "pairs", []
    for number, picture in enumerate(pictures(24)):
        encoded = cv2.imencode(".png", picture.transpose(1, 2, 0))[1].tobytes()
        pairs.append(({"uid": f"{number:032x}", "caption": f"a disc {number}"}, encoded, "png"))
    write_folder(folder, pairs, name="discs", pairs_per_shard=24)
    return folder


def test_an_imported_run_is_evaluated_and_trained_on(theirs, data, tmp_path):
    """It has scores, and a run of its recipe can begin with its weights and its tokenizer."""
    import_run(theirs, tmp_path / "clip")
    scores = evaluate(tmp_path / "clip", data)
    assert scores["step"] == 0 and scores["retrieval"]
    before = load_run(tmp_path / "clip")
    recipe = replace(before.recipe, steps=1, batch_pairs=8, lr=1e-9, warmup_steps=1)
    train(recipe, data, tmp_path / "on", start=tmp_path / "clip")
    after = load_run(tmp_path / "on")
    assert after.tokenizer.to_str() == before.tokenizer.to_str()
    embedded = [run.embed_captions(CAPTIONS) for run in (before, after)]
    np.testing.assert_allclose(*embedded, rtol=0, atol=1e-5)


def test_a_run_is_trained_with_a_tokenizer_of_others(theirs, data, tmp_path):
    """CLIP's tokenizer is stored with the run, which no other can then continue."""
    recipe = TrainRecipe("t", {"InfoNCE": 1}, 1, batch_pairs=8, checkpoint_steps=1)
    file = theirs / "tokenizer.json"
    train(recipe, data, tmp_path / "run", tokenizer_file=file)
    run = load_run(tmp_path / "run")
    clips = transformers.AutoTokenizer.from_pretrained(theirs)
    ours = encode(run.tokenizer, ["two discs"], 12)[0].tolist()
    expected = clips("two discs")["input_ids"]
    words = [run.tokenizer.id_to_token(number) for number in ours[: len(expected)]]
    assert words == clips.convert_ids_to_tokens(expected)
    assert run.tokenizer.decode(ours).strip() == "two discs"
    assert run.model.text.token.weight.shape[0] == len(clips) + 2  # padding and a mask
    train(recipe, data, tmp_path / "run", tokenizer_file=file)
    train_tokenizer(CAPTIONS, 280).save(str(tmp_path / "other.json"))
    with pytest.raises(OutputError, match="has another tokenizer"):
        train(recipe, data, tmp_path / "run", tokenizer_file=tmp_path / "other.json")
    with pytest.raises(PoolError, match="there is no tokenizer"):
        train(recipe, data, tmp_path / "new", tokenizer_file=tmp_path / "none.json")


def test_the_verbs_do_it(clip_run, theirs, tmp_path):
    """``breadth export`` and ``breadth import`` write what the functions write."""
    out = tmp_path / "hf"
    said = CliRunner().invoke(
        cli, ["export", str(clip_run), "--out", str(out), "--layout", "transformers"]
    )
    assert said.exit_code == 0 and "CLIPModel of transformers" in said.output
    assert (out / "model.safetensors").is_file()
    said = CliRunner().invoke(cli, ["import", str(theirs), "--out", str(tmp_path / "run")])
    assert said.exit_code == 0 and "clip_gelu of 32 px in patches of 8" in said.output
    assert load_run(tmp_path / "run").step == 0
