"""The stages that find duplicates, on pictures made for the purpose."""

from functools import cache
from hashlib import sha256

import cv2
import numpy as np
import pyarrow as pa
import pytest
from scipy.fft import dct

import breadth.loaders.world as world
from breadth.curate import perceptual
from breadth.curate.matching import match
from breadth.curate.stages.caption_repeats import CaptionRepeats
from breadth.curate.stages.exact_duplicates import ExactDuplicates
from breadth.curate.stages.near_duplicates import NearDuplicates


def encode(picture: np.ndarray, extension: str = ".jpg", quality: int = 95) -> bytes:
    """Encode an RGB picture."""
    quality_of = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [quality_of[extension], quality] if extension in quality_of else []
    return cv2.imencode(extension, picture[:, :, ::-1], options)[1].tobytes()


@cache
def scenes(n: int = 250) -> tuple[np.ndarray, ...]:
    """Draw distinct scenes of the procedural world."""
    drawn = world.World(seed=11)
    return tuple(world.picture(world.scene(drawn, i), px=160) for i in range(n))


def drops(stage, *, priority=None, **columns) -> dict[int, tuple[int, str]]:
    """Run a matcher over pairs as the engine does: dropped row -> witness and reason."""
    pairs = pa.table(columns)
    measured = pa.table({**columns, **stage.annotate(pairs)})
    keys = stage.keys(measured).rename_columns({"row": "pair"})
    priority = np.arange(len(pairs)) if priority is None else priority
    found = match(keys, priority, stage).to_pylist()
    return {row["pair"]: (row["witness"], row["reason"]) for row in found}


COPIES = {
    "jpeg quality 30": lambda p: encode(p, ".jpg", 30),
    "webp quality 50": lambda p: encode(p, ".webp", 50),
    "half the size": lambda p: encode(cv2.resize(p, (80, 80), interpolation=cv2.INTER_AREA)),
    "three times the size": lambda p: encode(cv2.resize(p, (480, 480)), quality=80),
    "a little brighter": lambda p: encode(np.clip(p.astype(int) + 4, 0, 255).astype(np.uint8)),
}


@pytest.mark.parametrize("change", COPIES)
def test_changed_copies_are_found(change):
    """More than 95 % of re-encoded and resized copies are dropped, with the original as witness."""
    originals = scenes()[:60]
    images = [encode(p) for p in originals] + [COPIES[change](p) for p in originals]
    found = drops(NearDuplicates(), image=pa.array(images, pa.binary()))
    right = sum(found.get(60 + row) == (row, "near") for row in range(60))
    assert right > 57
    assert not any(row < 60 for row in found)


def test_distinct_scenes_stay_apart_because_of_their_colours():
    """Of distinct scenes some have equal hashes nearly; the check on colour keeps all of them."""
    images = pa.array([encode(p) for p in scenes()], pa.binary())
    coarse = {"radius_bits": 10}
    assert len(drops(NearDuplicates(**coarse, colour_distance=1000), image=images)) > 5
    assert drops(NearDuplicates(), image=images) == {}


def test_near_duplicates_are_those_of_all_pairs():
    """Bands miss nothing: drops equal a walk that compares every two hashes, at every radius."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 60, dtype=np.uint64)
    hashes = np.repeat(base, 5)
    for _ in range(12):
        some = rng.random(300) < 0.5
        hashes[some] ^= np.uint64(1) << rng.integers(0, 64, some.sum(), dtype=np.uint64)
    pairs = pa.table({"dct_hash": hashes, "quarter_colours": ["80" * 12] * 300})
    priority = rng.permutation(300)
    for radius in (0, 1, 6, 9, 15):
        stage = NearDuplicates(radius_bits=radius)
        found = match(stage.keys(pairs).rename_columns({"row": "pair"}), priority, stage)
        kept, expected = [], {}
        for pair in np.argsort(priority).tolist():
            bits = [(int(hashes[k] ^ hashes[pair]).bit_count(), k) for k in kept]
            near = [(k, float(b)) for b, k in bits if b <= radius]
            if near:
                expected[pair] = near[0]
            else:
                kept.append(pair)
        assert {r["pair"]: (r["witness"], r["distance"]) for r in found.to_pylist()} == expected


def test_colours_of_every_quarter_count():
    """Equal hashes are no duplicates where one quarter differs in colour by the distance."""
    grey, other = "80" * 12, "80" * 9 + "8c8080"  # one quarter redder by 12
    pairs = pa.table({"dct_hash": np.array([5, 5], np.uint64), "quarter_colours": [grey, other]})
    for distance, found in ((12.0, 0), (12.1, 1)):
        stage = NearDuplicates(colour_distance=distance)
        assert len(stage.edges(pairs)[0]) == found


def test_the_hash_is_the_published_one():
    """Bits equal scipy's DCT of the same grey picture above its median, first bit highest."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (20, 32, 32)).astype(np.float32)
    for one, value in zip(grey, perceptual.dct_bits(grey).tolist(), strict=True):
        low = dct(dct(one.astype(np.float64), axis=0), axis=1)[:8, :8]
        bits = (low > np.median(low)).ravel()
        assert f"{value:064b}" == "".join("01"[int(b)] for b in bits)


def test_a_flat_picture_has_a_stable_hash():
    """A picture of one colour hashes to its brightness alone, whatever the codec's noise."""
    flat = np.full((90, 120, 3), 137, np.uint8)
    looks = perceptual.look_at([encode(flat, e) for e in (".png", ".jpg", ".webp")])
    assert {look.dct_hash for look in looks} == {1 << 63}


def test_transparency_is_white_and_broken_bytes_are_nothing():
    """Clear pixels decode to white, and what is no picture to None in its own row."""
    clear = np.zeros((40, 40, 4), np.uint8)
    clear[:20] = (0, 0, 255, 255)
    encoded = cv2.imencode(".png", clear)[1].tobytes()
    pixels = perceptual.decode_pixels(encoded)
    assert (pixels[:20] == (255, 0, 0)).all() and (pixels[20:] == 255).all()
    looks = perceptual.look_at([b"", encoded, None, encoded[:30], b"GIF89a"])
    assert [look is None for look in looks] == [True, False, True, True, True]


def test_exact_duplicates_by_bytes_and_pixels():
    """Equal files are "bytes", the same pixels in another format "pixels", others stay."""
    a, b = scenes()[:2]
    images = [encode(a, ".png"), encode(a, ".png"), encode(a, ".webp", 101), encode(b), encode(a)]
    assert not np.array_equal(perceptual.decode_pixels(images[4]), a)
    columns = {"image": pa.array(images, pa.binary()), "caption": pa.array(["x"] * 5)}
    assert drops(ExactDuplicates(), **columns) == {1: (0, "bytes"), 2: (0, "pixels")}
    assert drops(ExactDuplicates(same_pixels=False), **columns) == {1: (0, "bytes")}
    worst_first = np.arange(5)[::-1]
    expected = {0: (2, "pixels"), 1: (2, "pixels")}
    assert drops(ExactDuplicates(), priority=worst_first, **columns) == expected


def test_exact_duplicates_go_by_the_bytes_as_found():
    """Where the pool knows the hash of the original bytes, that one is compared."""
    images = pa.array([encode(p) for p in scenes()[:3]], pa.binary())
    known = sha256(b"original").hexdigest()
    columns = {"image": images, "caption": pa.array(["x"] * 3)}
    known_hashes = pa.array([known, None, known])
    assert drops(ExactDuplicates(), **columns, sha256=known_hashes) == {2: (0, "bytes")}
    assert drops(ExactDuplicates(), **columns) == {}


def test_exact_duplicates_by_caption_only_where_asked():
    """The option same_caption keeps one pair a caption; a missing caption equals no other."""
    images = pa.array([encode(p) for p in scenes()[:4]], pa.binary())
    captions = pa.array(["one", "one", None, None])
    assert drops(ExactDuplicates(), image=images, caption=captions) == {}
    stage = ExactDuplicates(same_caption=True)
    assert drops(stage, image=images, caption=captions) == {1: (0, "caption")}


def test_caption_repeats_keeps_the_most_preferred():
    """Of each caption the first so many in priority order stay, the others are "repeated"."""
    rng = np.random.default_rng(3)
    captions = [f"caption {i}" for i in rng.integers(0, 12, 200)]
    priority = rng.permutation(200)
    found = drops(CaptionRepeats(most=7), caption=pa.array([*captions]), priority=priority)
    for caption in set(captions):
        rows = sorted((r for r in range(200) if captions[r] == caption), key=lambda r: priority[r])
        assert [r for r in rows if r not in found] == rows[:7]
        assert all(found[r] == (rows[0], "repeated") for r in rows[7:])
