"""Caption noise: an exact share of the pairs, none of which keeps its own caption."""

import json
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from breadth.curate.shard_writer import write_folder
from breadth.loaders.errors import OutputError, PoolError, Refused
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.noise import CaptionNoise, resolve_noise
from breadth.loaders.stream import Stream
from breadth.loaders.torch_dataset import StreamDataset
from tests.pair_folders import noise, write_pairs

PAIRS = 97
OPTIONS = {"batch_pairs": 8, "seed": 1, "image_px": 4}
M = (1 << 64) - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Share one folder, which nothing here changes."""
    return write_pairs(tmp_path_factory.mktemp("noise"), PAIRS)


def splitmix(z: int) -> int:
    """Finalise as SplitMix64 does."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & M
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & M
    return z ^ (z >> 31)


def rank_of(uid: str, purpose: str) -> tuple[int, str]:
    """Hash a uid by Python's integers alone."""
    digest = blake2b(purpose.encode(), digest_size=16).digest()
    first, second = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8))
    high = splitmix((splitmix(int(uid[:16], 16)) + first) & M)
    return splitmix((splitmix(high ^ int(uid[16:], 16)) + second) & M), uid


def by_hand(uids: list[str], share: float, seed: int) -> dict[str, str]:
    """Return whose caption each uid gets, by sorting: the definition, without arrays."""
    chosen = sorted(uids, key=lambda uid: rank_of(uid, f"noise/pairs/{seed}"))
    chosen = chosen[: round(share * len(uids))]
    ring = sorted(chosen, key=lambda uid: rank_of(uid, f"noise/ring/{seed}"))
    return dict(zip(ring, ring[1:] + ring[:1], strict=True))


def given_to(folder: Folder, rows: np.ndarray, found: CaptionNoise) -> dict[str, str]:
    """Return whose caption each uid gets that gets another's."""
    givers = found.givers(rows)
    taken = rows != givers
    return {
        folder.uids[row]: folder.uids[giver]
        for row, giver in zip(rows[taken].tolist(), givers[taken].tolist(), strict=True)
    }


shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]))
bits = st.lists(st.booleans(), min_size=PAIRS, max_size=PAIRS)


@given(bits, shares, st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_exactly_the_share_is_deranged_among_itself(
    folder: Folder, bits: list, share: float, seed: int
) -> None:
    """As many as were asked for, none its own, givers and takers the same: as sorted by hand."""
    rows = np.flatnonzero(bits)
    count = round(share * len(rows))
    assume(count != 1)
    found = resolve_noise(folder, rows, share, seed)
    pairs = given_to(folder, rows, found)
    assert len(found) == len(pairs) == count
    assert pairs.keys() == set(pairs.values())
    assert pairs == by_hand([folder.uids[row] for row in rows], share, seed)
    others = np.setdiff1d(np.arange(PAIRS), rows)
    assert (found.givers(others) == others).all()


@given(st.permutations(range(PAIRS)), st.integers(1, 30), shares)
@settings(max_examples=6, deadline=None)
def test_neither_shards_nor_order_play_a_part(
    folder: Folder, tmp_path_factory: pytest.TempPathFactory, order: list, size: int, share: float
) -> None:
    """The same pairs in another order, in other shards, exchange the same captions."""
    assume(round(share * PAIRS) != 1)
    table = pa.table(
        {
            "uid": [folder.uids[row] for row in order],
            "caption": [folder.caption(row) for row in order],
            "image": [noise(0)] * PAIRS,
        }
    )
    path = tmp_path_factory.mktemp("other")
    write_folder(path, table, name="other", pairs_per_shard=size)
    other, rows = open_folder(path), np.arange(PAIRS)
    assert given_to(other, rows, resolve_noise(other, rows, share, 3)) == given_to(
        folder, rows, resolve_noise(folder, rows, share, 3)
    )


def test_more_noise_keeps_the_pairs_of_less(folder: Folder) -> None:
    """Arms of a study differ by as few pairs as they can; another seed takes other pairs."""
    rows = np.arange(PAIRS)
    some, more = (given_to(folder, rows, resolve_noise(folder, rows, s, 0)) for s in (0.2, 0.6))
    assert some.keys() < more.keys()
    other = given_to(folder, rows, resolve_noise(folder, rows, 0.2, 1))
    assert other.keys() != some.keys()


def test_who_takes_no_part_gives_no_caption(folder: Folder) -> None:
    """The share is of the pairs that a subset names and a weight does not exclude."""
    stream = Stream(
        folder, **OPTIONS, subset="level < 8", weights={"level < 3": 0.0}, caption_noise=0.5
    )
    levels = np.array(folder.column("level").to_pylist())
    rows = np.flatnonzero((levels >= 3) & (levels < 8))
    uids = [folder.uids[row] for row in rows]
    expected = by_hand(uids, 0.5, 1)
    assert given_to(folder, np.arange(PAIRS), stream.noise) == expected
    assert len(expected) == round(0.5 * len(rows))


def test_pictures_and_their_order_stay(folder: Folder) -> None:
    """Noise changes captions alone: uids and pictures come as without it."""
    plain, noisy = (
        list(islice(Stream(folder, **OPTIONS, workers=0, caption_noise=share), 13))
        for share in (0.0, 1.0)
    )
    for a, b in zip(plain, noisy, strict=True):
        assert a.uids == b.uids and (a.images == b.images).all()


def test_a_state_of_other_noise_is_refused(folder: Folder) -> None:
    """Each way, by name; of equal noise it goes on, and without noise nothing of it is said."""
    clean, half, more = (Stream(folder, **OPTIONS, caption_noise=s) for s in (0.0, 0.5, 0.52))
    assert "noise" not in clean.state() and half.state()["noise"] == 48
    assert len(json.dumps(half.state())) < 200
    for state, noise_now, words in (
        (clean.state(), 0.5, "caption noise changed: it was of 0 pairs and is of 48"),
        (half.state(), 0.0, "of 48 pairs and is of 0"),
        (more.state(), 0.5, "of 50 pairs and is of 48"),
    ):
        with pytest.raises(OutputError, match=words):
            Stream(folder, **OPTIONS, caption_noise=noise_now, state=state)
        with pytest.raises(OutputError, match=words):
            data = StreamDataset(folder, **OPTIONS, caption_noise=noise_now)
            data.load_state_dict(state)
    assert Stream(folder, **OPTIONS, caption_noise=0.5, state=half.state()).state() == half.state()


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(folder: Folder, share: float) -> None:
    """In one line, before anything is read."""
    with pytest.raises(Refused, match="give 0 to 1"):
        Stream(folder, **OPTIONS, caption_noise=share)


def test_one_pair_has_nobody_to_exchange_with(folder: Folder) -> None:
    """A share that is a single pair is refused, not rounded in silence; one that does is named."""
    with pytest.raises(PoolError, match="one pair of 97") as refused:
        Stream(folder, **OPTIONS, caption_noise=0.01)
    least = float(str(refused.value).rpartition("at least ")[2])
    assert len(resolve_noise(folder, np.arange(97), least, 0)) == 2


def test_a_giver_that_is_lost_costs_the_taker(tmp_path: Path) -> None:
    """Where a caption cannot be read, the pair that was to get it is replaced and written down."""
    clean = write_pairs(tmp_path / "pairs", 20, pairs_per_shard=20)
    stream = Stream(clean, **OPTIONS, caption_noise=0.5)
    taker = int(np.flatnonzero(stream.noise.givers(np.arange(20)) != np.arange(20))[0])
    giver = int(stream.noise.givers(np.array([taker]))[0])
    damage = [None if row != giver else "torn" for row in range(20)]
    index = clean.index.drop_columns(["shard", "shard_row"])
    at = index.column_names.index("damage")
    torn = Folder(clean.shards, [index.set_column(at, "damage", pa.array(damage, pa.string()))])
    from breadth.loaders.tokenize import train_tokenizer

    options = OPTIONS | {"tokenizer": train_tokenizer(["picture"], 300), "budget_ppm": 1e6}
    with Stream(torn, **options, caption_noise=0.5, workers=0) as reading:
        for _ in islice(reading, 3):
            pass
        lost = reading.accounts()["quarantined"]
        names = [reading.lineage(step) for step in range(3)]
    seen = {uid for uids in names for uid in uids[:20]}
    assert lost >= 2
    assert torn.uids[taker] not in seen and torn.uids[giver] not in seen
