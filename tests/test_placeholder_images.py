"""Placeholders are found by counting; brute force is the oracle."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.stages.placeholder_images import PlaceholderImages
from breadth.loaders.errors import RecipeError

GONE, POPULAR, VIRAL = "9" * 64, "8" * 64, "7" * 64
"""Under many captions and sites; under many captions on one; on many sites under few captions."""


def kept(stage: PlaceholderImages, parts: list[pa.Table]) -> list[bool]:
    """Take all looks over all parts, as the engine does, and return every verdict."""
    states: tuple[np.ndarray, ...] = ()
    for _ in range(stage.passes):
        sketches = [stage.sketch(part, states) for part in parts]
        assert all(sketch.nbytes <= 2**21 and sketch.dtype == np.int64 for sketch in sketches)
        states = (*states, np.sum(sketches, axis=0))
    return [bool(v) for part in parts for v in stage.keep(part, states).to_pylist()]


def oracle(stage: PlaceholderImages, table: pa.Table, site: dict[str, str]) -> list[bool]:
    """Count with sets."""
    rows = table.to_pylist()
    captions, sites = defaultdict(set), defaultdict(set)
    for row in rows:
        captions[row["sha256"]] |= {row["caption"]} - {None}
        sites[row["sha256"]] |= {site[row["url"]]}
    return [
        row["sha256"] is None
        or len(captions[row["sha256"]]) <= stage.most_captions
        or (stage.most_hosts > 0 and len(sites[row["sha256"]]) <= stage.most_hosts)
        for row in rows
    ]


def pairs(rows: list[tuple[str | None, str | None, str]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        dict(
            zip(
                ("sha256", "caption", "url"),
                (pa.array(c, pa.string()) for c in columns),
                strict=True,
            )
        )
    )


def crowd(number: int) -> list[tuple[str | None, str | None, str]]:
    """Pairs of which each has a file of its own, some of them twice."""
    rng = np.random.default_rng(number)
    hashes = [rng.bytes(32).hex() for _ in range(number)]
    hashes += hashes[: number // 3]
    return [(h, f"caption {i}", f"https://site{i}.org/x.jpg") for i, h in enumerate(hashes)]


def test_the_picture_of_what_is_gone_is_dropped_and_nothing_else() -> None:
    """Of three pictures that are seen often only that of many captions and sites goes."""
    rows = crowd(3000)
    rows += [(GONE, f"words {i}", f"http://img.shop{i % 5}.co.uk/{i}.jpg") for i in range(40)]
    rows += [(POPULAR, f"words {i}", f"http://img{i}.shop.com/{i}.jpg") for i in range(40)]
    rows += [(VIRAL, f"words {i % 10}", f"http://blog{i}.de/{i}.jpg") for i in range(40)]
    rows += [(None, f"words {i}", f"http://lost{i}.de/{i}.jpg") for i in range(40)]
    table = pairs(rows)
    verdicts = kept(PlaceholderImages(), [table.slice(0, 1500), table.slice(1500)])
    assert {row[0] for row, keep in zip(rows, verdicts, strict=True) if not keep} == {GONE}
    assert verdicts.count(False) == 40


@pytest.mark.parametrize("most_captions", [0, 9, 10, 11, 39])
@pytest.mark.parametrize("most_hosts", [0, 4, 5])
def test_the_limits_are_met_exactly(most_captions: int, most_hosts: int) -> None:
    """A file with one caption or site more than the limit goes, one with as many stays."""
    rows = [(GONE, f"words {i % 11}", f"http://shop{i % 5}.com/{i}.jpg") for i in range(55)]
    site = {row[2]: f"shop{i % 5}.com" for i, row in enumerate(rows)}
    stage = PlaceholderImages(most_captions=most_captions, most_hosts=most_hosts)
    assert kept(stage, [pairs(rows)]) == oracle(stage, pairs(rows), site)


def test_hosts_of_one_site_are_one() -> None:
    """A name that somebody registered counts once; users of a shared name are sites themselves."""
    stage = PlaceholderImages(most_captions=3, most_hosts=2)
    for domain, goes in (("shop.co.uk", False), ("github.io", True)):
        rows = [(GONE, f"words {i}", f"http://a{i}.{domain}/{i}.jpg") for i in range(9)]
        assert kept(stage, [pairs(rows)]) == [not goes] * 9


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*(f"{d}" * 64 for d in range(4)), None]),
            st.sampled_from([*map(str, range(6)), None]),
            st.sampled_from([f"http://s{n}.com/x" for n in range(4)]),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 4),
    st.integers(0, 3),
    st.integers(0, 60),
)
def test_verdicts_are_those_of_counting_with_sets(rows, most_captions, most_hosts, cut) -> None:
    """However the pairs are cut into parts, the verdicts are brute force's."""
    stage = PlaceholderImages(most_captions=most_captions, most_hosts=most_hosts)
    table = pairs(rows)
    found = kept(stage, [table.slice(0, cut), table.slice(cut)])
    assert found == oracle(stage, table, {url: url for _, _, url in rows})


def test_a_thousand_suspects_are_told_apart() -> None:
    """With more repeated files than a sketch has room for, the most frequent are still found."""
    rng = np.random.default_rng(5)
    rows = [(rng.bytes(32).hex(), "alone", "http://a.org/x") for _ in range(20_000)]
    for file in range(1500):  # frequent, and harmless: one caption each
        digest = rng.bytes(32).hex()
        rows += [(digest, "the same", f"http://s{i}.org/{file}") for i in range(12)]
    gone = {rng.bytes(32).hex() for _ in range(30)}
    for digest in sorted(gone):
        rows += [(digest, f"words {i}", f"http://s{i % 7}.org/{digest}") for i in range(25)]
    verdicts = kept(PlaceholderImages(), [pairs(rows)])
    assert {row[0] for row, keep in zip(rows, verdicts, strict=True) if not keep} == gone


def test_odd_hashes_and_urls_do_no_harm() -> None:
    """A pool's own column may hold anything; what is no URL lies on no site."""
    odd = ["", "x", "ß" * 70, None, "0"]
    rows = [(odd[i % 5], f"words {i}", "not a url" if i % 2 else "") for i in range(100)]
    assert all(kept(PlaceholderImages(), [pairs(rows)]))
    assert kept(PlaceholderImages(most_hosts=0), [pairs(rows)]) == [row[0] is None for row in rows]


@pytest.mark.parametrize("option", ["most_captions", "most_hosts"])
def test_limits_are_whole_numbers(option: str) -> None:
    """A limit below nothing, or one that no sketch could tell, is refused."""
    for value in (-1, 1001, 2.5, True):
        with pytest.raises(RecipeError, match=option):
            PlaceholderImages(**{option: value})
