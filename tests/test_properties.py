"""What holds of terms, views and pools by construction: slopes of zero, orders without say."""

import math

import pytest
import torch

from breadth.loaders.tokenize import PAD
from breadth.train.architecture import Architecture
from breadth.train.model import build_model
from breadth.train.pool import AttentionPool
from breadth.train.seeds import generator
from breadth.train.terms import Caption, InfoNCE, NTXent, Pixels, Sigmoid, Tokens
from breadth.train.trainee import make_trainee, start_from

from .test_terms import CPU, alone, draw, make_batch, make_recipe, unit


def sloped(**options):
    """Return a model's views of four pairs, and its patches with a gradient to be filled in."""
    model = build_model(make_recipe(terms={"Pixels": 1}, **options), 300)
    images, captions = make_batch(4)
    patches = model.patches(images).requires_grad_()
    model.patches = lambda _: patches
    return model(draw(model.recipe, images, captions).on(CPU)), patches


@pytest.mark.parametrize("architecture", ["breadth", "mae", "siglip"])
def test_no_prediction_leans_on_hidden_pixels(architecture):
    """d(prediction)/d(hidden pixels) is zero, and d(prediction)/d(visible pixels) is not."""
    views, patches = sloped(architecture=architecture)
    views["predicted_patches"].square().sum().backward()
    hidden = views["hidden_patches"]
    assert (patches.grad[hidden] == 0).all()
    assert (patches.grad[~hidden].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("target", ["raw", "patch"])
def test_a_target_is_no_way_to_a_lower_loss(target):
    """Targets are detached: the loss has no slope on the hidden pixels that it is measured at."""
    views, patches = sloped(pixel_target=target)
    assert not views["target_patches"].requires_grad
    Pixels().loss(views)[0].backward()
    assert (patches.grad[views["hidden_patches"]] == 0).all()


def test_visible_patches_may_be_predicted_anyhow():
    """d(loss)/d(prediction of a visible patch) is zero in a model's own views."""
    views, _ = sloped()
    views["predicted_patches"].retain_grad()
    Pixels().loss(views)[0].backward()
    slope = views["predicted_patches"].grad
    assert (slope[~views["hidden_patches"]] == 0).all()
    assert (slope[views["hidden_patches"]] != 0).all()


def asked(term, *values):
    """Return a coupled term's loss as a function of embeddings, scale and bias, for gradcheck."""
    image, text, scale, bias = values
    views = alone(image=image, text=text, crop_1=image, crop_2=text)
    return term.loss({**views, "logit_scale": scale, "logit_bias": bias})[0]


@pytest.mark.parametrize("term", [InfoNCE(), InfoNCE(0.1), Sigmoid(), NTXent()])
def test_the_slope_of_a_coupled_term_is_that_of_its_differences(term):
    """Autograd agrees with finite differences in double precision, logit scale and bias too."""
    numbers = [unit(0), unit(1), *torch.tensor([1.0, -3.0], dtype=torch.float64).unbind()]
    leaves = [value.clone().requires_grad_() for value in numbers]
    assert torch.autograd.gradcheck(lambda *values: asked(term, *values), leaves)


@pytest.mark.parametrize("terms", ["Tokens", "Caption"])
def test_fresh_words_are_all_as_likely(terms):
    """At the start a hidden word costs about ln V: what a model of no opinion pays."""
    objective = {"InfoNCE": 1, "Caption": 1} if terms == "Caption" else {"Tokens": 1}
    recipe = make_recipe(terms=objective, architecture="coca", batch_pairs=64)
    images, captions = make_batch(64)
    views = build_model(recipe, 300)(draw(recipe, images, captions).on(CPU))
    total, count = (Caption() if terms == "Caption" else Tokens()).loss(views)
    assert (total / count).item() == pytest.approx(math.log(300), rel=0.15)


@pytest.mark.parametrize("architecture", ["breadth", "clip", "coca", "align"])
def test_padding_changes_no_embedding(architecture):
    """A caption means the same however far it is padded, where padding is not attended to."""
    model = build_model(make_recipe(architecture=architecture, context_length=16), 300).double()
    _, captions = make_batch(4)
    longer = torch.nn.functional.pad(captions, (0, 6), value=PAD)
    torch.testing.assert_close(
        model.embed_tokens(captions), model.embed_tokens(longer), rtol=1e-10, atol=1e-12
    )


def test_attention_pools_patches_in_any_order():
    """MAP asks a set: shuffled patches give the same vector, another patch another one."""
    pool = AttentionPool(8, 2, Architecture()).double()
    numbers = generator(0, "patches")
    tokens = torch.randn(3, 7, 8, dtype=torch.float64, generator=numbers)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.normal_(generator=numbers)
    shuffled = tokens[:, torch.randperm(7, generator=numbers)]
    torch.testing.assert_close(pool(shuffled), pool(tokens), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(pool(tokens * 2), pool(tokens))


@pytest.mark.parametrize("architecture", ["breadth", "clip", "siglip"])
def test_a_tower_that_drops_patches_is_one_that_never_had_them(architecture):
    """FLIP's kept tokens are, bit for bit, those of a tower that is run on that subset."""
    options = {"pool": "map"} if architecture == "siglip" else {}
    recipe = make_recipe(
        terms={"InfoNCE": 1}, architecture=architecture, patch_dropout=0.5, **options
    )
    model = build_model(recipe, 300)
    images, captions = make_batch(4)
    tower, patches = model.image, model.patches(images)
    inputs = draw(recipe, images, captions).on(CPU)
    tokens = tower(patches, inputs.masks["image"])
    whole_picture = tower.patch(patches) + tower.positions_ND
    subsets = []
    for row, keep in enumerate(inputs.masks["image"].keep_BK):
        kept = whole_picture[row, keep]
        if tower.prefix:
            begin = tower.class_token + getattr(tower, "class_position", 0)
            kept = torch.cat([begin[None], kept])
        subsets.append(kept)
    entered = torch.stack(subsets)
    entered = tower.first_norm(entered) if hasattr(tower, "first_norm") else entered
    assert torch.equal(tokens, tower.stack(entered))
    assert tokens.shape[1] == tower.prefix + 8
    assert torch.equal(
        model(inputs)["image"],
        torch.nn.functional.normalize(model.image_head(model.pool(tokens)), dim=1),
    )


def test_clip_after_mae_begins_with_mae_s_tower():
    """In sequence, every weight of the picture's tower is MAE's bit for bit; the rest is CLIP's."""
    mae = make_trainee(make_recipe(terms={"Pixels": 1}, seed=1), 300, CPU)
    recipe = make_recipe(terms={"InfoNCE": 1}, seed=2)
    clip, fresh = make_trainee(recipe, 300, CPU), build_model(recipe, 300)
    taken = start_from(clip, mae.model.state_dict())
    ours, theirs = dict(clip.model.named_parameters()), mae.model.state_dict()
    tower = [name for name in ours if name.startswith("image.")]
    assert sorted(taken) == sorted(tower)
    assert all(torch.equal(ours[name], theirs[name]) for name in tower)
    assert all(torch.equal(p, ours[n]) for n, p in fresh.named_parameters() if n not in taken)
    assert not all(torch.equal(p, ours[n]) for n, p in fresh.named_parameters())
