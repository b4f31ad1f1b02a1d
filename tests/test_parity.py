"""Equal weights give equal losses and gradients: ours beside transformers', in double precision."""

import re
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
import transformers
from pytorch_metric_learning.losses import NTXentLoss
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers.models.bert.modeling_bert import BertLMPredictionHead
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEEmbeddings

from breadth.loaders.tokenize import BOS, EOS, MASK, PAD, SPECIALS
from breadth.train.architecture import ARCHITECTURES
from breadth.train.blocks import grid_positions
from breadth.train.decoder import TokenHead
from breadth.train.exchange.layout import Rule, affine, block_rules, pair, to_theirs
from breadth.train.exchange.names import CLIP_BLOCK, clip_rules, mae_weights
from breadth.train.inputs import Inputs, draw_inputs
from breadth.train.mask import hide_patches
from breadth.train.model import Model, build_model
from breadth.train.recipe import TrainRecipe
from breadth.train.step import Step, weights_at
from breadth.train.terms import NTXent, Tokens

from .parity import CONTEXT, CPU, PAIRS, SIZE, TOLERANCE, VOCABULARY, make_batch, make_recipe

pytestmark = pytest.mark.usefixtures("double")

ONE_WIDTH = SIZE | {"text_width": 32, "embedding": 32}


def make_model(recipe: TrainRecipe) -> Model:
    """Make a model whose every weight is away from where it is initialised."""
    model = build_model(recipe, VOCABULARY).double()
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draws))
    return model


def pixels(model: Model, images: Tensor) -> Tensor:
    return (images.float() / 255 - model.pixel_mean) / model.pixel_std


def backward(model: Model, inputs: Inputs) -> dict[str, Tensor]:
    """Take the gradient of the recipe's objective as training does; return the means."""
    recipe = model.recipe
    return Step(recipe, model, CPU).backward(inputs, weights_at(recipe.objective, 0, {}))


def weights(model: Model) -> dict[str, Tensor]:
    """Return parameters and fixed positions."""
    return {n: t.detach() for n, t in (*model.named_parameters(), *model.named_buffers())}


def gradients(model: Model) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }


def rolled(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put special tokens last: transformers takes an end of number 2 for an old mistake."""
    return ours | {"text.token.weight": ours["text.token.weight"].roll(-4, 0)}


def load(theirs: torch.nn.Module, layout: Mapping[str, Tensor]) -> None:
    missing, unexpected = theirs.load_state_dict(layout, strict=False)
    assert not missing and not unexpected


def assert_equal_gradients(theirs: torch.nn.Module, ours: Mapping[str, Tensor]) -> None:
    """Every tensor of theirs that learns has the gradient of ours, and it is not nothing."""
    compared = 0
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            torch.testing.assert_close(ours[name], parameter.grad, **TOLERANCE, msg=name)
            compared += int(parameter.grad.abs().max() > 1e-9)
    assert compared > 40


def in_memory(on_disk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return MAE's weights by the names that transformers gives them once they are loaded."""
    names = {
        "decoder_encoder.layer.": "decoder_layers.",
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    one = re.compile("|".join(re.escape(name) for name in names))
    return {one.sub(lambda m: names[m.group()], name): t for name, t in on_disk.items()}


def clip_config(activation: str) -> object:
    text = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 192,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "hidden_act": activation,
        "bos_token_id": 297,
        "eos_token_id": 298,
        "pad_token_id": 296,
    }
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 32,
        "patch_size": 8,
        "hidden_act": activation,
    }
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)


@pytest.mark.parametrize(
    ("architecture", "activation"), [("clip", "quick_gelu"), ("clip_gelu", "gelu")]
)
def test_clip_is_that_of_transformers(architecture, activation):
    """The loss of CLIPModel and its gradient on every weight, captions ending at their EOS."""
    recipe = make_recipe(architecture=architecture, pool="cls", terms={"InfoNCE": 1})
    model, (images, tokens) = make_model(recipe), make_batch()
    theirs = transformers.CLIPModel(clip_config(activation))
    load(theirs, to_theirs(clip_rules(recipe), rolled(weights(model))))
    means = backward(model, draw_inputs(recipe, images, tokens, 0, vocabulary=VOCABULARY))
    numbers = (tokens - 4) % VOCABULARY
    found = theirs(input_ids=numbers, pixel_values=pixels(model, images), return_loss=True)
    found.loss.backward()
    torch.testing.assert_close(means["InfoNCE"], found.loss.detach(), **TOLERANCE)
    assert_equal_gradients(theirs, to_theirs(clip_rules(recipe), rolled(gradients(model))))


@pytest.mark.parametrize("target", ["raw", "patch"])
def test_mae_is_that_of_transformers(target):
    """The loss of ViTMAEForPreTraining under the same noise, and its gradient on every weight."""
    recipe = make_recipe(
        architecture="mae", terms={"Pixels": 1}, pixel_target=target, variance_floor=0
    )
    model, (images, tokens) = make_model(recipe), make_batch()
    config = transformers.ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=24,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=96,
        norm_pix_loss=target == "patch",
    )
    theirs = transformers.ViTMAEForPreTraining(config)
    load(theirs, in_memory(mae_weights(recipe, weights(model))))
    noise = torch.rand(PAIRS, 16, generator=torch.Generator().manual_seed(2))
    masks = {"masked image": hide_patches(noise, recipe.image_mask)}
    means = backward(model, Inputs(images, tokens, masks))
    found = theirs(pixels(model, images), noise=noise)
    found.loss.backward()
    torch.testing.assert_close(means["Pixels"], found.loss.detach(), **TOLERANCE)
    ours = gradients(model)
    ours["decoder.image.kind"] = torch.zeros(24)  # it is part of what it is added to
    assert_equal_gradients(theirs, in_memory(mae_weights(recipe, ours)))


def test_fixed_positions_are_those_of_transformers():
    """MAE's sines and cosines, row by row, as ViTMAE makes them for itself."""
    config = transformers.ViTMAEConfig(hidden_size=32, image_size=40, patch_size=8)
    theirs = ViTMAEEmbeddings(config)
    theirs.initialize_weights()
    ours = grid_positions(5, 32, ARCHITECTURES["mae"])
    torch.testing.assert_close(ours, theirs.position_embeddings[0, 1:], rtol=0, atol=1e-6)


def siglip_rules(patch_px: int) -> list[Rule]:
    """Say what transformers calls the weights of a SigLIP of SIZE."""
    picture, caption, head = "vision_model", "text_model", "vision_model.head"
    attention = f"{head}.attention"
    asks = ("attention_pool.attention.query", "attention_pool.attention.key_value")
    return [
        *block_rules("image.stack", f"{picture}.encoder.layers", 2, CLIP_BLOCK),
        *block_rules("text.stack", f"{caption}.encoder.layers", 3, CLIP_BLOCK),
        *affine("image.stack.norm", f"{picture}.post_layernorm"),
        *affine("text.stack.norm", f"{caption}.final_layer_norm"),
        pair("image.positions_ND", f"{picture}.embeddings.position_embedding.weight"),
        pair(
            "image.patch.weight",
            f"{picture}.embeddings.patch_embedding.weight",
            (-1, 3, patch_px, patch_px),
        ),
        pair("image.patch.bias", f"{picture}.embeddings.patch_embedding.bias"),
        pair("text.token.weight", f"{caption}.embeddings.token_embedding.weight"),
        pair("text.positions_TD", f"{caption}.embeddings.position_embedding.weight"),
        *affine("text_head", f"{caption}.head"),
        pair("attention_pool.queries_QD", f"{head}.probe", (1, 1, -1)),
        Rule(tuple(f"{a}.weight" for a in asks), (f"{attention}.in_proj_weight",), (96, 32)),
        Rule(tuple(f"{a}.bias" for a in asks), (f"{attention}.in_proj_bias",)),
        *affine("attention_pool.attention.out", f"{attention}.out_proj"),
        *affine("attention_pool.norm", f"{head}.layernorm"),
        *affine("attention_pool.up", f"{head}.mlp.fc1"),
        *affine("attention_pool.down", f"{head}.mlp.fc2"),
        pair("logit_scale", "logit_scale", (1,)),
        pair("logit_bias", "logit_bias", (1,)),
    ]


def test_siglip_is_that_of_transformers():
    """The loss of SiglipModel with its MAP head, padding seen, and its gradient on every weight."""
    recipe = make_recipe(architecture="siglip", pool="map", terms={"Sigmoid": 1}, size=ONE_WIDTH)
    model, (images, tokens) = make_model(recipe), make_batch()
    both = {"hidden_size": 32, "intermediate_size": 128}
    text = {
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
    }
    vision = {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    config = transformers.SiglipConfig(text_config=both | text, vision_config=both | vision)
    theirs = transformers.SiglipModel(config)
    load(theirs, to_theirs(siglip_rules(8), weights(model)))
    means = backward(model, draw_inputs(recipe, images, tokens, 0, vocabulary=VOCABULARY))
    found = theirs(input_ids=tokens, pixel_values=pixels(model, images), return_loss=True)
    found.loss.backward()
    torch.testing.assert_close(means["Sigmoid"], found.loss.detach(), **TOLERANCE)
    assert_equal_gradients(theirs, to_theirs(siglip_rules(8), gradients(model)))


def test_bert_is_that_of_transformers():
    """Tokens on the logits of BertForMaskedLM is its loss, with its gradient on every weight."""
    draws = torch.Generator().manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    theirs, (_, tokens) = transformers.BertForMaskedLM(config), make_batch()
    hidden = (torch.rand(tokens.shape, generator=draws) < 0.3) & (tokens != PAD)
    labels = torch.where(hidden, tokens, -100)
    found = theirs(
        tokens.where(~hidden, MASK), attention_mask=(tokens != PAD).long(), labels=labels
    )
    expected = torch.autograd.grad(found.loss, list(theirs.parameters()), retain_graph=True)
    views = {"token_logits": found.logits[hidden], "hidden_tokens": tokens[hidden]}
    total, count = Tokens(masking="corrupted").loss(views)
    torch.testing.assert_close(total / count, found.loss, **TOLERANCE)
    ours = torch.autograd.grad(total / count, list(theirs.parameters()))
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, **TOLERANCE)


def test_the_token_head_is_that_of_bert():
    """Equal weights give the logits of transformers' prediction head, and its gradients."""
    config = transformers.BertConfig(vocab_size=50, hidden_size=32, layer_norm_eps=1e-5)
    head, theirs = TokenHead(32, 50), BertLMPredictionHead(config)
    rules = [
        *affine("dense", "transform.dense"),
        *affine("norm", "transform.LayerNorm"),
        *affine("token_out", "decoder"),
    ]
    ours = {name: torch.randn(p.shape) for name, p in head.named_parameters()}
    head.load_state_dict(ours)
    named = to_theirs(rules, ours)
    theirs.load_state_dict(named | {"bias": named["decoder.bias"]})
    x_MD = torch.randn(7, 32)
    torch.testing.assert_close(head(x_MD), theirs(x_MD), **TOLERANCE)
    (head(x_MD) ** 2).sum().backward()
    (theirs(x_MD) ** 2).sum().backward()
    ours = to_theirs(rules, {name: p.grad for name, p in head.named_parameters()})
    for name, parameter in theirs.transform.named_parameters():
        torch.testing.assert_close(ours[f"transform.{name}"], parameter.grad, **TOLERANCE)


def test_corruption_is_as_frequent_as_that_of_transformers():
    """Of hidden tokens as many are masked, replaced and kept as in transformers' data collator."""
    names = [*SPECIALS, *(f"w{n}" for n in range(VOCABULARY - 4))]
    made = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, names[0]))
    kinds = dict(zip(("pad_token", "bos_token", "eos_token", "mask_token"), SPECIALS, strict=True))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **kinds)
    collator = transformers.DataCollatorForLanguageModeling(fast, mlm_probability=0.15, seed=1)
    draws = torch.Generator().manual_seed(4)
    tokens = torch.randint(4, VOCABULARY, (2500, 42), generator=draws)
    tokens[:, 0], tokens[:, -1] = BOS, EOS
    theirs = collator([{"input_ids": row} for row in tokens.tolist()])
    recipe = make_recipe(
        terms={"Tokens": {"masking": "corrupted"}},
        text_mask=0.15,
        context_length=42,
        batch_pairs=2500,
    )
    images = torch.zeros(2500, 3, 32, 32, dtype=torch.uint8)
    ours = draw_inputs(recipe, images, tokens, 0, vocabulary=VOCABULARY)
    assert ours.corrupted_BT is not None
    hidden = ours.masks["masked text"].hidden_BL
    found = shares(tokens, ours.corrupted_BT, hidden)
    expected = shares(tokens, theirs["input_ids"], theirs["labels"] != -100)
    for share, other, truth in zip(found, expected, (0.15, 0.8, 0.1, 0.1), strict=True):
        error = (truth * (1 - truth) / 15_000) ** 0.5
        assert abs(share - other) < 5 * 2**0.5 * error
        assert abs(share - truth) < 5 * error


def shares(tokens: Tensor, corrupted: Tensor, hidden: Tensor) -> list[float]:
    """Return the share of words that is hidden; and of these, masked, replaced and kept."""
    masked = (corrupted == MASK) & hidden
    kept = (corrupted == tokens) & hidden
    replaced = hidden & ~masked & ~kept
    assert torch.equal(corrupted[~hidden], tokens[~hidden])
    parts = [float(part.sum() / hidden.sum()) for part in (masked, replaced, kept)]
    return [float(hidden.sum() / (tokens > MASK).sum()), *parts]


def test_ntxent_is_that_of_pytorch_metric_learning():
    """The loss of two crops of each picture, and its gradient on both."""
    draws = torch.Generator().manual_seed(6)
    crops = [torch.randn(9, 8, generator=draws, requires_grad=True) for _ in range(2)]
    number = torch.arange(9)
    expected = NTXentLoss(temperature=0.2)(torch.cat(crops), torch.cat([number, number]))
    views = {f"crop_{n}": F.normalize(crop) for n, crop in enumerate(crops, start=1)}  # as they do
    views |= {f"all_{name}": crop for name, crop in views.items()} | {"first": torch.tensor(0)}
    total, count = NTXent(temperature=0.2).loss(views)
    torch.testing.assert_close(total / count, expected, **TOLERANCE)
    gradient = torch.autograd.grad(total / count, crops)
    for ours, theirs in zip(gradient, torch.autograd.grad(expected, crops), strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
