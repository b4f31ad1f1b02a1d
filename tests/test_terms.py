"""The terms against their formulas, and the views that feed them."""

import math
from dataclasses import replace

import pytest
import torch

from breadth.train.inputs import draw_inputs
from breadth.train.model import build_model
from breadth.train.recipe import TrainRecipe
from breadth.train.terms import IGNORED, Caption, InfoNCE, NTXent, Pixels, Sigmoid, Tokens

JOINT = {"InfoNCE": 1, "Pixels": 1, "Tokens": 0.5}
CPU = torch.device("cpu")


def make_recipe(**options):
    """Return a recipe for pictures of 16 patches."""
    defaults = {"name": "t", "terms": JOINT, "steps": 1, "vocabulary": 300, "batch_pairs": 4}
    return TrainRecipe(**{**defaults, "context_length": 10, **options})


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


def draw(recipe, images, captions, step=0):
    """Return what a step is given."""
    return draw_inputs(recipe, images, captions, step, vocabulary=300)


def encode(recipe, images, captions, step=0):
    """Return the views of a new model and that model."""
    model = build_model(recipe, 300)
    return model(draw(recipe, images, captions, step).on(CPU)), model


def unit(seed):
    """Return eight unit vectors in double precision."""
    rows = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def alone(**views):
    """Return views as one rank sees them: all embeddings are its own."""
    return {**views, **{f"all_{name}": value for name, value in views.items()}, "first": 0}


def contrasted(scale=2.0, **more):
    """Return eight pictures and captions with a logit scale."""
    scale = torch.tensor(scale, dtype=torch.float64)
    return alone(image=unit(0), text=unit(1), **more) | {"logit_scale": scale}


def test_info_nce_is_the_explicit_formula():
    """The mean of both negative log likelihoods, written out pair by pair in double precision."""
    views = contrasted()
    similarity = (views["logit_scale"].exp() * views["image"] @ views["text"].T).tolist()
    expected = 0.0
    for i in range(8):
        for line in (similarity[i], [row[i] for row in similarity]):
            others = sum(math.exp(value) for value in line)
            expected += (math.log(others) - line[i]) / 2
    total, count = InfoNCE().loss(views)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count == 8


def test_smoothed_labels_are_shared_out_evenly():
    """As torch's own smoothing of both directions; an answer left out gets no share of it."""
    views = contrasted()
    logits = views["logit_scale"].exp() * views["image"] @ views["text"].T
    expected = sum(
        torch.nn.functional.cross_entropy(
            one, torch.arange(8), reduction="sum", label_smoothing=0.1
        )
        for one in (logits, logits.T)
    )
    total, _ = InfoNCE(label_smoothing=0.1).loss(views)
    torch.testing.assert_close(total, expected / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_captions_can_be_left_out(smoothing):
    """The loss is that of each pair among those whose captions differ from its own."""
    group = torch.tensor([0, 1, 2, 0, 4, 5, 2, 2])
    views = contrasted(caption_group=group)
    term = InfoNCE(label_smoothing=smoothing, equal_captions="ignored")
    logits, expected = views["logit_scale"].exp() * views["image"] @ views["text"].T, 0.0
    for one in (logits, logits.T):
        for i in range(8):
            rivals = [j for j in range(8) if j == i or group[j] != group[i]]
            log_p = one[i, rivals].log_softmax(dim=0)
            right = log_p[rivals.index(i)]
            expected -= ((1 - smoothing) * right + smoothing * log_p.mean()).item() / 2
    assert term.loss(views)[0].item() == pytest.approx(expected, rel=1e-12)
    assert InfoNCE(label_smoothing=smoothing).loss(views)[0].item() > expected


@pytest.mark.parametrize("term", [InfoNCE(), Sigmoid(), NTXent(), InfoNCE(0.1)])
def test_no_order_of_pairs_changes_a_coupled_term(term):
    """Shuffled pairs give the same loss within 1e-12 in double precision."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    views = contrasted(crop_1=unit(2), crop_2=unit(3)) | {"logit_bias": torch.tensor(-1.0)}
    rows = ("image", "text", "crop_1", "crop_2")
    shuffled = views | {f"{all_}{n}": views[n][order] for n in rows for all_ in ("", "all_")}
    assert abs((term.loss(views)[0] - term.loss(shuffled)[0]).item()) < 1e-12


def test_sigmoid_is_the_explicit_formula():
    """Minus the log likelihood of every picture-caption pair being one or not."""
    views = contrasted(1.0) | {"logit_bias": torch.tensor(-3.0, dtype=torch.float64)}
    expected = 0.0
    for i in range(8):
        for j in range(8):
            logit = math.e * float(views["image"][i] @ views["text"][j]) - 3.0
            expected += math.log1p(math.exp(-logit if i == j else logit))
    total, count = Sigmoid().loss(views)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count == 8


def test_nt_xent_is_the_explicit_formula():
    """Each of 2B crops against the 2B - 1 others, its partner the right one."""
    one, two = unit(0), unit(1)
    every, expected = torch.cat([one, two]), 0.0
    for i in range(16):
        partner = (i + 8) % 16
        logits = [float(every[i] @ every[j]) / 0.2 for j in range(16)]
        others = sum(math.exp(logits[j]) for j in range(16) if j != i)
        expected += math.log(others) - logits[partner]
    total, count = NTXent(temperature=0.2).loss(alone(crop_1=one, crop_2=two))
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count == 16


def test_pixels_are_scored_where_hidden_and_nowhere_else():
    """The loss is the plain mean over hidden patches; visible predictions get no gradient."""
    predicted = torch.randn(2, 4, 3, requires_grad=True)
    target = torch.randn(2, 4, 3)
    hidden = torch.tensor([[True, False, True, True], [False, False, True, False]])
    views = {"predicted_patches": predicted, "target_patches": target, "hidden_patches": hidden}
    total, count = Pixels().loss(views)
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
    assert Pixels().loss(views)[0] == 0


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
    hidden = draw(recipe, images, captions).masks["masked text"].hidden_BL
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
    images, captions = make_batch(4)
    recipe = make_recipe()

    def hidden(view, step, seed=0):
        return draw(replace(recipe, seed=seed), images, captions, step).masks[view].hidden_BL

    for view in ("masked image", "masked text"):
        assert torch.equal(hidden(view, 3), hidden(view, 3))
        assert not torch.equal(hidden(view, 3), hidden(view, 4))
        assert not torch.equal(hidden(view, 3), hidden(view, 3, seed=1))


def test_tokens_is_the_cross_entropy_at_hidden_words():
    """As many logits as hidden words, none for padding, each against its own word."""
    images, captions = make_batch(6)
    recipe = make_recipe()
    views, _ = encode(recipe, images, captions)
    hidden = draw(recipe, images, captions).masks["masked text"].hidden_BL
    assert views["hidden_tokens"].tolist() == captions[:, : hidden.shape[1]][hidden].tolist()
    assert (views["hidden_tokens"] > 3).all()
    chosen = views["token_logits"].log_softmax(dim=1)[
        range(len(views["hidden_tokens"])), views["hidden_tokens"]
    ]
    total, count = Tokens().loss(views)
    torch.testing.assert_close(total, -chosen.sum())
    assert count == hidden.sum()


def test_weight_zero_plans_no_view():
    """A term of weight 0 asks for nothing, so nothing is encoded or made for it."""
    recipe = make_recipe(terms={"InfoNCE": 1, "Pixels": 0, "Tokens": {"weight": [[0, 0], [1, 0]]}})
    assert recipe.views == make_recipe(terms={"InfoNCE": 1}).views == {"image", "text"}
    views, model = encode(recipe, *make_batch(4))
    assert {"image", "text", "logit_scale"} <= views.keys()
    assert not {"predicted_patches", "token_logits"} & views.keys()
    assert not any(name.startswith("decoder") for name, _ in model.named_parameters())


def test_zero_output_is_as_wrong_as_the_normalised_patch_is_large():
    """For target "patch" the loss of predicting 0 is mean[v / (max(v, f) + eps)] (n - 1) / n."""
    images, captions = make_batch(4)
    images[0] = 77  # flat: no variance at all
    images[1, :, :8, :8] = 100 + images[1, :, :8, :8] % 2  # nearly flat
    for floor in (0.0, 1e-2):
        recipe = make_recipe(terms={"Pixels": 1}, pixel_target="patch", variance_floor=floor)
        views, model = encode(recipe, images, captions)
        views["predicted_patches"] = torch.zeros_like(views["predicted_patches"])
        total, count = Pixels().loss(views)
        patches = model.patches(images)[views["hidden_patches"]].double()
        variance, values = patches.var(dim=1), patches.shape[1]
        expected = (variance / (variance.clamp(min=floor) + 1e-6)).mean() * (values - 1) / values
        assert (total / count).item() == pytest.approx(expected.item(), rel=1e-5)


def test_words_are_predicted_without_the_picture_where_decoders_are_apart():
    """With two towers d(Tokens)/d(visible pixels) is zero apart, and not zero in one decoder."""
    images, captions = make_batch(4)
    slopes = {}
    for decoder in ("apart", "joint"):
        model = build_model(make_recipe(decoder=decoder), 300)
        inputs, patches = draw(model.recipe, images, captions).on(CPU), model.patches(images)
        patches.requires_grad_()
        model.patches = lambda _, given=patches: given
        Tokens().loss(model(inputs))[0].backward()
        slopes[decoder] = torch.zeros(()) if patches.grad is None else patches.grad.abs().sum()
    assert slopes["apart"] == 0
    assert slopes["joint"] > 0


def test_a_shared_tower_sees_words_and_patches_together():
    """M3AE's one tower: another visible word changes what it makes of visible patches."""
    recipe = make_recipe(terms={"Pixels": 1, "Tokens": 1}, towers="shared")
    images, captions = make_batch(4)
    views, model = encode(recipe, images, captions)
    other, _ = encode(recipe, images, torch.where(captions > 3, 5, captions))
    assert not torch.equal(other["predicted_patches"], views["predicted_patches"])
    assert model.text.stack is model.image.stack


def test_captions_are_written_from_what_came_before():
    """CoCa is causal: changing token t leaves the logits of tokens up to t as they were."""
    recipe = make_recipe(terms={"InfoNCE": 1, "Caption": 2}, architecture="coca")
    images, captions = make_batch(4)
    views, model = encode(recipe, images, captions)
    lengths = (captions != 0).sum(dim=1)
    assert len(views["caption_logits"]) == (lengths - 1).sum()
    place = 2
    changed = captions.clone()
    changed[:, place] = 7
    other = model(draw(recipe, images, changed).on(CPU))
    starts = (lengths - 1).cumsum(dim=0) - (lengths - 1)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        before = slice(start, start + min(place, length - 1))
        assert torch.equal(views["caption_logits"][before], other["caption_logits"][before])
    assert not torch.equal(views["caption_logits"], other["caption_logits"])
    total, count = Caption().loss(views)
    following = torch.cat([row[1:n] for row, n in zip(captions, lengths.tolist(), strict=True)])
    log_p = views["caption_logits"].log_softmax(dim=1)[range(len(following)), following]
    torch.testing.assert_close(total, -log_p.sum())
    assert count == len(following)


def test_places_without_a_target_cost_nothing():
    """Padding of predicted places adds neither loss nor count."""
    logits, target = torch.randn(5, 9), torch.tensor([3, IGNORED, 0, 8, IGNORED])
    total, count = Tokens().loss({"token_logits": logits, "hidden_tokens": target})
    kept = target != IGNORED
    expected, _ = Tokens().loss({"token_logits": logits[kept], "hidden_tokens": target[kept]})
    torch.testing.assert_close(total, expected)
    assert count == 3


def test_corrupted_words_are_four_fifths_masks():
    """Of hidden tokens 80 % are [MASK], a tenth another, a tenth as they were; no other moves."""
    recipe = make_recipe(
        terms={"Tokens": {"masking": "corrupted"}}, text_mask=0.15, batch_pairs=4000
    )
    images = torch.zeros(4000, 3, 32, 32, dtype=torch.uint8)
    captions = torch.randint(4, 300, (4000, 10))
    inputs = draw(recipe, images, captions)
    hidden, changed = inputs.masks["masked text"].hidden_BL, inputs.corrupted_BT
    assert torch.equal(changed[~hidden], captions[~hidden])
    masked = (changed[hidden] == 3).double().mean().item()
    same = (changed[hidden] == captions[hidden]).double().mean().item()
    error = math.sqrt(0.16 / int(hidden.sum()))
    assert masked == pytest.approx(0.8, abs=4 * error)
    assert same == pytest.approx(0.1 + 0.1 / 296, abs=4 * error)
    assert int(changed[hidden].min()) == 3
