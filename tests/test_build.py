"""A build loses nothing, repeats nothing, and gives the same bytes whatever happened on the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from breadth.curate.build import build
from breadth.curate.fetch import img2dataset_engine
from breadth.curate.recipe import Recipe
from breadth.curate.stage import Annotator
from breadth.loaders.errors import Failed, OutputError
from breadth.loaders.folder import open_folder
from breadth.loaders.manifest import Manifest

from .conftest import Site, result

EMBEDDED: list[int] = []


@dataclass(frozen=True)
class Brightness(Annotator, name="test_brightness"):
    """Reads an embedding, so that a build must make one."""

    reads = ("image_embedding:random_features",)
    writes = {"first_component": pa.float32()}

    def annotate(self, pairs: pa.Table) -> Mapping[str, Any]:
        EMBEDDED.append(len(pairs))
        vectors = pairs[self.reads[0]].combine_chunks()
        flat = vectors.flatten().to_numpy().reshape(len(pairs), -1)
        return {"first_component": pa.array(flat[:, 0].astype(np.float32))}


def recipe(name: str = "test", min_words: int = 3, engine: str = "native", **output: Any) -> Recipe:
    stages = [
        {"name": "download", "image_size": 64, "engine": engine}
        | ({"allow_private": True, "per_domain_per_s": 0} if engine == "native" else {}),
        {"name": "image_size", "min_side_px": 200},
        {"name": "caption_length", "min_words": min_words, "min_characters": 6},
        {"name": "exact_duplicates"},
        {"name": "test_brightness"},
    ]
    table = {"name": name, "stage": stages, "output": output}
    return Recipe.from_mapping(table, text=f"{name} {min_words} {sorted(output)}")


def ledger(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted((out / "ledger").glob("*.parquet")))


def test_every_candidate_has_one_row_and_the_accounts_add_up(pool: Path, tmp_path: Path) -> None:
    """In = kept + every drop reason at each stage, and the ledger has a row for each candidate."""
    out = tmp_path / "out"
    manifest = build(recipe(), pool, out, scheduler="sync")
    table = ledger(out)
    assert len(table) == pq.read_metadata(pool).num_rows == 132
    by = {e["stage"]: e for e in manifest.funnel}
    assert all(e["in"] == e["kept"] + sum(e["dropped"].values()) for e in manifest.funnel)
    assert by["pool"]["dropped"] == {"repeated": 2}
    assert sum(by["download"]["dropped"].values()) == 5
    assert by["caption_length"]["in"] - by["caption_length"]["kept"] == 1
    assert by["exact_duplicates"]["in"] - by["exact_duplicates"]["kept"] == 4
    assert manifest.pairs == 120 == pc.sum(table["kept"]).as_py()
    assert sorted(open_folder(out).uids) == sorted(table.filter(table["kept"])["uid"].to_pylist())


def test_a_duplicate_names_a_kept_witness(pool: Path, tmp_path: Path) -> None:
    """Every pair that a matcher drops has a witness that is itself kept."""
    build(recipe(), pool, tmp_path / "out", scheduler="sync")
    table = ledger(tmp_path / "out").to_pylist()
    kept = {row["uid"] for row in table if row["kept"]}
    dropped = [row for row in table if row["dropped_by"] == "exact_duplicates"]
    assert len(dropped) == 4
    assert all(row["witness"] in kept for row in dropped)


def test_one_body_serves_all_its_captions(pool: Path, site: Site, tmp_path: Path) -> None:
    """A link that stands with two captions is fetched once."""
    build(recipe(), pool, tmp_path / "out", scheduler="sync")
    assert site.asked["20.jpg"] == 1
    assert max(site.asked.values()) == 1


def test_a_shuffled_pool_gives_the_same_bytes(pool: Path, tmp_path: Path) -> None:
    """The order of the pool's rows leaves no trace in shards, ledger or manifest."""
    table = pq.read_table(pool)
    order = np.random.default_rng(0).permutation(len(table))
    pq.write_table(table.take(pa.array(order)), tmp_path / "shuffled.parquet")
    build(recipe(), pool, tmp_path / "a", scheduler="sync")
    build(recipe(), tmp_path / "shuffled.parquet", tmp_path / "b", scheduler="sync")
    assert result(tmp_path / "a") == result(tmp_path / "b")


def test_another_part_size_keeps_the_same_pairs(pool: Path, tmp_path: Path) -> None:
    """How the pool is cut changes which file a row is in, never whether it is kept."""
    build(recipe(), pool, tmp_path / "a", scheduler="sync")
    build(recipe(part_pairs=17), pool, tmp_path / "b", scheduler="sync")
    assert len(list((tmp_path / "b/ledger").iterdir())) > len(
        list((tmp_path / "a/ledger").iterdir())
    )
    columns = ["uid", "kept", "dropped_by", "reason", "witness"]
    first, second = (ledger(tmp_path / x).select(columns).to_pylist() for x in "ab")
    assert sorted(map(str, first)) == sorted(map(str, second))


def test_a_finished_build_is_not_done_again(pool: Path, site: Site, tmp_path: Path) -> None:
    """The same command on a finished folder asks for nothing and changes nothing."""
    build(recipe(), pool, tmp_path / "out", scheduler="sync")
    before, asked = result(tmp_path / "out"), site.asked.total()
    build(recipe(), pool, tmp_path / "out", scheduler="sync")
    assert (result(tmp_path / "out"), site.asked.total()) == (before, asked)


@pytest.mark.parametrize("keep_staged", [True, False])
def test_a_stricter_threshold_measures_only_what_it_revives(
    pool: Path, site: Site, tmp_path: Path, keep_staged: bool
) -> None:
    """Verdicts are computed anew from what was measured; the result is a fresh build's.

    A duplicate whose shorter-captioned witness is now dropped comes back: it alone is embedded,
    and fetched only where its picture was freed.
    """
    out = tmp_path / "out"
    build(recipe(keep_staged=keep_staged), pool, out, scheduler="sync")
    before, asked = set(open_folder(out).uids), site.asked.total()
    EMBEDDED.clear()
    strict = recipe(min_words=12, keep_staged=keep_staged)
    manifest = build(strict, pool, out, scheduler="sync")
    revived = set(open_folder(out).uids) - before
    assert 0 < manifest.pairs < 120
    assert sum(EMBEDDED) == len(revived)
    assert site.asked.total() - asked == (0 if keep_staged else len(revived))
    build(strict, pool, tmp_path / "fresh", scheduler="sync")
    assert result(out) == result(tmp_path / "fresh")


@pytest.mark.parametrize("keep_staged", [True, False])
def test_a_revived_pair_is_measured_alone(
    pool: Path, site: Site, tmp_path: Path, keep_staged: bool
) -> None:
    """A milder threshold embeds only the pairs it revives, and fetches one only if it was freed."""
    out = tmp_path / "out"
    build(recipe(min_words=12, keep_staged=keep_staged), pool, out, scheduler="sync")
    before, asked = set(open_folder(out).uids), site.asked.total()
    EMBEDDED.clear()
    mild = recipe(keep_staged=keep_staged)
    build(mild, pool, out, scheduler="sync")
    revived = len(set(open_folder(out).uids) - before)
    assert revived > 0
    assert sum(EMBEDDED) == revived
    if keep_staged:
        assert site.asked.total() == asked
    else:
        assert 0 < site.asked.total() - asked <= revived + 4  # the duplicates' pixels are compared
    build(mild, pool, tmp_path / "fresh", scheduler="sync")
    assert result(out) == result(tmp_path / "fresh")


def test_a_pair_that_img2dataset_loses_without_a_word_keeps_its_row(
    pool: Path, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """img2dataset prints and forgets a pair whose post-processing raises; its row says so."""
    write = img2dataset_engine._Collector.write

    def lose_one(self: Any, picture: Any, key: Any, caption: Any, facts: Any) -> None:
        if facts["url"].endswith("/7.jpg"):
            raise ValueError("boom")
        write(self, picture, key, caption, facts)

    monkeypatch.setattr(img2dataset_engine._Collector, "write", lose_one)
    manifest = build(recipe(engine="img2dataset"), pool, tmp_path / "out", scheduler="sync")
    [row] = [r for r in ledger(tmp_path / "out").to_pylist() if r["url"] == site.link("7.jpg")]
    assert (row["status"], row["failure"]) == ("failed_to_download", "broken_off")
    assert (row["dropped_by"], row["retryable"]) == ("download", True)
    assert manifest.pairs == 119


def test_another_recipe_or_pool_on_the_same_folder_is_refused(pool: Path, tmp_path: Path) -> None:
    """A folder belongs to one recipe's name and one pool."""
    out = tmp_path / "out"
    build(recipe(), pool, out, scheduler="sync")
    before = result(out)
    with pytest.raises(OutputError, match="another recipe"):
        build(recipe(name="other"), pool, out, scheduler="sync")
    pq.write_table(pq.read_table(pool).slice(3), tmp_path / "less.parquet")
    with pytest.raises(OutputError, match="another pool"):
        build(recipe(), tmp_path / "less.parquet", out, scheduler="sync")
    assert result(out) == before


def test_a_folder_with_other_files_is_refused(pool: Path, tmp_path: Path) -> None:
    """A build never mixes with what it did not write."""
    with pytest.raises(OutputError, match="holds other files"):
        build(recipe(), pool, tmp_path, scheduler="sync")


def test_a_keep_list_streams_the_same_pairs_without_copying(pool: Path, tmp_path: Path) -> None:
    """With materialise = false the pictures stay where they are and a uid list says which count."""
    build(recipe(), pool, tmp_path / "copied", scheduler="sync")
    manifest = build(recipe(materialise=False), pool, tmp_path / "listed", scheduler="sync")
    assert not (tmp_path / "listed/shards").exists()
    copied, listed = (open_folder(tmp_path / name) for name in ("copied", "listed"))
    assert manifest.pairs == len(listed) == len(copied) == 120
    pictures = {uid: listed.image(row) for row, uid in enumerate(listed.uids)}
    assert all(pictures[uid] == copied.image(row) for row, uid in enumerate(copied.uids))


def test_shards_are_a_pool_and_nothing_is_fetched_again(
    pool: Path, site: Site, tmp_path: Path
) -> None:
    """A second build from the first one's shards keeps their uids, columns and pictures."""
    build(recipe(), pool, tmp_path / "first", scheduler="sync")
    asked = site.asked.total()
    stages = [{"name": "random_subset", "pairs": 50}]
    second = Recipe.from_mapping({"name": "half", "stage": stages})
    manifest = build(second, tmp_path / "first", tmp_path / "second", scheduler="sync")
    assert manifest.pairs == 50
    assert site.asked.total() == asked
    first, half = (open_folder(tmp_path / name) for name in ("first", "second"))
    place = {uid: row for row, uid in enumerate(first.uids)}
    for row, uid in enumerate(half.uids):
        assert half.image(row) == first.image(place[uid])
        assert half.columns(row)["sha256"] == first.columns(place[uid])["sha256"]


def test_staged_pictures_are_freed_once_their_shards_are_written(
    pool: Path, tmp_path: Path
) -> None:
    """By default a picture is on disk once when the build is done."""
    build(recipe(), pool, tmp_path / "out", scheduler="sync")
    assert not list((tmp_path / "out/parts").rglob("*.tar"))
    build(recipe(keep_staged=True), pool, tmp_path / "kept", scheduler="sync")
    assert list((tmp_path / "kept/parts").rglob("*.tar"))


def test_shards_are_of_equal_size(pool: Path, tmp_path: Path) -> None:
    """120 pairs at 50 a shard make three shards of 40."""
    manifest = build(recipe(pairs_per_shard=50), pool, tmp_path / "out", scheduler="sync")
    assert [shard.pairs for shard in manifest.shards] == [40, 40, 40]
    Manifest.read(tmp_path / "out").verify(tmp_path / "out")


def test_a_failing_part_is_named_and_the_same_command_continues(
    pool: Path, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in one part leaves the others done; the next run does only what is left."""
    out = tmp_path / "out"
    annotate = Brightness.annotate
    calls: list[int] = []

    def fail_once(self: Brightness, pairs: pa.Table) -> Mapping[str, Any]:
        calls.append(len(pairs))
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return annotate(self, pairs)

    monkeypatch.setattr(Brightness, "annotate", fail_once)
    with pytest.raises(Failed, match="run the same command again"):
        build(recipe(part_pairs=40), pool, out, scheduler="sync")
    assert (out / "failed").is_dir()
    asked = site.asked.total()
    build(recipe(part_pairs=40), pool, out, scheduler="sync")
    assert site.asked.total() == asked
    assert not (out / "failed").exists()
    build(recipe(part_pairs=40), pool, tmp_path / "fresh", scheduler="sync")
    assert result(out) == result(tmp_path / "fresh")
