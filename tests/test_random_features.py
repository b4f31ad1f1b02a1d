"""The built-in embedder, and finding embedders by name."""

import cv2
import numpy as np
import pytest

from breadth.curate.diversity import vendi_score
from breadth.curate.embedder import open_embedder
from breadth.curate.random_features import (
    SIDE_PX,
    RandomFeatures,
    colour_features,
    layout_features,
)
from breadth.loaders.errors import Refused


def encoded(picture: np.ndarray) -> bytes:
    """Return a picture as PNG."""
    return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()


def patchwork(rng: np.random.Generator) -> np.ndarray:
    """Return a smooth picture of random colours."""
    blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(blocks, (96, 96), interpolation=cv2.INTER_CUBIC)


def test_rows_have_norm_one_and_do_not_depend_on_their_neighbours():
    """A picture's vector has norm 1 and the same bits alone and in a batch."""
    rng = np.random.default_rng(0)
    pictures = [encoded(patchwork(rng)) for _ in range(9)]
    together = RandomFeatures().pictures(pictures)
    alone = np.concatenate([RandomFeatures().pictures([picture]) for picture in pictures])
    assert together.shape == (9, 128) and together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert (together == alone).all()


def test_undecodable_bytes_give_a_zero_row():
    """A broken picture has a zero vector and does not stop the others."""
    good = encoded(patchwork(np.random.default_rng(1)))
    rows = RandomFeatures().pictures([b"", good[:40], good])
    assert not rows[:2].any() and rows[2].any()
    assert RandomFeatures().pictures([]).shape == (0, 128)


def test_layout_features_are_a_weighted_dct():
    """The layout terms are OpenCV's DCT of grey times the frequency."""
    picture = np.random.default_rng(2).integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    dct = cv2.dct(picture @ np.array([0.299, 0.587, 0.114]) / 255)
    weights = np.hypot(np.arange(8)[:, None], np.arange(8)[None, :])
    assert np.allclose(layout_features(picture), (dct[:8, :8] * weights / 2).ravel()[1:])


def test_mid_grey_has_no_colour_features():
    """Colours are taken about mid-grey, so opposite colours point in opposite directions."""
    dark = colour_features(np.full((SIDE_PX, SIDE_PX, 3), 27.5))
    light = colour_features(np.full((SIDE_PX, SIDE_PX, 3), 227.5))
    assert np.allclose(dark, -light) and dark.any()
    assert not colour_features(np.full((SIDE_PX, SIDE_PX, 3), 127.5)).any()


def test_cosines_survive_the_projection():
    """The projected cosine of two pictures is near the cosine of their features."""
    rng = np.random.default_rng(3)
    pictures = [cv2.resize(patchwork(rng), (SIDE_PX, SIDE_PX)) for _ in range(40)]
    features = np.array([np.r_[colour_features(p), layout_features(p)] for p in pictures])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    rows = RandomFeatures(width=2048).pictures([encoded(p) for p in pictures])
    assert np.abs(rows @ rows.T - features @ features.T).max() < 0.12


def test_a_wide_set_scores_far_above_a_narrow_one():
    """Five pictures with noise count as few, two hundred different ones as many."""
    rng = np.random.default_rng(4)
    models = [patchwork(rng).astype(np.int16) for _ in range(5)]
    noisy = [models[i % 5] + rng.integers(-9, 10, (96, 96, 3)) for i in range(200)]
    narrow = [encoded(np.clip(p, 0, 255).astype(np.uint8)) for p in noisy]
    wide = [encoded(patchwork(rng)) for _ in range(200)]
    scores = [vendi_score(RandomFeatures().pictures(pictures)) for pictures in (narrow, wide)]
    assert scores[0] < 6 and scores[1] > 4 * scores[0]


def test_the_digest_names_the_directions():
    """Another seed or width is another embedder; the same one has the same digest."""
    digests = {RandomFeatures().digest, RandomFeatures(seed=1).digest, RandomFeatures(64).digest}
    assert len(digests) == 3 and RandomFeatures().digest in digests


def test_captions_are_refused():
    """The embedder sees pictures only and says so."""
    assert not RandomFeatures().embeds_captions
    with pytest.raises(Refused, match="no captions"):
        RandomFeatures().captions(["a circle"])


def test_embedders_are_opened_by_name(tmp_path):
    """The built-in name opens; a name that is neither built in nor a folder names the choices."""
    assert open_embedder("random_features").name == "random_features"
    with pytest.raises(Refused, match="random_features, or the folder of a run"):
        open_embedder(str(tmp_path / "missing"))
