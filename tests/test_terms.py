"""The terms against their formulas, and the views that feed them."""

from dataclasses import replace

import pytest
import torch

from breadth.train.loop import draw_masks
from breadth.train.model import build_model
from breadth.train.recipe import TrainRecipe
from breadth.train.terms import evaluate_terms, info_nce, pixels, plan_views, tokens

JOINT = {"InfoNCE": 1, "Pixels": 1, "Tokens": 0.5}


def make_recipe(**options):
    """Return a recipe for pictures of 16 patches."""
    return TrainRecipe(**{"name": "t", "terms": JOINT, "steps": 1, "vocabulary": 300, **options})


def make_batch(pairs, seed=0):
    """Return random pictures and captions of 1 to 8 words."""
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (pairs, 3, 32, 32), dtype=torch.uint8, generator=draws)
    words = torch.randint(4, 300, (pairs, 10), generator=draws)
    ends = torch.randint(2, 10, (pairs, 1), generator=draws)
    place = torch.arange(10)
    captions = torch.where(place < ends, words, torch.where(place == ends, 2, 0))
    captions[:, 0] = 1
    return images, captions


def encode(recipe, images, captions, step=0):
    """Return the views of a new model and that model."""
    model = build_model(recipe, 300)
    masks = draw_masks(recipe, model.views, captions, step, torch.device("cpu"))
    return model(images, captions, masks), model


def unit(seed):
    """Return eight unit vectors in double precision."""
    rows = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def test_info_nce_is_the_explicit_formula():
    """The mean of both negative log likelihoods, written out pair by pair in double precision."""
    views = {"image": unit(0), "text": unit(1), "logit_scale": torch.tensor(2.0).double()}
    similarity = (views["logit_scale"].exp() * views["image"] @ views["text"].T).tolist()
    expected = 0.0
    for i in range(8):
        for line in (similarity[i], [row[i] for row in similarity]):
            others = torch.tensor(line, dtype=torch.float64).exp().sum().log()
            expected += (others.item() - line[i]) / 2
    total, count = info_nce(views)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count == 8


def test_info_nce_does_not_depend_on_the_order_of_pairs():
    """Shuffled pairs give the same loss."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    views = {"image": unit(0), "text": unit(1), "logit_scale": torch.tensor(1.0).double()}
    shuffled = views | {"image": views["image"][order], "text": views["text"][order]}
    torch.testing.assert_close(info_nce(views)[0], info_nce(shuffled)[0])


def test_pixels_are_scored_where_hidden_and_nowhere_else():
    """The loss is the plain mean over hidden patches; visible predictions get no gradient."""
    predicted = torch.randn(2, 4, 3, requires_grad=True)
    target = torch.randn(2, 4, 3)
    hidden = torch.tensor([[True, False, True, True], [False, False, True, False]])
    views = {"predicted_patches": predicted, "target_patches": target, "hidden_patches": hidden}
    total, count = pixels(views)
    torch.testing.assert_close(total / count, (predicted - target)[hidden].square().mean())
    total.backward()
    assert (predicted.grad[~hidden] == 0).all()
    assert (predicted.grad[hidden] != 0).all()


def test_pixels_are_zero_for_a_perfect_prediction():
    """A prediction equal to the target at hidden patches costs nothing."""
    target = torch.randn(2, 4, 3)
    hidden = torch.tensor([[True, False, True, True], [False, False, True, False]])
    predicted = torch.where(hidden[..., None], target, 9.0)
    views = {"predicted_patches": predicted, "target_patches": target, "hidden_patches": hidden}
    assert pixels(views)[0] == 0


def test_the_encoder_never_sees_hidden_pixels():
    """Other pixels in hidden patches leave every prediction as it was, bit for bit."""
    recipe = make_recipe(terms={"Pixels": 1})
    images, captions = make_batch(4)
    views, _ = encode(recipe, images, captions)
    pixels_hidden = views["hidden_patches"].view(4, 4, 4).repeat_interleave(8, 1)
    pixels_hidden = pixels_hidden.repeat_interleave(8, 2)[:, None]
    changed = torch.where(pixels_hidden, 255 - images, images)
    other, _ = encode(recipe, changed, captions)
    assert torch.equal(other["predicted_patches"], views["predicted_patches"])
    seen, _ = encode(recipe, 255 - images, captions)
    assert not torch.equal(seen["predicted_patches"], views["predicted_patches"])


def test_the_towers_never_see_hidden_words():
    """Other words at hidden places leave every prediction as it was, bit for bit."""
    recipe = make_recipe()
    images, captions = make_batch(4)
    hidden = draw_masks(recipe, plan_views(JOINT), captions, 0, torch.device("cpu"))[
        "masked text"
    ].hidden_BL
    views, _ = encode(recipe, images, captions)
    other, _ = encode(recipe, images, torch.where(hidden, 5, captions))
    assert torch.equal(other["token_logits"], views["token_logits"])
    assert torch.equal(other["predicted_patches"], views["predicted_patches"])


def test_hidden_words_are_predicted_from_the_picture_too():
    """Another picture changes what the joint decoder says of words, and words of pixels."""
    recipe = make_recipe()
    images, captions = make_batch(4)
    views, _ = encode(recipe, images, captions)
    other, _ = encode(recipe, 255 - images, captions)
    assert not torch.equal(other["token_logits"], views["token_logits"])
    other, _ = encode(recipe, images, torch.where(captions > 3, 5, captions))
    assert not torch.equal(other["predicted_patches"], views["predicted_patches"])


def test_each_step_hides_something_else():
    """Masks are a pure function of seed and step, and the two views draw apart."""
    _, captions = make_batch(4)
    recipe = make_recipe()

    def hidden(view, step, seed=0):
        seeded = replace(recipe, seed=seed)
        return draw_masks(seeded, plan_views(JOINT), captions, step, torch.device("cpu"))[
            view
        ].hidden_BL

    for view in ("masked image", "masked text"):
        assert torch.equal(hidden(view, 3), hidden(view, 3))
        assert not torch.equal(hidden(view, 3), hidden(view, 4))
        assert not torch.equal(hidden(view, 3), hidden(view, 3, seed=1))


def test_tokens_is_the_cross_entropy_at_hidden_words():
    """As many logits as hidden words, none for padding, each against its own word."""
    images, captions = make_batch(6)
    recipe = make_recipe()
    views, model = encode(recipe, images, captions)
    masks = draw_masks(recipe, model.views, captions, 0, torch.device("cpu"))
    hidden = masks["masked text"].hidden_BL
    assert views["hidden_tokens"].tolist() == captions[hidden].tolist()
    assert (views["hidden_tokens"] > 3).all()
    chosen = views["token_logits"].log_softmax(dim=1)[
        range(len(views["hidden_tokens"])), views["hidden_tokens"]
    ]
    total, count = tokens(views)
    torch.testing.assert_close(total, -chosen.sum())
    assert count == hidden.sum()


def test_micro_batches_add_up():
    """Sums and counts of two halves of a batch make the whole's Pixels and Tokens."""
    recipe = make_recipe(terms={"Pixels": 1, "Tokens": 1})
    images, captions = make_batch(8)
    model = build_model(recipe, 300)
    masks = draw_masks(recipe, model.views, captions, 0, torch.device("cpu"))
    whole = model(images, captions, masks)
    halves = []
    for half in (slice(0, 3), slice(3, 8)):
        part = {name: type(m)(*(t[half] for t in m)) for name, m in masks.items()}
        halves.append(model(images[half], captions[half], part))
    for term in (pixels, tokens):
        (s, n), (s1, n1), (s2, n2) = term(whole), term(halves[0]), term(halves[1])
        assert n == n1 + n2
        torch.testing.assert_close(s, s1 + s2)


def test_weight_zero_plans_no_view():
    """A term of weight 0 asks for nothing, so nothing is encoded or made for it."""
    recipe = make_recipe(terms={"InfoNCE": 1, "Pixels": 0, "Tokens": 0})
    assert plan_views(recipe.weights) == plan_views({"InfoNCE": 1}) == {"image", "text"}
    views, model = encode(recipe, *make_batch(4))
    assert set(views) == {"image", "text", "logit_scale"}
    assert not any(name.startswith("decoder") for name, _ in model.named_parameters())


def test_the_total_is_the_weighted_sum_of_means():
    """The gradient of the whole is that of its terms, weighted."""
    views, _ = encode(make_recipe(), *make_batch(6))
    total, means = evaluate_terms(JOINT, views)
    expected = means["InfoNCE"] + means["Pixels"] + 0.5 * means["Tokens"]
    torch.testing.assert_close(total, expected)
