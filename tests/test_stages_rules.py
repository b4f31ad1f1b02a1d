"""The stages that judge a pair by itself: DataComp's rule, languages, scores and limits."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.recipe import Recipe, shipped
from breadth.curate.stages.caption_language import CaptionLanguage
from breadth.curate.stages.caption_length import CaptionLength
from breadth.curate.stages.caption_repeats import CaptionRepeats
from breadth.curate.stages.clip_score import ClipScore
from breadth.curate.stages.exact_duplicates import ExactDuplicates
from breadth.curate.stages.image_size import ImageSize
from breadth.curate.stages.near_duplicates import NearDuplicates
from breadth.curate.stages.threshold import Threshold
from breadth.loaders.errors import RecipeError


def judge(stage, **columns) -> tuple[list[bool], list[str]]:
    """Return a stage's verdicts and its reasons for the pairs it drops."""
    pairs = pa.table(columns)
    pairs = pa.table({**columns, **stage.annotate(pairs)})
    kept = stage.keep(pairs)
    return kept.to_pylist(), stage.reason(pairs.filter(~np.asarray(kept))).to_pylist()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ab \t\n\u3000\u00e9\U0001f600", max_size=12),
            st.integers(0, 1300),
            st.integers(0, 1300),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_datacomps_basic_rule(rows):
    """Length and size keep exactly what DataComp's own expressions keep."""
    captions, widths, heights = (list(c) for c in zip(*rows, strict=True))
    long, _ = judge(CaptionLength(), caption=pa.array(captions, pa.string()))
    assert long == [len(c.split()) > 2 and len(c) > 5 for c in captions]
    sizes = {
        "original_width": pa.array(widths, pa.int32()),
        "original_height": pa.array(heights, pa.int32()),
    }
    sensible, _ = judge(ImageSize(), **sizes)
    assert sensible == [
        min(w, h) >= 200 and max(w, h) / min(w, h) <= 3.0
        for w, h in zip(widths, heights, strict=True)
    ]


def test_reasons_of_size_and_length():
    """Each dropped pair is given the first limit it breaks, or that nothing is known of it."""
    widths, heights = pa.array([199, 601, 600, None, 50]), pa.array([900, 200, 200, 300, 500])
    assert judge(ImageSize(), original_width=widths, original_height=heights) == (
        [False, False, True, False, False],
        ["small", "aspect", "missing", "small"],
    )
    captions = pa.array(["two words", "a b c", None, "", "three whole words"])
    assert judge(CaptionLength(), caption=captions) == (
        [False, False, False, False, True],
        ["words", "characters", "missing", "words"],
    )


LANGUAGES = {
    "en": "a photograph of a dog playing with children in the park",
    "de": "ein Hund spielt mit den Kindern im Park und ist glücklich",
    "fr": "un chien joue avec les enfants dans le parc près de la maison",
    "es": "un perro juega con los niños en el parque cerca de la casa",
    "ru": "собака играет с детьми в парке возле дома",  # noqa: RUF001
    "ja": "公園で子供たちと遊んでいる犬の写真です",
    "zh": "一只狗在公园里和孩子们一起玩耍的照片",
    "ar": "كلب يلعب مع الأطفال في الحديقة بالقرب من المنزل",
}


def test_languages_are_found_and_named():
    """Plain sentences get their language; those not wanted are dropped under its name."""
    captions = pa.array(list(LANGUAGES.values()))
    kept, reasons = judge(CaptionLanguage(("en", "fr")), caption=captions)
    assert kept == [code in ("en", "fr") for code in LANGUAGES]
    assert reasons == [code for code in LANGUAGES if code not in ("en", "fr")]


def test_language_needs_the_least_probability():
    """A wanted language below the least probability is "unsure"; an empty caption "missing"."""
    captions = pa.array([LANGUAGES["en"], "ok circle", None, " \n "])
    stage = CaptionLanguage(min_probability=0.8)
    measured = stage.annotate(pa.table({"caption": captions}))
    assert measured["caption_language"].to_pylist()[2:] == [None, None]
    probabilities = measured["caption_language_probability"].to_pylist()
    assert probabilities[0] > 0.8 > probabilities[1] > 0
    kept, reasons = judge(stage, caption=captions)
    assert kept == [True, False, False, False]
    assert reasons[1:] == ["missing", "missing"]
    wanted = CaptionLanguage((measured["caption_language"][1].as_py(),), 0.8)
    assert judge(wanted, caption=captions.slice(1, 1)) == ([False], ["unsure"])


def test_a_line_break_does_not_change_the_language():
    """A caption over several lines, which fastText refuses, is judged as one line."""
    broken = LANGUAGES["de"].replace(" ", "\n", 3)
    written = CaptionLanguage().annotate(pa.table({"caption": [LANGUAGES["de"], broken]}))
    assert written["caption_language"].to_pylist() == ["de", "de"]
    first, second = written["caption_language_probability"].to_pylist()
    assert first == second <= 1


def test_clip_score_is_the_dot_product():
    """Scores equal numpy's in float32, also of a slice; a missing or zero vector has none."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2, 40, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float16)
    vectors[0, 7] = 0
    mask = pa.array(np.arange(40) == 9)
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), 16, mask=m)
        for v, m in zip(vectors, (mask, None), strict=True)
    ]
    pairs = pa.table(columns, ["image_embedding:run", "caption_embedding:run"]).slice(5, 30)
    scores = ClipScore().annotate(pairs)["clip_score"]
    expected = (vectors[0].astype(np.float32) * vectors[1].astype(np.float32)).sum(axis=1)[5:35]
    assert [i for i, s in enumerate(scores.to_pylist()) if s is None] == [2, 4]
    rest = scores.is_valid().to_numpy(False)
    assert np.allclose(scores.to_numpy(False)[rest], expected[rest], atol=1e-6)
    assert ClipScore("x").reads == ("image_embedding:x", "caption_embedding:x")


def test_threshold_keeps_what_is_inside():
    """Both limits belong to the inside; null and NaN are missing."""
    values = pa.array([-1.0, 0.0, 0.5, 1.0, 1.5, None, float("nan")])
    kept, reasons = judge(Threshold("x", 0, 1.0), x=values)
    assert kept == [False, True, True, True, False, False, False]
    assert reasons == ["below", "above", "missing", "missing"]
    assert judge(Threshold("x", max=0.5), x=values)[0] == [True] * 3 + [False] * 4
    assert judge(Threshold("x", min=2), x=pa.array([1, 2, 3], pa.int64()))[0] == [False, True, True]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ImageSize(min_side_px=-1), "image_size: min_side_px"),
        (lambda: ImageSize(max_aspect="3"), "image_size: max_aspect"),
        (lambda: ImageSize(max_aspect=float("nan")), "image_size: max_aspect"),
        (lambda: CaptionLength(min_words=2.5), "caption_length: min_words"),
        (lambda: CaptionLength(min_characters=True), "caption_length: min_characters"),
        (lambda: CaptionLanguage(languages="en"), "caption_language: languages"),
        (lambda: CaptionLanguage(languages=()), "caption_language: languages"),
        (lambda: CaptionLanguage(min_probability=1.5), "caption_language: min_probability"),
        (lambda: CaptionRepeats(most=0), "caption_repeats: most"),
        (lambda: ExactDuplicates(same_bytes=1), "exact_duplicates: same_bytes"),
        (lambda: ExactDuplicates(same_bytes=False, same_pixels=False), "exact_duplicates: "),
        (lambda: NearDuplicates(radius_bits=40), "near_duplicates: radius_bits"),
        (lambda: NearDuplicates(colour_distance=-1), "near_duplicates: colour_distance"),
        (lambda: NearDuplicates(prefer=""), "near_duplicates: prefer"),
        (lambda: Threshold("x"), "threshold: "),
        (lambda: Threshold("x", 2, 1), "threshold: "),
        (lambda: Threshold("x", min="2"), "threshold: min"),
        (lambda: ClipScore(embedder=3), "clip_score: embedder"),
    ],
)
def test_an_impossible_option_is_refused_in_one_line(make, words):
    """The error names the stage and the option."""
    with pytest.raises(RecipeError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_threshold_on_words_is_refused():
    """A column of strings raises an error that names it."""
    with pytest.raises(RecipeError, match="'x' holds string"):
        Threshold("x", 1).keep(pa.table({"x": ["a"]}))


def test_shipped_recipes_fit_together():
    """Each reads only what is written before it, says its command, and basic is DataComp's rule."""
    assert {"none", "basic", "clip_top30"} <= set(shipped())
    for name in shipped():
        recipe = Recipe.read(name)
        recipe.check({"url", "caption"}, has_pictures=False)
        assert recipe.name == name
        assert f"#   breadth build {name} --pool " in recipe.text
    basic = Recipe.read("basic").stages
    assert ImageSize(200, 3.0) in basic and CaptionLength(3, 6) in basic
    assert CaptionLanguage(("en",), 0.0) in basic
    assert not next(s for s in basic if s.name == "exact_duplicates").same_caption
    assert Recipe.read("clip_top30").stages[: len(basic)] == basic
