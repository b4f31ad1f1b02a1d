"""A recipe is refused in one line before any work, and says what was meant."""

import pytest

from breadth.curate.legs import bind_embedders, cut
from breadth.curate.recipe import Recipe, shipped
from breadth.curate.stages.embed import Embed
from breadth.loaders.errors import RecipeError

DOWNLOAD = {"name": "download"}


def made(*stages: dict[str, object], **more: object) -> Recipe:
    return Recipe.from_mapping({"name": "r", "stage": list(stages), **more})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"name": "caption_lenght"}], "stage 1: no stage is named 'caption_lenght'; did you mean"),
        ([{"name": "caption_length", "min_word": 2}], "no option 'min_word'; did you mean 'min_w"),
        ([{"name": "caption_length", "min_words": "two"}], "min_words must be a whole number"),
        ([{"name": "threshold"}], "needs the option 'column'"),
        ([{"name": "top_fraction", "column": "clip_score", "fraction": 3.0}], "fraction must be"),
        ([{"name": "download", "resize_mode": "squash"}], "resize_mode must be one of"),
        ([{"name": "nowhere.module:Stage"}], "cannot import 'nowhere.module:Stage'"),
    ],
)
def test_a_wrong_stage_or_option_is_named_with_what_was_meant(
    stages: list[dict[str, object]], message: str
) -> None:
    """The message holds the stage's number, the wrong word and the nearest right one."""
    with pytest.raises(RecipeError) as error:
        made(*stages)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_column_that_nobody_writes_is_refused() -> None:
    """Reading clip_score before anything writes it names the stage and the column."""
    recipe = made(DOWNLOAD, {"name": "top_fraction", "column": "clip_score", "fraction": 0.3})
    with pytest.raises(RecipeError, match=r"stage 2 \(top_fraction\) reads 'clip_score'"):
        recipe.check(["url", "caption"], has_pictures=False)
    recipe.check(["url", "caption", "clip_score"], has_pictures=False)


def test_a_recipe_without_pictures_is_refused() -> None:
    """A pool of links needs a stage that fetches; a pool of shards does not."""
    recipe = made({"name": "caption_length"})
    with pytest.raises(RecipeError, match="begin the recipe with 'download'"):
        recipe.check(["url", "caption"], has_pictures=False)
    recipe.check(["url", "caption"], has_pictures=True)


@pytest.mark.parametrize("table", [{}, {"name": "r"}, {"name": "r", "stage": []}])
def test_an_empty_recipe_is_refused(table: dict[str, object]) -> None:
    """A recipe has a name and at least one stage."""
    with pytest.raises(RecipeError, match="needs a name"):
        Recipe.from_mapping(table)


def test_misspelt_tables_and_output_options_are_named() -> None:
    """The top level, [output] and [pool] know their options, too."""
    with pytest.raises(RecipeError, match="did you mean 'stage'"):
        Recipe.from_mapping({"name": "r", "stages": []})
    with pytest.raises(RecipeError, match="did you mean 'keep_staged'"):
        made(DOWNLOAD, output={"keep_stagd": True})
    with pytest.raises(RecipeError, match="pairs_per_shard must be a int"):
        made(DOWNLOAD, output={"pairs_per_shard": "many"})


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_fit_a_pool_of_links(name: str) -> None:
    """Every shipped recipe reads, checks against url and caption, and names itself."""
    recipe = Recipe.read(name)
    assert recipe.name == name
    recipe.check(["url", "caption"], has_pictures=False)


def test_a_leg_ends_at_a_barrier_and_where_the_resource_changes() -> None:
    """Download is a leg, a matcher ends one, and what follows begins the next."""
    recipe = made(
        DOWNLOAD,
        {"name": "caption_length"},
        {"name": "exact_duplicates"},
        {"name": "caption_repeats"},
        {"name": "random_subset", "fraction": 0.5},
    )
    legs = cut(recipe.stages, "pool", 0)
    names = [[stage.name for stage in leg.stages] for leg in legs]
    assert names == [
        ["download"],
        ["caption_length", "exact_duplicates"],
        ["caption_repeats"],
        ["random_subset"],
    ]


def test_thresholds_change_the_verdict_alone() -> None:
    """Another threshold keeps every measured fingerprint; another picture size changes them."""
    stages = [DOWNLOAD, {"name": "caption_length"}, {"name": "exact_duplicates"}]
    strict = [DOWNLOAD, {"name": "caption_length", "min_words": 9}, {"name": "exact_duplicates"}]
    larger = [{**DOWNLOAD, "image_size": 512}, *stages[1:]]
    a, b, c = (cut(made(*s).stages, "pool", 0) for s in (stages, strict, larger))
    assert [leg.measured for leg in a] == [leg.measured for leg in b]
    assert a[0].verdict == b[0].verdict
    assert a[1].verdict != b[1].verdict
    assert not {leg.measured for leg in a} & {leg.measured for leg in c}


def test_an_embedding_is_made_once_for_all_its_readers() -> None:
    """clip_score twice by the same embedder needs one embedding step; no run given is refused."""
    recipe = made(DOWNLOAD, {"name": "clip_score"}, {"name": "clip_score"})
    with pytest.raises(RecipeError, match="add --embedder RUN"):
        bind_embedders(recipe, None)
    with pytest.raises(RecipeError, match="which random_features cannot"):
        bind_embedders(made(DOWNLOAD, {"name": "clip_score", "embedder": "random_features"}), None)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"stage": DOWNLOAD}, r"\[\[stage\]\]"),
        ({"stage": ["download"]}, r"\[\[stage\]\]"),
        ({"stage": [DOWNLOAD], "seed": "one"}, "seed must be a whole number"),
        ({"stage": [DOWNLOAD], "output": 3}, "must be a table"),
        ({"stage": [DOWNLOAD], "output": {"pairs_per_shard": True}}, "must be a int, not True"),
        ({"stage": [DOWNLOAD], "pool": {"url_col": 3}}, "must be a str"),
        ({"stage": [DOWNLOAD | {"image_size": "big"}]}, "image_size must be a whole number"),
        ({"stage": [DOWNLOAD | {"deadline_s": 0}]}, "deadline_s must be a number"),
    ],
)
def test_a_table_of_the_wrong_form_is_refused(table: dict[str, object], message: str) -> None:
    """One bracket too few, a word for a number: RecipeError, never a traceback."""
    with pytest.raises(RecipeError, match=message):
        Recipe.from_mapping({"name": "r", **table})


def test_where_a_run_lies_is_in_no_fingerprint() -> None:
    """An embedder's digest says what is measured: its folder may be moved."""
    embeds = [Embed(location=place, digest="d") for place in ("/a", "/b")]
    first, second = ([leg.verdict for leg in cut([embed], "pool", 0)] for embed in embeds)
    assert first == second
