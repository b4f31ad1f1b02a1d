"""Every format of a pool gives the same candidates, each with one uid, cut the same way."""

import gzip
import json
from decimal import Decimal
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breadth.curate.pool import Candidates, _fingerprint, canonical_url, part_count, read_pool
from breadth.curate.recipe import PoolColumns
from breadth.loaders.errors import PoolError
from breadth.loaders.index import is_uid

ROWS = [(f"http://h{n % 7}.example/p{n}.jpg", f"caption number {n}") for n in range(40)]
FRAME = pd.DataFrame(ROWS, columns=["url", "caption"])


def write(folder: Path, kind: str) -> Path:
    """Write the same pool in one of img2dataset's input formats."""
    file = folder / f"pool.{kind}"
    plain = kind.removesuffix(".gz")
    text = {
        "csv": lambda: FRAME.to_csv(index=False),
        "tsv": lambda: FRAME.to_csv(index=False, sep="\t"),
        "json": lambda: FRAME.to_json(orient="records"),
        "jsonl": lambda: FRAME.to_json(orient="records", lines=True),
    }
    if plain == "parquet":
        FRAME.to_parquet(file)
    else:
        body = text[plain]().encode()
        file.write_bytes(gzip.compress(body) if kind.endswith(".gz") else body)
    return file


def uids(candidates: Candidates) -> list[str]:
    return [uid for part in candidates.parts for uid in part["uid"].to_pylist()]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "csv.gz", "jsonl.gz"])
def test_every_format_gives_the_candidates_of_the_parquet(kind: str, tmp_path: Path) -> None:
    """The same rows are the same pool, whatever file they come in."""
    expected = read_pool(str(write(tmp_path, "parquet")), PoolColumns())
    found = read_pool(str(write(tmp_path, kind)), PoolColumns())
    assert uids(found) == uids(expected)
    assert found.fingerprint == expected.fingerprint


def test_a_list_of_links_has_empty_captions(tmp_path: Path) -> None:
    """A txt pool is one URL a line."""
    file = tmp_path / "pool.txt"
    file.write_text("\n".join(url for url, _ in ROWS) + "\n\n")
    found = read_pool(str(file), PoolColumns())
    assert found.count == 40
    assert {c for part in found.parts for c in part["caption"].to_pylist()} == {""}


def test_a_folder_and_a_pattern_read_all_their_files(tmp_path: Path) -> None:
    """A pool may be many files."""
    for half in (0, 1):
        FRAME.iloc[half * 20 : half * 20 + 20].to_parquet(tmp_path / f"{half}.parquet")
    whole = read_pool(str(tmp_path), PoolColumns())
    assert sorted(uids(whole)) == sorted(uids(read_pool(f"{tmp_path}/*.parquet", PoolColumns())))
    assert whole.count == 40


def test_usual_and_named_columns_are_found(tmp_path: Path) -> None:
    """LAION's URL and TEXT are found by themselves; other names are said in the recipe."""
    laion, odd = tmp_path / "laion.parquet", tmp_path / "odd.parquet"
    FRAME.rename(columns={"url": "URL", "caption": "TEXT"}).to_parquet(laion)
    FRAME.rename(columns={"url": "where", "caption": "what"}).to_parquet(odd)
    expected = uids(read_pool(str(write(tmp_path, "parquet")), PoolColumns()))
    assert uids(read_pool(str(laion), PoolColumns())) == expected
    assert uids(read_pool(str(odd), PoolColumns("where", "what"))) == expected
    with pytest.raises(PoolError, match=r"no url column 'url' \(it has where, what\)"):
        read_pool(str(odd), PoolColumns())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: None, "there is no pool at"),
        (lambda f: f.mkdir(), "no parquet, csv, tsv, txt, json, jsonl files and no shards"),
        (lambda f: f.write_text("not parquet at all"), "cannot read"),
        (lambda f: FRAME.iloc[:0].to_parquet(f), "holds no pairs"),
    ],
)
def test_a_pool_that_is_none_is_refused_in_one_line(
    make: object, message: str, tmp_path: Path
) -> None:
    """Missing, empty, foreign or broken: the message says which."""
    file = tmp_path / "pool.parquet"
    make(file)  # type: ignore[operator]
    with pytest.raises(PoolError, match=message) as error:
        read_pool(str(file), PoolColumns())
    assert "\n" not in str(error.value)


def test_a_pool_without_a_name_is_not_the_present_folder() -> None:
    """An empty --pool, as an unset variable leaves it, is refused."""
    with pytest.raises(PoolError, match="has no name"):
        read_pool(" ", PoolColumns())


def test_repeated_rows_and_rows_without_a_link_keep_a_row_with_a_reason(tmp_path: Path) -> None:
    """Of equal candidates the first stays; a fragment or the host's case makes no difference."""
    again = [("HTTP://H0.example:80/p0.jpg#top", "caption number 0"), (None, "no link at all")]
    pd.concat([FRAME, pd.DataFrame(again, columns=FRAME.columns)]).to_json(
        tmp_path / "pool.jsonl", orient="records", lines=True
    )
    found = read_pool(str(tmp_path / "pool.jsonl"), PoolColumns())
    dropped = [d for part in found.parts for d in part["_dropped"].to_pylist() if d]
    assert found.count == 42
    assert sorted(dropped) == ["no url", "repeated"]


def test_a_pools_own_uid_is_kept(tmp_path: Path) -> None:
    """DataComp's pools bring 32 hexadecimal digits of their own."""
    own = [f"{n:032x}" for n in range(40)]
    FRAME.assign(uid=own).to_parquet(tmp_path / "pool.parquet")
    assert sorted(uids(read_pool(str(tmp_path / "pool.parquet"), PoolColumns()))) == own


def test_a_column_with_a_verdicts_name_is_set_aside(tmp_path: Path) -> None:
    """A ledger can be a pool: its old verdicts are kept under another name."""
    FRAME.assign(kept=True).to_parquet(tmp_path / "pool.parquet")
    assert "pool_kept" in read_pool(str(tmp_path / "pool.parquet"), PoolColumns()).columns


@given(st.integers(1, 10**9), st.integers(1, 10**5))
def test_parts_are_never_larger_than_asked_on_average_nor_tiny(pairs: int, most: int) -> None:
    """The cut depends on the pool's size alone: enough parts, none of them for nothing."""
    parts = part_count(pairs, most)
    assert pairs / parts <= most
    assert parts <= max(8, -(-pairs // most))
    assert parts == 1 or pairs / parts >= min(most, 50) / 2


def test_one_link_is_always_in_one_part(tmp_path: Path) -> None:
    """All captions of a link meet in one task, so one body serves them."""
    many = pd.DataFrame(
        [(f"http://example.org/{n % 97}", f"caption {n}") for n in range(2000)],
        columns=["url", "caption"],
    )
    many.to_parquet(tmp_path / "pool.parquet")
    found = read_pool(str(tmp_path / "pool.parquet"), PoolColumns())
    links = [set(part["url"].to_pylist()) for part in found.parts]
    assert len(links) == 8
    assert sum(map(len, links)) == 97
    sizes = np.array([len(part) for part in found.parts])
    assert sizes.min() > 0


def test_urls_are_made_canonical_by_the_whatwg_rules() -> None:
    """Host in lower case, default port and fragment gone, spaces escaped; the rest as it is."""
    assert canonical_url(" HTTP://Ex.COM:80/a b/../c?x=1#f ") == "http://ex.com/c?x=1"
    assert canonical_url("https://ex.com/A?b=%20") == "https://ex.com/A?b=%20"
    assert canonical_url("no url") == "no url"
    assert json.loads(json.dumps(canonical_url("http://münchen.example/"))).startswith(
        "http://xn--"
    )


def read(folder: Path, **columns: object) -> pa.Table:
    """Read a pool of these columns; its parts in one table."""
    pq.write_table(pa.table(columns), folder / "odd.parquet")
    return pa.concat_tables(read_pool(str(folder / "odd.parquet"), PoolColumns()).parts)


def test_columns_of_any_type_become_what_a_ledger_and_json_can_hold(tmp_path: Path) -> None:
    """Times and decimals become strings, categories their words; nested and binary ones go."""
    kinds = {
        "time": pa.array([1, None], pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.10"), None]),
        "half": pa.array(np.array([1, 2], np.float16)),
        "view": pa.array(["a", "b"], pa.string_view()),
        "word": pa.array(["a", "b"]).dictionary_encode(),
        "nothing": pa.nulls(2),
        "truth": pa.array([True, None]),
        "big": pa.array([2**64 - 1, 0], pa.uint64()),
        "bytes": pa.array([b"\xff", None]),
        "list": pa.array([[1], None]),
    }
    found = read(tmp_path, url=pa.array(["http://e/1", "http://e/2"]), **kinds)
    assert not {"bytes", "list"} & set(found.column_names)
    rows = {row["url"]: row for row in found.to_pylist()}
    row = rows["http://e/1"]
    assert (row["price"], row["word"], row["half"]) == ("1.10", "a", 1.0)
    assert row["time"].startswith("1970-01-01")
    json.dumps(list(rows.values()))


def test_one_uid_is_one_candidate_wherever_it_lies(tmp_path: Path) -> None:
    """A pool's own uid that comes twice, on different links, counts once; the other has a row."""
    uid = [f"{n % 150:032x}" for n in range(300)]
    url = [f"http://e/{n}" for n in range(300)]
    found = read(tmp_path, url=url, caption=["a"] * 300, uid=uid)
    live = [r["uid"] for r in found.to_pylist() if r["_dropped"] is None]
    assert len(live) == len(set(live)) == 150
    assert found["_dropped"].to_pylist().count("repeated") == 150


def test_a_uid_of_another_kind_is_kept_beside_ours(tmp_path: Path) -> None:
    """What is not 32 hexadecimal digits gets a uid of ours before any work, and stays readable."""
    found = read(tmp_path, url=["http://e/1", "http://e/2"], uid=["Z" * 32, "7"])
    assert all(is_uid(uid) for uid in found["uid"].to_pylist())
    assert sorted(found["pool_uid"].to_pylist()) == ["7", "Z" * 32]


def test_words_of_digits_stay_words(tmp_path: Path) -> None:
    """A CSV whose captions look like numbers keeps their zeros."""
    (tmp_path / "pool.csv").write_text("URL,TEXT\nhttp://e/1,007\nhttp://e/2,1.0\n")
    [part] = read_pool(str(tmp_path / "pool.csv"), PoolColumns()).parts
    assert sorted(part["caption"].to_pylist()) == ["007", "1.0"]


def test_a_key_that_the_first_row_lacks_is_not_lost(tmp_path: Path) -> None:
    """The columns of a JSON pool are those of all its rows."""
    rows = [{"url": "http://e/1"}, {"url": "http://e/2", "caption": "two"}]
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    [part] = read_pool(str(tmp_path / "pool.json"), PoolColumns()).parts
    assert sorted(part["caption"].to_pylist()) == ["", "two"]


BROKEN = {
    "cut.csv.gz": gzip.compress(b"url,caption\nhttp://e/1,a\n" * 99)[:-30],
    "object.json": b'{"url": "http://e/1"}',
    "surrogate.json": b'[{"url": "http://e/1", "caption": "\\ud800"}]',
    "latin.csv": "url,caption\nhttp://e/1,café\n".encode("latin-1"),
    "twice.csv": b"url,url\na,b\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_costs_one_line(name: str, tmp_path: Path) -> None:
    """Cut, not a list, not Unicode, a column twice: PoolError in one line, no traceback."""
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(PoolError) as error:
        read_pool(str(tmp_path / name), PoolColumns())
    assert "\n" not in str(error.value)


def test_a_caption_that_is_a_list_is_refused(tmp_path: Path) -> None:
    """A column of words that cannot be read is never taken to be empty."""
    with pytest.raises(PoolError, match="caption"):
        read(tmp_path, url=["http://e/1"], caption=[["a", "b"]])


def test_a_build_inside_the_pools_folder_is_not_part_of_the_pool(tmp_path: Path) -> None:
    """``--pool . --out built`` finds the same pool when it is run again."""
    FRAME.to_parquet(tmp_path / "pool.parquet")
    before = read_pool(str(tmp_path), PoolColumns()).fingerprint
    (tmp_path / "built/ledger").mkdir(parents=True)
    (tmp_path / "built/build.json").write_text("{}")
    FRAME.to_parquet(tmp_path / "built/ledger/00000.parquet")
    assert read_pool(str(tmp_path), PoolColumns()).fingerprint == before


def test_an_unfinished_build_is_no_pool(tmp_path: Path) -> None:
    """Its ledger's tables are not taken for links."""
    (tmp_path / "ledger").mkdir()
    (tmp_path / "build.json").write_text("{}")
    FRAME.to_parquet(tmp_path / "ledger/00000.parquet")
    with pytest.raises(PoolError, match="not finished"):
        read_pool(str(tmp_path), PoolColumns())


FLAT = {
    pa.string(): ["a", "", "bcd", None, "é"],
    pa.int64(): [1, None, -5, 0],
    pa.uint64(): [2**63, None, 0],
    pa.bool_(): [True, False, None],
    pa.float32(): [1.5, None, 0.0],
    pa.null(): [None],
}


@pytest.mark.parametrize("kind", FLAT, ids=str)
def test_a_pools_fingerprint_is_of_its_values_alone(kind: pa.DataType) -> None:
    """Equal columns have equal fingerprints wherever they lie in memory, unequal ones never."""
    values = FLAT[kind]
    found: dict[str, str] = {}
    for length in range(4):
        for chosen in product(values, repeat=length):
            alone = _fingerprint([pa.table({"a": pa.array(chosen, kind)})])
            within = pa.array([*values, *chosen, *values], kind).slice(len(values), length)
            assert _fingerprint([pa.table({"a": within})]) == alone
            found[repr(chosen)] = alone
    assert len(set(found.values())) == len(found)
