"""Far folders: the same pairs as here, few requests, a bounded cache, and errors in their place."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

from breadth.curate.shard_writer import write_folder
from breadth.loaders import remote, shard_cache
from breadth.loaders.errors import BreadthError, PoolError, Refused, ShardError
from breadth.loaders.folder import Folder, open_folder
from breadth.loaders.manifest import Manifest, Shard
from breadth.loaders.remote import REQUESTS
from breadth.loaders.remote_shards import GAP, LONGEST
from breadth.loaders.shard_cache import PartialShard, ShardCache
from breadth.loaders.subset import write_npy
from breadth.scripts.inspect import inspect, verify_folder
from breadth.train.evaluate.labels import Task, read_tasks, write_tasks

from .s3_server import Store, serve

PAIRS = 60


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A set of three shards whose pictures are 1 to 60 kB of noise behind a JPEG's first bytes."""
    path = tmp_path_factory.mktemp("set") / "set"
    rng = np.random.default_rng(0)
    pairs = (
        (
            {"uid": f"{i:032x}", "caption": f"caption {i}", "score": i / 7},
            b"\xff\xd8\xff" + rng.bytes(1000 * (i + 1)),
            "jpg",
        )
        for i in range(PAIRS)
    )
    write_folder(path, pairs, name="t", pairs_per_shard=20)
    return open_folder(path)


@pytest.fixture
def store(local: Folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The set on a server, as ``bucket/set``, with the times to wait made short."""
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.002)
    with serve(Store()) as store:
        store.put(Path(local.source["path"]), "bucket/set")
        options = {
            "anon": True,
            "endpoint_url": store.url,
            "skip_instance_cache": True,
            "use_listings_cache": False,
        }
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        yield store


def url_of(store: Store, protocol: str, path: str = "bucket/set") -> str:
    """Return the URL of a folder of the server."""
    return f"s3://{path}" if protocol == "s3" else f"{store.url}/{path}"


def as_bytes(views: list) -> list:
    """Copy views, and put the text of errors in place of errors."""
    return [str(view) if isinstance(view, ShardError) else bytes(view) for view in views]


@pytest.mark.parametrize("protocol", ["s3", "http"])
def test_a_far_folder_is_the_same_as_here(
    local: Folder, store: Store, tmp_path: Path, protocol: str
) -> None:
    """Pictures, captions, columns, uids and digest over S3 and HTTP equal those of the files."""
    far = open_folder(url_of(store, protocol), cache_dir=tmp_path)
    rows = np.random.default_rng(1).permutation(PAIRS)
    assert far.digest == local.digest and far.uids == local.uids
    assert as_bytes(far.pictures(rows, check=True)) == as_bytes(local.pictures(rows))
    assert far.captions(rows) == local.captions(rows)
    assert far.columns(3) == local.columns(3)
    assert far.table(["score"]).equals(local.table(["score"]))
    assert far.storage.is_remote and not local.storage.is_remote


def test_what_was_read_is_not_asked_for_again(local: Folder, store: Store, tmp_path: Path) -> None:
    """A second folder on the same cache asks for the manifest and for nothing else."""
    for again in (False, True):
        store.asked.clear()
        far = open_folder(url_of(store, "s3"), cache_dir=tmp_path)
        far.pictures(np.arange(PAIRS))
        far.captions(np.arange(PAIRS))
        far.table(["caption"])
        if again:
            assert {ask.key.rpartition("/")[2] for ask in store.asked if ask.method == "GET"} == {
                "manifest.json"
            }
        assert bool(store.gets(".tar")) is not again


def test_near_pairs_come_with_one_request_and_captions_with_their_pictures(
    local: Folder, store: Store, tmp_path: Path
) -> None:
    """Stretches up to the gap apart are one request, and no bytes pass but theirs and the gaps'."""
    far = open_folder(url_of(store, "s3"), cache_dir=tmp_path)
    near, apart = np.array([4, 6]), np.array([39, 20])
    far.pictures(near)
    [ask] = store.gets(".tar")
    offset, length = (
        local.index[f"image_{of}"].to_numpy().astype(int) for of in ("offset", "length")
    )
    assert ask.start <= offset[4] and ask.stop >= offset[6] + length[6]
    assert ask.stop - ask.start < sum(length[4:7]) + 3 * 4096 + 2 * 4096
    far.captions(near)
    assert len(store.gets(".tar")) == 1
    assert offset[39] - offset[20] - length[20] > GAP
    far.pictures(apart)
    assert len(store.gets(".tar")) == 3
    far.pictures(np.arange(20, 40))
    assert all(ask.stop - ask.start <= LONGEST for ask in store.gets(".tar"))


def test_requests_are_under_way_together(store: Store, tmp_path: Path) -> None:
    """Far-apart pairs of one call are fetched at once, and no more than the bound."""
    body = np.random.default_rng(2).bytes(200_000)
    pairs = (
        ({"uid": f"{i:032x}", "caption": ""}, b"\xff\xd8\xff" + body, "jpg") for i in range(160)
    )
    write_folder(tmp_path / "big", pairs, name="t")
    store.put(tmp_path / "big", "bucket/big")
    store.delay_s = 0.05
    far = open_folder(url_of(store, "s3", "bucket/big"), cache_dir=tmp_path / "cache")
    store.most_at_once = 0
    assert not any(
        isinstance(v, ShardError) for v in far.pictures(np.arange(0, 160, 2), check=True)
    )
    assert len(store.gets(".tar")) == 80
    assert 10 < store.most_at_once <= REQUESTS


def test_whole_shards_can_be_fetched(local: Folder, store: Store, tmp_path: Path) -> None:
    """Told to fetch whole shards, one pair of a small shard brings all of it, with one request."""
    far = open_folder(url_of(store, "s3"), cache_dir=tmp_path)
    far.fetch_whole_shards()
    far = open_folder(**far.source)
    far.pictures(np.array([25]))
    assert as_bytes(far.pictures(np.arange(20, 40))) == as_bytes(local.pictures(np.arange(20, 40)))
    assert len(store.gets(".tar")) == 1


def test_requests_that_fail_are_tried_again(local: Folder, store: Store, tmp_path: Path) -> None:
    """A few errors of the server change nothing but the time."""
    far = open_folder(url_of(store, "http"), cache_dir=tmp_path)
    store.failures = 3
    assert as_bytes(far.pictures(np.arange(9))) == as_bytes(local.pictures(np.arange(9)))
    assert sum(ask.method == "failed" for ask in store.asked) == 3


@pytest.mark.parametrize("trouble", ["down", "cut", "missing"])
def test_what_cannot_be_fetched_is_an_error_in_its_place(
    local: Folder, store: Store, tmp_path: Path, trouble: str
) -> None:
    """When all tries fail, pairs that are here are whole and each of the others is one line."""
    far = open_folder(url_of(store, "http"), cache_dir=tmp_path)
    far.pictures(np.arange(3))
    store.failures, store.cut = (10**9, True) if trouble == "down" else (0, trouble == "cut")
    if trouble == "missing":
        del store.files["bucket/set/00001.tar"]
    rows = np.array([1, 30, 2, 50])
    found = far.pictures(rows)
    expected = as_bytes(local.pictures(rows))
    assert [bytes(found[0]), bytes(found[2])] == [expected[0], expected[2]]
    assert isinstance(found[1], ShardError) and "\n" not in str(found[1])
    assert "00001.tar" in str(found[1])
    assert isinstance(found[3], ShardError) is (trouble != "missing")
    store.failures, store.cut = 0, False
    if trouble != "missing":
        assert as_bytes(far.pictures(rows)) == expected


def test_a_changed_shard_is_found_by_its_crc(local: Folder, store: Store, tmp_path: Path) -> None:
    """A tar that was replaced by another of its size costs its pairs, where CRCs are compared."""
    body = bytearray(store.files["bucket/set/00000.tar"])
    offset = local.index["image_offset"][5].as_py()
    body[offset + 500] ^= 1
    store.files["bucket/set/00000.tar"] = bytes(body)
    far = open_folder(url_of(store, "s3"), cache_dir=tmp_path)
    found = far.pictures(np.array([4, 5, 6]), check=True)
    assert [isinstance(view, ShardError) for view in found] == [False, True, False]
    assert "other bytes" in str(found[1])


def test_a_server_without_ranges_is_refused(store: Store, tmp_path: Path) -> None:
    """A server that would send whole shards for every pair is told of in one line, not used."""
    far = open_folder(url_of(store, "http"), cache_dir=tmp_path)
    store.ranges = False
    [found] = far.pictures(np.array([4]))
    assert isinstance(found, ShardError) and "does not serve ranges" in str(found)
    assert sum(ask.stop > ask.start for ask in store.gets(".tar")) == 1  # and that is hung up


@pytest.mark.parametrize("layout", ["build", "no manifest", "one tar", "keep list", "index_dir"])
@pytest.mark.parametrize("protocol", ["s3", "http"])
def test_far_folders_are_found_in_every_layout(
    local: Folder, store: Store, tmp_path: Path, layout: str, protocol: str
) -> None:
    """A build, bare shards with indexes, one tar, a keep list and a local index of URLs open."""
    here = tmp_path / "here"
    shutil.copytree(local.source["path"], here / "shards" if layout == "build" else here)
    manifest = Manifest.read(Path(local.source["path"]))
    expected, path = local.uids, f"bucket/{layout.replace(' ', '_')}"
    if layout == "build":
        (here / "shards/manifest.json").rename(here / "manifest.json")
    elif layout == "keep list":
        expected = local.uids[5:50:3]
        write_npy(here / "keep.npy", expected)
        kept = Manifest("k", pairs=15, shards=manifest.shards, keep_list="keep.npy")
        kept.write(here)
    elif layout != "index_dir":
        (here / "manifest.json").unlink()
    store.put(here, path)
    url = url_of(store, protocol, path)
    if layout == "one tar":
        url, expected = f"{url}/00001.tar", local.uids[20:40]
    place = url
    if layout == "index_dir":
        shards = tuple(
            Shard(f"{url}/{s.name}", s.pairs, s.bytes, s.sha256) for s in manifest.shards
        )
        place = str(tmp_path / "indexes")
        shutil.copytree(here, place, ignore=shutil.ignore_patterns("*.tar", "*.parquet"))
        Manifest("i", pairs=PAIRS, shards=shards).write(Path(place))
    far = open_folder(place, cache_dir=tmp_path / "cache")
    assert far.uids == expected
    rows = local.rows_of(expected)
    assert as_bytes(far.pictures(np.arange(len(far)))) == as_bytes(local.pictures(rows))
    assert far.column("score").equals(local.column("score").take(rows))


def test_far_tars_without_an_index_say_what_to_do(store: Store, tmp_path: Path) -> None:
    """A far tar is not walked: the message names the command that does it once."""
    for name in ("manifest.json", "00000.index", "00001.index", "00002.index"):
        del store.files[f"bucket/set/{name}"]
    with pytest.raises(PoolError, match=r"run `breadth index s3://bucket/set --out") as raised:
        open_folder(url_of(store, "s3"), cache_dir=tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bucket/set/manifest.json": b'{"name": '}, "manifest.json is damaged"),
        ({"bucket/set/00001.index": b"ARROW1 no more"}, "is damaged"),
        (
            {"bucket/set/00001.index": "bucket/set/00000.index"},
            r"00001\.tar has .* its index is for",
        ),
        ({"bucket/set/00001.index": "bucket/set/manifest.json"}, "is damaged"),
        ({"bucket/set": ""}, "holds no .tar shard"),
    ],
)
def test_a_bad_far_folder_is_one_clear_line(
    store: Store, tmp_path: Path, change: dict, message: str
) -> None:
    """Damage to a far manifest or index, and a place that is not there, are named in one line."""
    for key, body in change.items():
        if body == "":
            store.files.clear()
        else:
            store.files[key] = store.files[body] if isinstance(body, str) else body
    with pytest.raises(BreadthError, match=message) as raised:
        open_folder(url_of(store, "s3"), cache_dir=tmp_path)
    assert "\n" not in str(raised.value)


def blocks_on_disk(folder: Path) -> int:
    """Return the bytes that a cache takes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*.part"))


def test_the_cache_stays_below_its_bound(local: Folder, store: Store, tmp_path: Path) -> None:
    """Whatever is read, the cache keeps to its bytes, and what it dropped is fetched again."""
    limit = 400_000
    far = open_folder(url_of(store, "s3"), cache_dir=tmp_path, cache_bytes=limit)
    rng = np.random.default_rng(3)
    for _ in range(30):
        rows = rng.choice(PAIRS, 3, replace=False)
        assert as_bytes(far.pictures(rows)) == as_bytes(local.pictures(rows))
        assert blocks_on_disk(tmp_path) < limit * 1.07
    assert store.sent(".tar") > 3 * limit


def test_the_cache_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    """Of three shards, the one that was not opened again goes first."""
    cache = ShardCache(tmp_path, 320_000)
    for number, name in enumerate("abc"):
        part = cache.open(name, 131072)
        part.write(0, bytes(131072))
        part.close()
        os.utime(next(tmp_path.rglob(f"{name}.part")), (number, number))
    cache.open("a", 131072).close()
    cache.count(320_000)
    assert sorted(path.stem for path in tmp_path.rglob("*.part")) == ["a", "c"]


def read_all(url: str, conf: dict, cache_dir: Path, seed: int, limit: int) -> str:
    """Read every pair in an order of its own, and hash what came."""
    fsspec.config.conf["s3"] = conf
    far = open_folder(url, cache_dir=cache_dir, cache_bytes=limit)
    pieces: dict[int, bytes] = {}
    for rows in np.array_split(np.random.default_rng(seed).permutation(len(far)), 12):
        pieces |= zip(rows.tolist(), as_bytes(far.pictures(rows, check=True)), strict=True)
    return "".join(str(pieces[row]) for row in range(len(far)))


@pytest.mark.parametrize("limit", [1 << 30, 500_000])
def test_processes_share_a_cache(local: Folder, store: Store, tmp_path: Path, limit: int) -> None:
    """Three processes on one cache read the right bytes; with room, nothing is fetched twice."""
    jobs = [(url_of(store, "s3"), fsspec.config.conf["s3"], tmp_path, s, limit) for s in range(3)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(read_all, jobs)
    expected = "".join(map(str, as_bytes(local.pictures(np.arange(PAIRS)))))
    assert found == [expected] * 3
    if limit == 1 << 30:
        whole = sum(len(body) for key, body in store.files.items() if key.endswith(".tar"))
        assert store.sent(".tar") < 2 * whole
    else:
        assert blocks_on_disk(tmp_path) < 1.3 * limit


def write_for_ever(path: Path, size: int) -> None:
    """Write blocks, each full of its number, until killed."""
    part = PartialShard(path, size)
    while True:
        for block in range(size // 4096):
            part.write(block * 4096, bytes([block % 255 + 1]) * 4096)


def test_a_killed_process_leaves_no_torn_block(tmp_path: Path) -> None:
    """Whenever a writer is killed, every block that is said to be here is whole."""
    size = 400 * 4096
    for n in range(8):
        path = tmp_path / f"{n}.part"
        process = multiprocessing.get_context("fork").Process(
            target=write_for_ever, args=(path, size)
        )
        process.start()
        while not path.exists():
            pass
        process.join(0.0005 * n)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        part = PartialShard(path, size)
        here = [block for block in range(400) if part.has(block * 4096, block * 4096 + 4096)]
        for block in here:
            assert part.read(block * 4096, block * 4096 + 4096) == bytes([block % 255 + 1]) * 4096
        part.close()


def test_what_an_earlier_boot_left_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that went down may have torn blocks: what it had is not used, and counts still."""
    part = ShardCache(tmp_path, 100_000).open("a", 65536)
    part.write(0, b"x" * 65536)
    part.close()
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(shard_cache, "BOOT_ID", tmp_path / "boot_id")
    cache = ShardCache(tmp_path, 100_000)
    fresh = cache.open("a", 65536)
    assert not fresh.has(0, 4096)
    fresh.write(0, b"y" * 65536)
    cache.count(65536)
    assert blocks_on_disk(tmp_path) < 100_000 and fresh.read(0, 1) == b"y"
    assert [path.parent.name for path in tmp_path.rglob("*.part")] == ["another"]
    fresh.close()


def test_two_readers_at_once_fetch_once(local: Folder, store: Store, tmp_path: Path) -> None:
    """While one reader fetches an extent, another that wants it waits for it, and asks nobody."""
    readers = [open_folder(url_of(store, "s3"), cache_dir=tmp_path) for _ in range(2)]
    store.delay_s = 0.3
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda far: as_bytes(far.pictures(np.array([25]))), readers))
    assert found == [as_bytes(local.pictures(np.array([25])))] * 2
    assert len(store.gets(".tar")) == 1


def test_a_claim_ends_with_its_process_and_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlapping claims wait for each other, and a holder that has stopped holds up nobody."""
    part = PartialShard(tmp_path / "a.part", 1 << 20)
    monkeypatch.setattr(shard_cache, "CLAIM_S", 0.3)
    with part.claimed(0, 8192):
        with part.claimed(8192, 16384):
            pass
        began = time.monotonic()
        with part.claimed(4096, 16384):
            waited = time.monotonic() - began
    assert 0.25 < waited < 5
    part.close()


def test_a_cache_that_cannot_be_written_is_one_line(store: Store, tmp_path: Path) -> None:
    """A cache folder that is a file is refused with what to do."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BreadthError, match="give another cache_dir"):
        open_folder(url_of(store, "s3"), cache_dir=tmp_path / "file")


def test_a_far_folder_can_be_opened_again_from_its_source(store: Store, tmp_path: Path) -> None:
    """``source`` opens the same folder with the same cache, as another process has to."""
    far = open_folder(url_of(store, "s3"), cache_dir=tmp_path)
    again = open_folder(**far.source)
    assert again.digest == far.digest
    assert json.dumps(again.captions(np.arange(3))) == json.dumps(far.captions(np.arange(3)))


def test_a_far_folder_is_inspected_as_here(
    local: Folder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, sizes, columns and samples are those of the folder; only hashing it is refused."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = CliRunner().invoke(inspect, [str(local.source["path"]), "--json"])
    there = CliRunner().invoke(inspect, ["s3://bucket/set/", "--json"])
    assert here.exit_code == there.exit_code == 0, there.output
    assert json.loads(there.stdout) == json.loads(here.stdout)
    with pytest.raises(Refused, match="copy it here to verify it"):
        verify_folder("s3://bucket/set")


@pytest.mark.parametrize("far", [False, True])
def test_labels_are_read_where_the_folder_is(store: Store, tmp_path: Path, far: bool) -> None:
    """labels.json is found beside far shards, too; a folder without one has no tasks."""
    task = Task("shape", "shape", ("disc", "square"), ("a {}",))
    write_tasks(tmp_path, [task])
    store.put(tmp_path, "bucket/labelled")
    assert read_tasks("s3://bucket/labelled" if far else tmp_path) == (task,)
    assert read_tasks("s3://bucket/set" if far else tmp_path / "none") == ()
