"""Training recipes: what they may say and what they may not."""

import json
from dataclasses import asdict

import pytest

from breadth.loaders.errors import RecipeError
from breadth.train.recipe import SIZES, TrainRecipe, load_recipe, shipped_recipes

LEAST = {"name": "t", "steps": 10, "terms": {"InfoNCE": 1}}


def test_shipped_recipes_are_what_they_are_called():
    """Each loads by its name; clip, mae and maeclip differ in their terms."""
    terms = {name: set(load_recipe(name).objective) for name in shipped_recipes()}
    joint = {"InfoNCE", "Pixels", "Tokens"}
    assert terms == {
        **{key: {"InfoNCE"} for key in ("clip", "flip", "align", "demo_clip")},
        **dict.fromkeys(("maeclip", "placebo", "demo_maeclip"), joint),
        "siglip": {"Sigmoid"},
        "mae": {"Pixels"},
        "bert": {"Tokens"},
        "m3ae": {"Pixels", "Tokens"},
        "simclr": {"NTXent"},
        "slip": {"InfoNCE", "NTXent"},
        "coca": {"InfoNCE", "Caption"},
    }
    assert all(load_recipe(name).name == name for name in terms)


def test_json_gives_the_recipe_again():
    """What config.json holds makes an equal recipe."""
    recipe = load_recipe("demo_maeclip")
    assert TrainRecipe.from_options(recipe.to_json()) == recipe


def test_a_recipe_in_json_equals_what_is_read_of_it():
    """Points of a weight that Python wrote as tuples are lists, so that a run can go on."""
    written = TrainRecipe(**{**LEAST, "terms": {"InfoNCE": ((0, 1), (1, 2))}}).to_json()
    assert written == json.loads(json.dumps(written))
    assert written["terms"] == {"InfoNCE": [[0, 1], [1, 2]]}


def test_a_file_of_another_encoding_is_refused(tmp_path):
    """Bytes that are no UTF-8 are no TOML, which one line says."""
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfename")
    with pytest.raises(RecipeError, match=r"mine\.toml is not TOML"):
        load_recipe(tmp_path / "mine.toml")


def test_a_file_is_read_by_its_path(tmp_path):
    """A TOML file is a recipe whose name is the file's, unless it says another."""
    path = tmp_path / "mine.toml"
    path.write_text("steps = 3\n[terms]\nInfoNCE = 1\n")
    assert load_recipe(path).name == "mine"
    path.write_text("name = 'other'\nsteps = 3\n[terms]\nInfoNCE = 1\n")
    assert load_recipe(str(path)).name == "other"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 10}, "no option 'step'; did you mean steps?"),
        ({"zebra": 10}, "no option 'zebra'; there are name, terms"),
        ({"terms": {"infonce": 1}}, "no term 'infonce'; did you mean InfoNCE?"),
        ({"terms": {"InfoNCE": 0}}, "no term has a weight above 0"),
        ({"terms": {"InfoNCE": -1}}, "a weight is a number of at least 0"),
        ({"terms": {"InfoNCE": float("nan")}}, "a weight is a number of at least 0"),
        ({"terms": 3}, "option terms = 3 is not a table"),
        ({"terms": {"Tokens": {"masking": "bert"}}}, "masking must be dropped or corrupted"),
        ({"terms": {"InfoNCE": {"smoothing": 1}}}, "no option 'smoothing'; did you mean label_"),
        ({"terms": {"InfoNCE": {"label_smoothing": 1}}}, "label_smoothing must be at least 0 and"),
        ({"terms": {"InfoNCE": {"weight": [[0.5, 1], [0.2, 1]]}}}, "in order"),
        (
            {"terms": {"InfoNCE": 0, "Pixels": {"unit": "gradient"}}},
            'term Pixels, the first that counts, is the measure of the others: its unit is "loss"',
        ),
        ({"terms": {"Pixels": {"unit": "grams"}}}, "unit must be loss or gradient"),
        ({"terms": {"nowhere:Term": 1}}, "term nowhere:Term cannot be imported"),
        ({"terms": {"json:JSONDecoder": 1}}, "make it a subclass of"),
        ({"terms": {"InfoNCE": 1, "Caption": 1}}, "causal caption tower"),
        (
            {"terms": {"InfoNCE": 1, "Caption": 1}, "architecture": "coca", "towers": "shared"},
            "towers must be two for the term Caption, not 'shared'",
        ),
        (
            {"terms": {"Tokens": {"masking": "corrupted"}}, "architecture": "clip"},
            "architecture must read captions both ways for corrupted Tokens",
        ),
        ({"terms": {"NTXent": 1}, "batch_pairs": 1}, "batch_pairs must be at least 2 for terms"),
        ({"pool": "topk:17"}, "pool must ask for no more patches than the tower is given"),
        ({"pool": "topk:9", "patch_dropout": 0.5}, "pool must ask for no more patches than"),
        ({"architecture": "siglip", "pool": "cls"}, "has no class token"),
        ({"architecture": "siglip", "size": "base"}, "must have one width for both towers"),
        ({"size": {"width": 8}}, "or a table of width, depth, heads"),
        ({"micro_batch_pairs": 100}, "micro_batch_pairs must divide batch_pairs"),
        ({"placebo": True}, "placebo must be left out"),
        (
            {"placebo": True, "terms": {"InfoNCE": 1, "Caption": 1}, "architecture": "coca"},
            "placebo",
        ),
        (
            {"placebo": True, "terms": {"InfoNCE": 1, "Pixels": {"unit": "gradient"}}},
            "placebo must be left out",
        ),
        ({"context_length": 5000}, "context_length must be at most 4096"),
        ({"terms": {":x": 1}}, "term :x cannot be imported"),
        ({"size": {**asdict(SIZES["nano"]), "width": 66}}, "widths are multiples of 4"),
        ({"compiled": 1}, "option compiled = 1 is not true or false"),
        ({"steps": 1.5}, "option steps = 1.5 is not a whole number"),
        ({"lr": "fast"}, "option lr = 'fast' is not a number"),
        ({"lr": True}, "option lr = True is not a number"),
        ({"pixel_mean": [1, 2]}, "is not three numbers"),
        ({"pixel_mean": [0, 0, float("inf")]}, "is not three numbers"),
        ({"pixel_std": [1, 1, float("nan")]}, "is not three numbers"),
        ({"pixel_std": [1, 1, 0]}, "pixel_std must be above 0"),
        ({"patch_px": 7}, "patch_px must divide image_px, not 7"),
        ({"pool": "mean"}, "pool must be one of cls, gap, max, map, topk:K, not 'mean'"),
        ({"size": "huge"}, "size must be one of nano, micro"),
        ({"image_mask": 1.0}, "image_mask must lie between 0 and 1"),
        ({"steps": 0}, "steps must be above 0, not 0"),
        ({"lr": float("inf")}, "option lr = inf is not a number"),
        ({"terms": {"Pixels": 1}, "image_px": 8}, "image_px must be above patch_px"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(options, message):
    """The line names the option and what it may be, or the name that was meant."""
    with pytest.raises(RecipeError) as refused:
        TrainRecipe.from_options({**LEAST, **options})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_just_possible_is_taken():
    """All patches pooled, a batch of one pair that is compared with none, a joint tower."""
    for options in ({"pool": "topk:16"}, {"terms": {"Pixels": 1}, "batch_pairs": 1}):
        assert TrainRecipe.from_options({**LEAST, **options})
    assert TrainRecipe.from_options({**LEAST, "towers": "shared"})


OWN = """
from dataclasses import dataclass
from breadth.train.terms import Term

@dataclass(frozen=True)
class Mine(Term):
    views = VIEWS

    def loss(self, views):
        return views["pairs"], views["pairs"]
"""


def own_term(folder, monkeypatch, views):
    """Write a term of these views where Python finds it; return its name."""
    module = f"own_{folder.name}"
    (folder / f"{module}.py").write_text(OWN.replace("VIEWS", views))
    monkeypatch.syspath_prepend(folder)
    return f"{module}:Mine"


def test_a_term_may_see_pictures_that_another_has_encoded(tmp_path, monkeypatch):
    """Beside InfoNCE one that asks for the picture alone gets it."""
    mine = own_term(tmp_path, monkeypatch, '{"image"}')
    recipe = TrainRecipe.from_options({**LEAST, "terms": {"InfoNCE": 1, mine: 1}})
    assert recipe.views == {"image", "text"}


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ('{"image", "sound"}', "views must be a set of caption, "),
        ('"image"', "views must be a set of caption, "),
        ('{"image"}', "and no term needs the view text: add it to the views of"),
        ('{"text"}', "and no term needs the view image"),
        ('{"caption"}', "and no term needs the view image and text"),
        ('{"masked text", "corrupted text"}', "either dropped or corrupted"),
    ],
)
def test_views_that_cannot_be_encoded_are_refused(tmp_path, monkeypatch, views, message):
    """A term of one's own that asks for none of ours, or for one that is not there by itself."""
    mine = own_term(tmp_path, monkeypatch, views)
    with pytest.raises(RecipeError) as refused:
        TrainRecipe.from_options({**LEAST, "terms": {mine: 1}})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_options_files_and_syntax_are_refused(tmp_path):
    """A recipe without steps, a file that is missing or no TOML, a misspelt shipped name."""
    with pytest.raises(RecipeError, match="needs the option steps"):
        TrainRecipe.from_options({"name": "t", "terms": {"InfoNCE": 1}})
    with pytest.raises(RecipeError, match="there is no recipe file"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="did you mean maeclip"):
        load_recipe("mae_clip")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_sizes_only_grow():
    """Each word of the dial names a larger model than the one before."""
    widths = [size.width for size in SIZES.values()]
    assert widths == sorted(widths)
    assert all(size.width % size.heads == 0 for size in SIZES.values())
