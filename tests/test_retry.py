"""``--retry-failed``: only failures that can pass are fetched again, and the accounts add up."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.build import build
from breadth.curate.recipe import Recipe
from breadth.curate.stage import Annotator, Filter
from breadth.loaders.accounts import check_accounts
from breadth.loaders.errors import Failed, OutputError
from breadth.loaders.folder import open_folder
from breadth.loaders.manifest import Manifest
from breadth.scripts.cli import cli
from breadth.train.loop import train
from breadth.train.recipe import TrainRecipe
from breadth.train.run_folder import describe_run, write_json

from .conftest import result
from .test_build_crashes import Killed, killed_at

PAIRS = 24
AWAY, GONE = "timeout", "not_found"
"""A failure that can pass, and one that cannot."""

SITE: dict[str, str] = {}
"""What is wrong with a link; one that is not named serves its picture."""
ASKED: Counter[str] = Counter()
MEASURED: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def fresh_site() -> Iterator[None]:
    """Begin and end with a site that serves everything."""
    for state in (SITE, ASKED, MEASURED):
        state.clear()
    yield
    SITE.clear()


def picture_of(url: str) -> bytes:
    number = int(url.rsplit("/", 1)[1])
    return bytes(cv2.imencode(".png", np.full((32, 40 + number, 3), number % 20 * 9, np.uint8))[1])


def answer(url: str) -> dict[str, Any]:
    ASKED[url] += 1
    failure = SITE.get(url)
    if failure is not None:
        return {"failure": failure, "retryable": failure == AWAY, "status": "failed_to_download"}
    picture = picture_of(url)
    number = int(url.rsplit("/", 1)[1])
    facts = {"status": "success", "retryable": False, "original_width": 40 + number}
    return facts | {"image": picture, "sha256": sha256(picture).hexdigest(), "original_height": 32}


@dataclass(frozen=True)
class Flaky(Filter, name="test_flaky"):
    """Fetches from SITE and drops what it cannot have."""

    tells: bool = True  # whether it writes the column that a retry looks for

    resource = "network"
    reads = ("url",)

    @property
    def writes(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        words = {name: pa.string() for name in ("status", "failure", "sha256")}
        sizes = {f"original_{side}": pa.int32() for side in ("width", "height")}
        told = {"retryable": pa.bool_()} if self.tells else {}
        return {"image": pa.binary(), **words, **sizes, **told}

    def annotate(self, pairs: pa.Table, **_: Any) -> Mapping[str, Any]:
        rows = [answer(url) for url in pairs["url"].to_pylist()]
        return {n: pa.array([r.get(n) for r in rows], t) for n, t in self.writes.items()}

    def keep(self, pairs: pa.Table) -> pa.BooleanArray:
        return pc.equal(pairs["status"], "success")

    def reason(self, dropped: pa.Table) -> Any:
        return dropped["failure"]


@dataclass(frozen=True)
class Shade(Annotator, name="test_shade"):
    """Reads pictures, and counts which it has measured."""

    reads = ("image", "url")
    writes = {"shade": pa.int32()}

    def annotate(self, pairs: pa.Table) -> Mapping[str, Any]:
        MEASURED.update(pairs["url"].to_pylist())
        pixels = [cv2.imdecode(np.frombuffer(p, np.uint8), 1) for p in pairs["image"].to_pylist()]
        return {"shade": pa.array([int(p[0, 0, 0]) for p in pixels], pa.int32())}


@dataclass(frozen=True)
class Looked(Annotator, name="test_looked_up"):
    """Looks a word up in the network and keeps the pairs for which it found none."""

    resource = "network"
    reads = ("url",)
    writes = {"word": pa.string(), "retryable": pa.bool_()}

    def annotate(self, pairs: pa.Table, **_: Any) -> Mapping[str, Any]:
        rows = [answer(url) for url in pairs["url"].to_pylist()]
        return {
            "word": pa.array([r.get("sha256") for r in rows], pa.string()),
            "retryable": pa.array([r["retryable"] for r in rows]),
        }


@dataclass(frozen=True)
class Letters(Annotator, name="test_letters"):
    """Measures what the look-up has found, and nothing where it found nothing."""

    reads = ("word",)
    writes = {"letters": pa.int32()}

    def annotate(self, pairs: pa.Table) -> Mapping[str, Any]:
        return {"letters": pa.array([len(w or "") for w in pairs["word"].to_pylist()], pa.int32())}


@dataclass(frozen=True)
class Grey(Annotator, name="test_drawn_grey"):
    """Gives every pair a picture, so that it can be in a shard."""

    resource = "network"
    writes = {"image": pa.binary()}

    def annotate(self, pairs: pa.Table, **_: Any) -> Mapping[str, Any]:
        return {"image": [picture_of(link(0))] * len(pairs)}


def link(number: int) -> str:
    return f"http://h/{number}"


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Links to pictures of which 20 to 23 look like 0 to 3 but for their width."""
    captions = [" ".join(["word"] * (2 + n % 5)) + f" {n}" for n in range(PAIRS)]
    file = tmp_path / "pool.parquet"
    pq.write_table(pa.table({"url": [link(n) for n in range(PAIRS)], "caption": captions}), file)
    return file


def recipe(
    *, stages: Sequence[Mapping[str, Any]] = (), tells: bool = True, **output: Any
) -> Recipe:
    """Near duplicates keep the wider: a pair that comes late can take another's place."""
    usual = [
        {"name": "test_flaky", "tells": tells},
        {"name": "test_shade"},
        {"name": "near_duplicates", "radius_bits": 0, "colour_distance": 3.0},
        {"name": "caption_length", "min_words": 4, "min_characters": 1},
    ]
    output = {"part_pairs": 7, "pairs_per_shard": 5} | output
    return Recipe.from_mapping(
        {"name": "retry", "stage": list(stages) or usual, "output": output}, text=f"{output}"
    )


def run(pool: Path, out: Path, *, retry_failed: bool = False, **output: Any) -> Manifest:
    return build(recipe(**output), pool, out, scheduler="sync", retry_failed=retry_failed)


def rows(out: Path) -> list[dict[str, Any]]:
    return [r for f in sorted((out / "ledger").iterdir()) for r in pq.read_table(f).to_pylist()]


def lasting(out: Path) -> dict[str, str]:
    """What a retried build has in common with a fresh one: all but the manifest and its key."""
    names = result(out).items()
    return {n: h for n, h in names if n not in ("manifest.json", "shards/.layout")}


def break_some() -> set[str]:
    """Break every fourth link for now and every fifth for good; return the former."""
    SITE.update({link(n): AWAY for n in range(0, PAIRS, 4)})
    SITE.update({link(n): GONE for n in range(0, PAIRS, 5)})
    return {url for url, failure in SITE.items() if failure == AWAY}


def heal() -> None:
    for url in [url for url, failure in SITE.items() if failure == AWAY]:
        del SITE[url]


@pytest.mark.parametrize("keep_staged", [True, False])
def test_a_retry_asks_only_for_what_can_succeed_and_ends_as_a_fresh_build(
    keep_staged: bool, pool: Path, tmp_path: Path
) -> None:
    """Shards and ledger are those of a build that met the healed site at once."""
    away, out = break_some(), tmp_path / "out"
    first = run(pool, out, keep_staged=keep_staged)
    heal()
    ASKED.clear()
    MEASURED.clear()
    second = run(pool, out, retry_failed=True, keep_staged=keep_staged)
    assert set(ASKED) >= away and all(ASKED[url] == 1 for url in away)
    assert not [url for url in ASKED if SITE.get(url) == GONE]
    if keep_staged:  # else a pair whose better copy is gone has to be had again
        assert set(ASKED) == away
    assert set(MEASURED) == away
    check_accounts(out, second)
    second.verify(out)
    assert second.pairs > first.pairs and second.fingerprint != first.fingerprint
    fresh = run(pool, tmp_path / "fresh", keep_staged=keep_staged)
    assert lasting(out) == lasting(tmp_path / "fresh")
    assert second.funnel == fresh.funnel


def test_a_finished_retry_is_not_done_again(pool: Path, tmp_path: Path) -> None:
    """Neither command asks for anything once nothing is left that can succeed."""
    break_some()
    run(pool, tmp_path / "out")
    heal()
    run(pool, tmp_path / "out", retry_failed=True)
    before = result(tmp_path / "out")
    ASKED.clear()
    for retry_failed in (False, True, True):
        run(pool, tmp_path / "out", retry_failed=retry_failed)
    assert result(tmp_path / "out") == before
    assert not ASKED


@pytest.mark.parametrize("tells", [True, False])
def test_where_nothing_can_be_retried_all_stays_as_it_is(
    tells: bool, pool: Path, tmp_path: Path
) -> None:
    """Final failures are left alone, and so is a stage that does not say which can pass."""
    SITE.update({link(n): GONE if tells else AWAY for n in range(6)})
    out = tmp_path / "out"
    run(pool, out, tells=tells)
    before = result(out)
    ASKED.clear()
    run(pool, out, tells=tells, retry_failed=True)
    assert result(out) == before
    assert not ASKED


def test_what_fails_again_can_be_tried_again(pool: Path, tmp_path: Path) -> None:
    """Each round asks once for what is still away; one that finds it so leaves all as it was."""
    away, out = break_some(), tmp_path / "out"
    manifest = run(pool, out)
    before, written = result(out), (out / "shards/00000.tar").stat().st_ino
    for _ in range(2):
        ASKED.clear()
        assert run(pool, out, retry_failed=True) == manifest
        assert dict(ASKED) == dict.fromkeys(away, 1)
        check_accounts(out, manifest)
    assert result(out) == before
    assert (out / "shards/00000.tar").stat().st_ino == written  # not a byte was copied
    ASKED.clear()
    run(pool, out)
    assert not ASKED
    gone = sorted(away)[0]
    heal()
    SITE[gone] = GONE
    run(pool, out, retry_failed=True)
    assert {row["url"]: row["failure"] for row in rows(out)}[gone] == GONE
    assert not [row for row in rows(out) if row["retryable"]]


def test_a_retry_whose_pictures_are_gone_is_taken_back(pool: Path, tmp_path: Path) -> None:
    """More pairs make top_fraction choose others; where those are gone, the build stays whole."""
    SITE.update({link(n): AWAY for n in range(4)})
    out = tmp_path / "out"
    best = {"name": "top_fraction", "column": "original_width", "fraction": 0.5}
    chosen = recipe(stages=[{"name": "test_flaky"}, best])
    manifest = build(chosen, pool, out, scheduler="sync")
    before = result(out)
    SITE.clear()
    SITE.update({link(n): GONE for n in range(4, PAIRS)})
    for _ in range(2):
        with pytest.raises(Failed, match="the folder is as it was before"):
            build(chosen, pool, out, scheduler="sync", retry_failed=True)
        assert result(out) == before
        assert build(chosen, pool, out, scheduler="sync") == manifest
    SITE.clear()
    healed = build(chosen, pool, out, scheduler="sync", retry_failed=True)
    assert healed.pairs > manifest.pairs
    check_accounts(out, healed)


def test_an_unfinished_build_is_finished_and_not_retried(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build without a manifest has no failures to speak of yet; nothing is asked twice."""
    break_some()
    with monkeypatch.context() as patch:
        patch.setattr(Shade, "annotate", lambda self, pairs: 1 / 0)
        with pytest.raises(Failed):
            run(pool, tmp_path / "out")
    run(pool, tmp_path / "out", retry_failed=True)
    assert set(ASKED.values()) == {1}
    run(pool, tmp_path / "fresh")
    assert result(tmp_path / "out") == result(tmp_path / "fresh")


@pytest.mark.parametrize("retry_failed", [True, False])
def test_either_command_continues_an_interrupted_retry(
    retry_failed: bool, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the retry has fetched before it failed is not fetched a second time in the round."""
    away, out = break_some(), tmp_path / "out"
    run(pool, out)
    heal()
    ASKED.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Shade, "annotate", lambda self, pairs: 1 / 0)
        with pytest.raises(Failed):
            run(pool, out, retry_failed=True)
    assert set(ASKED) == away
    run(pool, out, retry_failed=retry_failed)
    assert all(ASKED[url] == 1 for url in away)
    run(pool, tmp_path / "fresh")
    assert lasting(out) == lasting(tmp_path / "fresh")


@pytest.mark.parametrize("retry_failed", [True, False])
def test_a_retry_killed_at_any_operation_ends_as_one_that_was_not(
    retry_failed: bool, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was killed, one more command ends the round with the same bytes."""
    break_some()
    start, whole = tmp_path / "start", tmp_path / "whole"
    run(pool, start)
    heal()
    shutil.copytree(start, whole)
    with killed_at(10**9, monkeypatch) as count:
        run(pool, whole, retry_failed=True)
    expected = result(whole)
    # a prime: no kind of operation is left out
    for step in range(1 + 6 * retry_failed, count[0] + 1, 13):
        out = tmp_path / f"killed-{step}"
        shutil.copytree(start, out)
        with killed_at(step, monkeypatch), pytest.raises(Killed):
            run(pool, out, retry_failed=True)
        begun = b"retry_round" in (out / "build.json").read_bytes()
        run(pool, out, retry_failed=retry_failed or not begun)
        assert result(out) == expected, step
        shutil.rmtree(out)


def test_what_was_measured_of_a_failure_is_measured_again(pool: Path, tmp_path: Path) -> None:
    """A stage that keeps its failures: later stages look again where a retry has found more."""
    SITE.update({link(n): AWAY for n in range(5)})
    names = ("test_looked_up", "test_letters", "test_drawn_grey")
    chosen = Recipe.from_mapping({"name": "looked", "stage": [{"name": name} for name in names]})
    build(chosen, pool, tmp_path / "out", scheduler="sync")
    assert sorted(Counter(r["letters"] for r in rows(tmp_path / "out")).items()) == [
        (0, 5),
        (64, 19),
    ]
    SITE.clear()
    build(chosen, pool, tmp_path / "out", scheduler="sync", retry_failed=True)
    assert {row["letters"] for row in rows(tmp_path / "out")} == {64}


def test_another_recipe_after_a_retry_is_its_own_build(pool: Path, tmp_path: Path) -> None:
    """The round belongs to the folder: a changed threshold fetches nothing that was fetched."""
    break_some()
    out = tmp_path / "out"
    run(pool, out, keep_staged=True)
    heal()
    run(pool, out, keep_staged=True, retry_failed=True)
    ASKED.clear()
    run(pool, out, keep_staged=True, pairs_per_shard=3)
    assert not ASKED
    run(pool, tmp_path / "fresh", keep_staged=True, pairs_per_shard=3)
    assert lasting(out) == lasting(tmp_path / "fresh")


def test_a_round_asks_once_whatever_the_recipe(pool: Path, tmp_path: Path) -> None:
    """What failed in this round is left alone by an edited recipe, as it is in the first build."""
    away, out = break_some(), tmp_path / "out"
    length = {"name": "caption_length", "min_characters": 1}
    edited = [
        recipe(stages=[length | {"min_words": words}, {"name": "test_flaky"}]) for words in (1, 2)
    ]
    build(edited[0], pool, out, scheduler="sync")
    ASKED.clear()
    build(edited[0], pool, out, scheduler="sync", retry_failed=True)
    assert set(ASKED) == away
    build(edited[1], pool, out, scheduler="sync")
    assert dict(ASKED) == dict.fromkeys(away, 1)


def test_a_training_run_on_the_old_pairs_is_told(pool: Path, tmp_path: Path) -> None:
    """The pairs are others now: one line with both digests, and the run is left alone."""
    break_some()
    out, trained = tmp_path / "out", tmp_path / "run"
    run(pool, out)
    before = open_folder(out)
    chosen = TrainRecipe(name="r", terms={"InfoNCE": 1}, steps=1, batch_pairs=2)
    config = describe_run(chosen, {"digest": before.digest, "pairs": len(before)}, None)
    trained.mkdir()
    write_json(trained / "config.json", config)
    heal()
    run(pool, out, retry_failed=True)
    with pytest.raises(OutputError, match="other data") as error:
        train(chosen, out, trained)
    message = str(error.value)
    assert before.digest in message and open_folder(out).digest in message
    assert "\n" not in message
    assert [file.name for file in trained.iterdir()] == ["config.json"]


def test_the_verb_says_what_can_be_retried_and_when_nothing_can(pool: Path, tmp_path: Path) -> None:
    """A build names the flag where it would help; with the flag it says that nothing is left."""
    break_some()
    file = tmp_path / "retry.toml"
    file.write_text('name = "retry"\n[[stage]]\nname = "test_flaky"\n')
    command = ["build", str(file), "--pool", str(pool), "--out", str(tmp_path / "out")]
    command += ["--workers", "0"]
    first = CliRunner().invoke(cli, command)
    assert first.exit_code == 0
    assert "4 pairs failed for a reason that can pass" in first.stderr
    assert "--retry-failed" in first.stderr
    heal()
    again = CliRunner().invoke(cli, [*command, "--retry-failed"])
    assert "no failure is left that can pass" in again.stderr
    assert "19 pairs in" in again.stdout
    ASKED.clear()
    assert "no failure is left" in CliRunner().invoke(cli, [*command, "--retry-failed"]).stderr
    assert not ASKED
    assert "no failure" not in CliRunner().invoke(cli, command).output


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from([None, AWAY, GONE])] * 3), min_size=PAIRS, max_size=PAIRS)
)
def test_the_first_lasting_answer_counts_whatever_the_rounds_bring(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[str | None, ...]]
) -> None:
    """A pair's row holds the first answer that is not "away", else the last; each round adds up."""
    folder = tmp_path_factory.mktemp("rounds")
    file = folder / "pool.parquet"
    pq.write_table(
        pa.table({"url": [link(n) for n in range(PAIRS)], "caption": ["c"] * PAIRS}), file
    )
    only = recipe(stages=[{"name": "test_flaky"}])
    for number in range(3):
        SITE.clear()
        SITE.update({link(n): a[number] for n, a in enumerate(answers) if a[number]})
        manifest = build(only, file, folder / "out", scheduler="sync", retry_failed=number > 0)
        check_accounts(folder / "out", manifest)
    lasting = {
        link(n): next((a for a in asked if a != AWAY), AWAY) for n, asked in enumerate(answers)
    }
    assert {row["url"]: row["failure"] for row in rows(folder / "out")} == lasting
    assert manifest.pairs == sum(failure is None for failure in lasting.values())
