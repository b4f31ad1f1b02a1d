"""Limits: what all processes of a build together ask of a domain, and of a host that fails."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.fetch import shared_records
from breadth.curate.fetch.limits import BUCKETS, TRAFFIC, Limits, Start
from breadth.curate.fetch.shared_records import SIZE, WAYS, Records, key_of
from breadth.loaders.errors import Failed

from .conftest import Clock

HOST = "www.site.example"
DOMAIN = "site.example"


@pytest.fixture
def some(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Limits]]:
    """Make limits over one folder, as so many processes would; close them afterwards."""
    made: list[Limits] = []

    def make(**options: float) -> Limits:
        made.append(Limits(tmp_path, clock=clock, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for limits in made:
        limits.close()


def goes(limits: Limits, delay_s: float = 0.0, host: str = HOST) -> bool:
    return limits.try_start(DOMAIN, host, delay_s).go


def fail(limits: Limits, times: int, clock: Clock) -> None:
    """Let so many requests to the host fail, one after the other."""
    for _ in range(times):
        clock.now += 1
        assert goes(limits)
        limits.ended(DOMAIN, HOST, "failed")


def test_a_domain_has_so_many_connections_and_no_more(
    some: Callable[..., Limits], clock: Clock
) -> None:
    """Two instances share three slots; one that ends makes room; other domains have their own."""
    one, other = some(connections=3, per_s=0), some(connections=3, per_s=0)
    assert [goes(one), goes(other), goes(one), goes(one), goes(other)] == [True] * 3 + [False] * 2
    assert all(one.try_start(f"{n}.example", HOST).go for n in range(60) for _ in range(3))
    other.ended(DOMAIN, HOST, "ok")
    clock.now += 1
    assert goes(one)
    assert not goes(other)


def test_what_is_zero_does_not_limit(some: Callable[..., Limits], clock: Clock) -> None:
    """Without connections, rate, breaker and silence every start goes."""
    limits = some(connections=0, per_s=0, breaker_failures=0, longest_silence_s=0)
    assert all(goes(limits) for _ in range(500))
    for _ in range(250):
        limits.ended(DOMAIN, HOST, "failed")
        limits.ended(DOMAIN, HOST, "throttled", 60.0)
    assert goes(limits)


@pytest.mark.parametrize("per_s", [0.5, 4.0, 25.0])
def test_the_rate_is_kept_and_used(some: Callable[..., Limits], clock: Clock, per_s: float) -> None:
    """In any time T at most per_s (T + 0.2) + 1 start, of three who ask when told to; 95 % do."""
    all_three = [some(per_s=per_s) for _ in range(3)]
    again, began = [clock.now] * 3, clock.now
    starts: list[float] = []
    while clock.now < began + 60:
        clock.now = min(again)
        who = again.index(clock.now)
        start = all_three[who].try_start(DOMAIN, HOST)
        again[who] += start.wait_s + 0.001
        if start.go:
            starts.append(clock.now)
            all_three[who].ended(DOMAIN, HOST, "ok")
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            assert last - first + 1 <= per_s * (starts[last] - starts[first] + 0.2) + 1 + 1e-6
    assert len(starts) > 0.95 * 60 * per_s


def test_retry_after_silences_the_whole_domain(some: Callable[..., Limits], clock: Clock) -> None:
    """For the seconds it says, but two minutes at most; nobody asks any host of the domain."""
    one, other = some(), some()
    for asked_s, waits_s in ((30.0, 30.0), (5000.0, 120.0)):
        assert goes(one)
        one.ended(DOMAIN, HOST, "throttled", asked_s)
        start = other.try_start(DOMAIN, "img.site.example")
        assert (start.go, start.down) == (False, False)
        assert start.wait_s == pytest.approx(waits_s)
        clock.now += waits_s - 0.1
        assert not goes(other)
        clock.now += 0.2
    assert goes(other)


def test_a_shorter_retry_after_does_not_shorten_a_silence(some: Callable[..., Limits]) -> None:
    """Of answers that come together the longest wait counts."""
    limits = some()
    assert all(goes(limits) for _ in range(3))
    for seconds in (60.0, 5.0, None):
        limits.ended(DOMAIN, HOST, "throttled", seconds)
    assert limits.try_start(DOMAIN, HOST).wait_s == pytest.approx(60)


def test_silences_without_retry_after_double(some: Callable[..., Limits], clock: Clock) -> None:
    """1, 2, 4 s and so on to the cap; those in flight together count once; a minute forgives."""
    limits = some(longest_silence_s=20.0)
    waits = []
    for _ in range(6):
        assert goes(limits)
        assert goes(limits)
        limits.ended(DOMAIN, HOST, "throttled")
        limits.ended(DOMAIN, HOST, "throttled")
        waits.append(round(limits.try_start(DOMAIN, HOST).wait_s, 6))
        clock.now += waits[-1] + 0.5
    assert waits == [1, 2, 4, 8, 16, 20]
    clock.now += 61
    assert goes(limits)
    limits.ended(DOMAIN, HOST, "throttled")
    assert limits.try_start(DOMAIN, HOST).wait_s == pytest.approx(1)


def test_a_domain_that_only_refuses_is_given_up(some: Callable[..., Limits], clock: Clock) -> None:
    """From the fourth silence in a row nobody waits, in no process; any answer begins anew."""
    one, other = some(), some()
    for answer in (None, "failed", "ok"):
        for count in range(1, 5):
            assert goes(one)
            one.ended(DOMAIN, HOST, "throttled", 10.0)
            hopeless = count == 4 or answer is not None  # a failure is no answer
            start = other.try_start(DOMAIN, "img.site.example")
            assert start == Start(False, 10.0, down=hopeless, throttled=hopeless)
            clock.now += 10.1
        if answer is not None:
            assert goes(other)
            other.ended(DOMAIN, HOST, answer)
    for _ in range(3):
        assert goes(one)
        one.ended(DOMAIN, HOST, "throttled", 10.0)
        assert not other.try_start(DOMAIN, HOST).down
        clock.now += 10.1


def test_what_was_dropped_says_nothing_of_the_host(
    some: Callable[..., Limits], clock: Clock
) -> None:
    """It frees its slot and its probe, and neither forgives failures nor adds one."""
    limits = some(breaker_failures=3, connections=1)
    fail(limits, 2, clock)
    clock.now += 1
    assert goes(limits)
    limits.ended(DOMAIN, HOST, "dropped")
    fail(limits, 1, clock)
    assert limits.try_start(DOMAIN, HOST) == Start(False, 15.0)
    clock.now += 15
    for _ in range(2):
        clock.now += 1
        assert limits.try_start(DOMAIN, HOST) == Start(True, probe=True)
        limits.ended(DOMAIN, HOST, "dropped", probe=True)


def test_only_the_probe_ends_the_probe(some: Callable[..., Limits], clock: Clock) -> None:
    """A request older than the opening that fails now neither frees the probe nor counts as it."""
    limits = some(breaker_failures=2)
    assert all(goes(limits) for _ in range(3))
    for _ in range(2):
        limits.ended(DOMAIN, HOST, "failed")
    clock.now += 15
    assert limits.try_start(DOMAIN, HOST).probe
    limits.ended(DOMAIN, HOST, "failed")
    start = limits.try_start(DOMAIN, HOST)
    assert (start.go, start.down) == (False, False)
    limits.ended(DOMAIN, HOST, "failed", probe=True)
    assert limits.try_start(DOMAIN, HOST) == Start(False, 30.0, down=True)


def test_a_host_that_keeps_failing_is_left_alone(some: Callable[..., Limits], clock: Clock) -> None:
    """Wait, one probe, then down for twice as long, and up again after a success."""
    one, other = some(breaker_failures=3), some(breaker_failures=3)
    fail(one, 3, clock)
    assert other.try_start(DOMAIN, HOST) == Start(False, 15.0, down=False)
    assert goes(other, host="img.site.example")  # its neighbour is not concerned
    other.ended(DOMAIN, "img.site.example", "ok")
    clock.now += 15
    assert other.try_start(DOMAIN, HOST) == Start(True, probe=True)
    other.ended(DOMAIN, HOST, "failed", probe=True)
    assert one.try_start(DOMAIN, HOST) == Start(False, 30.0, down=True)
    clock.now += 30
    assert goes(one)
    one.ended(DOMAIN, HOST, "failed", probe=True)
    assert one.try_start(DOMAIN, HOST) == Start(False, 60.0, down=True)
    clock.now += 60
    assert goes(one)
    one.ended(DOMAIN, HOST, "ok", probe=True)
    fail(other, 2, clock)
    assert goes(one)


def test_what_was_under_way_does_not_prolong_the_wait(
    some: Callable[..., Limits], clock: Clock
) -> None:
    """Requests that started before the host was given up and fail later change nothing."""
    limits = some(breaker_failures=2)
    assert all(goes(limits) for _ in range(4))
    for _ in range(4):
        limits.ended(DOMAIN, HOST, "failed")
        clock.now += 3
    assert limits.try_start(DOMAIN, HOST) == Start(False, 15.0 - 9.0, down=False)


def test_only_failures_in_a_row_count(some: Callable[..., Limits], clock: Clock) -> None:
    """An answer in between, even 429, shows that the host is up."""
    limits = some(breaker_failures=3)
    for answer in ("ok", "throttled") * 3:
        fail(limits, 2, clock)
        assert goes(limits)
        limits.ended(DOMAIN, HOST, answer, 0.0)
    assert goes(limits)


def test_one_probes_and_if_it_dies_another(some: Callable[..., Limits], clock: Clock) -> None:
    """Of two who would probe at the same time one waits; its turn comes when the first is gone."""
    one, other = some(breaker_failures=2), some(breaker_failures=2)
    fail(one, 2, clock)
    clock.now += 15
    assert goes(one)
    assert (goes(one), goes(other)) == (False, False)
    one._slots.free_probe(one._key(HOST))  # as the kernel does when it dies
    assert goes(other)


def test_a_refused_probe_leaves_the_probe_to_others(
    some: Callable[..., Limits], clock: Clock
) -> None:
    """Who may probe the host but gets no slot of the domain does not block the next one."""
    one, other = (some(breaker_failures=2, connections=1) for _ in range(2))
    fail(one, 2, clock)
    clock.now += 15
    assert goes(other, host="img.site.example")
    assert not goes(one)
    other.ended(DOMAIN, "img.site.example", "ok")
    clock.now += 1
    assert goes(other)


def test_crawl_delay_spaces_the_requests_of_a_host(
    some: Callable[..., Limits], clock: Clock
) -> None:
    """Ten seconds between two, whoever asks; the domain's other hosts need not wait."""
    one, other = some(), some()
    assert goes(one, 10.0)
    start = other.try_start(DOMAIN, HOST, 10.0)
    assert (start.go, start.wait_s) == (False, pytest.approx(10.0))
    assert goes(other, host="img.site.example")
    clock.now += 10
    assert goes(other, 10.0)
    assert not goes(one, 10.0)


def test_a_clock_set_back_blocks_nobody(some: Callable[..., Limits], clock: Clock) -> None:
    """An hour back: rate, silence, breaker and crawl delay are over, or as long as at first."""
    limits = some(per_s=1.0, breaker_failures=2)
    fail(limits, 2, clock)
    assert limits.try_start("b.example", "b.example").go
    limits.ended("b.example", "b.example", "throttled", 100.0)
    assert limits.try_start("c.example", "c.example", 20.0).go
    limits.ended("c.example", "c.example", "ok")
    clock.now -= 3600
    assert goes(limits)
    assert limits.try_start("b.example", "b.example").go
    assert limits.try_start("c.example", "c.example", 20.0).go


@given(st.floats(1e-3, 30.0), st.floats(0.0, 1.0), st.floats(0.0, 1.9))
@settings(max_examples=60, deadline=None)
def test_clocks_that_differ_a_little_weaken_no_limit(
    tmp_path_factory: pytest.TempPathFactory, seconds: float, fraction: float, late_s: float
) -> None:
    """A machine whose clock is two seconds late is refused as the others are, and to the last."""
    clock, behind, folder = Clock(), Clock(), tmp_path_factory.mktemp("skew")
    clock.now += fraction
    behind.now = clock.now - late_s
    options = {"longest_silence_s": seconds, "breaker_failures": 1, "cool_down_s": seconds}
    verdicts = {"rate": "ok", "silent": "throttled", "down": "failed", "slow": "ok"}
    for name, verdict in verdicts.items():
        options["per_s"] = 1 / (seconds + 1) if name == "rate" else 0.0
        delay_s = seconds if name == "slow" else 0.0
        here, there = (Limits(folder, clock=c, **options) for c in (clock, behind))  # type: ignore[arg-type]
        assert here.try_start(name, name, delay_s).go
        here.ended(name, name, verdict, 1e9)
        start = there.try_start(name, name, delay_s)
        assert not start.go
        assert start.wait_s >= seconds - 1e-5
        here.close()
        there.close()


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_who_has_less_is_next(some: Callable[..., Limits], clock: Clock, slots: int) -> None:
    """One who has all the slots, and asks at once when one ends, shares them with a newcomer."""
    greedy, newcomer = (some(connections=slots, per_s=0) for _ in range(2))
    held = {greedy: 0, newcomer: 0}
    served: Counter[Limits] = Counter()
    ended = 0
    while goes(greedy):
        held[greedy] += 1
    for step in range(400):
        clock.now += 0.05
        for who in (greedy, newcomer) if step % 2 else (newcomer, greedy):
            if held[who] and (step + held[who]) % 3 == 0:
                who.ended(DOMAIN, HOST, "ok")
                held[who] -= 1
                ended += 1
            while goes(who):
                held[who] += 1
                served[who] += 1
    assert 0.6 < served[newcomer] / served[greedy] < 1.7
    assert served.total() > 0.95 * ended  # and waiting for each other costs them little


def test_a_holder_that_is_suspended_makes_nobody_hang(
    some: Callable[..., Limits], tmp_path: Path
) -> None:
    """Who cannot have a record for 5 ms is told to come again; nothing waits for ever."""
    limits = some()
    assert goes(limits)
    suspended = Records(tmp_path / "limits" / "domains", TRAFFIC, BUCKETS)
    assert suspended.lock(limits._key(DOMAIN))
    began = time.monotonic()
    start = limits.try_start(DOMAIN, HOST)
    limits.ended(DOMAIN, HOST, "throttled", 5.0)
    assert (start.go, start.down, 0 < start.wait_s < 1) == (False, False, True)
    assert time.monotonic() - began < 3
    suspended.close()
    assert goes(limits)


@given(st.lists(st.tuples(st.integers(0, 2**21), st.binary(min_size=1, max_size=200))))
@settings(max_examples=30, deadline=None)
def test_torn_records_are_as_if_absent(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, bytes]]
) -> None:
    """Whatever bytes lie in the files: nothing is raised, and no slot or hour is lost."""
    folder, clock = tmp_path_factory.mktemp("torn"), Clock()
    limits = Limits(folder, breaker_failures=1, clock=clock)
    names = [f"{n}.example" for n in range(30)]
    for name in names:
        limits.try_start(name, name)
        limits.ended(name, name, "throttled" if name < "2" else "failed", 100.0)
    for kind in ("domains", "hosts"):
        with (folder / "limits" / kind).open("r+b") as file:
            for place, content in damage:
                file.seek(place * 8)
                file.write(content)
            for name in names[::2]:  # random places seldom hit one
                file.seek((limits._key(name) % BUCKETS[0]) * WAYS * SIZE + 20)
                file.write(b"\xff" * 30)
    for name in names:
        assert limits.try_start(name, name).wait_s <= 120
    clock.now += 121
    assert all(limits.try_start(name, name).go for name in names)
    limits.close()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["ask", "ok", "failed", "throttled", "dropped"]),
            st.sampled_from(["a.example", "b.example"]),
            st.sampled_from([0.0, 0.01, 1.0, 20.0, -50.0]),
        ),
        max_size=120,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_the_limit_holds_and_ends(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, str, float]]
) -> None:
    """Never more than two at once; every refusal says when; when all is over, all may go."""
    clock, folder = Clock(), tmp_path_factory.mktemp("steps")
    several = [Limits(folder, connections=2, breaker_failures=2, clock=clock) for _ in range(3)]
    running: dict[tuple[int, str], list[bool]] = defaultdict(list)
    for who, what, name, passes_s in steps:
        clock.now += passes_s
        if what == "ask":
            start = several[who].try_start(name, name)
            assert start.go or 0 < start.wait_s <= 300
            running[who, name] += [start.probe] * start.go
        elif running[who, name]:
            several[who].ended(name, name, what, 30.0, probe=running[who, name].pop())
        for here in ("a.example", "b.example"):
            assert sum(len(running[w, here]) for w in range(3)) <= 2
    for (who, name), probes in running.items():
        for probe in probes:
            several[who].ended(name, name, "ok", probe=probe)
    clock.now += 400
    assert all(several[0].try_start(name, name).go for name in ("a.example", "b.example"))
    for limits in several:
        limits.close()


WORKER = """
import os, sys, time
from pathlib import Path
from breadth.curate.fetch.limits import Limits
folder, seen = Path(sys.argv[1]), Path(sys.argv[2])
limits = Limits(folder, connections=3, per_s=0)
most = done = 0
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    if limits.try_start("site.example", "site.example").go:
        mine = seen / f"{os.getpid()}-{done}"
        mine.touch()
        most = max(most, len(os.listdir(seen)))
        mine.unlink()
        limits.ended("site.example", "site.example", "ok")
        done += 1
    else:
        time.sleep(0.001)
print(most, done)
"""


def test_processes_share_the_limit(tmp_path: Path) -> None:
    """Of five processes at most three are in at once, by the files they leave; each gets in."""
    seen = tmp_path / "seen"
    seen.mkdir()
    command = [sys.executable, "-c", WORKER, str(tmp_path / "shared"), str(seen), "1.5"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    results = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert max(int(most) for most, _ in results) <= 3
    assert all(int(done) > 20 for _, done in results)


HOLDER = """
import sys, time
from pathlib import Path
from breadth.curate.fetch.limits import Limits
limits = Limits(Path(sys.argv[1]), connections=4, per_s=0)
print([limits.try_start("site.example", "www.site.example").go for _ in range(5)], flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_gives_its_slots_back(tmp_path: Path) -> None:
    """kill -9 while it holds all four: the next one has them, with nothing to clean up."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == str([True] * 4 + [False])
        limits = Limits(tmp_path, connections=4, per_s=0)
        assert not goes(limits)
        os.kill(holder.pid, signal.SIGKILL)
    assert [goes(limits) for _ in range(5)] == [True] * 4 + [False]
    limits.close()


def test_a_full_bucket_gives_up_what_was_used_least_recently(tmp_path: Path) -> None:
    """Nine keys of one bucket: the one written first is gone, the others are as written."""
    records = Records(tmp_path / "records", "d", (16,))
    keys = [1 + 16 * n for n in range(WAYS + 1)]
    for age, key in enumerate(keys):
        records.write(records.read(key)[0], key, 100.0 + age, float(key))
    found = [records.read(key)[1] for key in keys]
    assert found[0] is None
    assert found[1:] == [(100.0 + age, float(keys[age])) for age in range(1, WAYS + 1)]
    records.close()


def test_a_table_grows_with_what_is_in_it(tmp_path: Path) -> None:
    """Of 3,000 records in levels for 128, 1,024 and 8,192 all are there, as written last."""
    records = Records(tmp_path / "records", "dd", (16, 128, 1024))
    keys = [key_of(f"{n}") for n in range(3000)]
    sizes = []
    for count, key in enumerate([*keys, *keys]):
        records.write(records.read(key)[0], key, 1.0, float(count), 2.0)
        sizes.append((tmp_path / "records").stat().st_size)
    assert sizes[20] <= 16 * WAYS * SIZE < sizes[300] <= (16 + 128) * WAYS * SIZE < sizes[2999]
    assert sizes[2999] == sizes[-1] <= (16 + 128 + 1024) * WAYS * SIZE
    for n, key in enumerate(keys):
        assert records.read(key)[1] == (1.0, 3000.0 + n, 2.0)
    records.close()


def test_a_folder_without_locks_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems have none: one line says so, instead of unlimited requests."""

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(shared_records.fcntl, "fcntl", no_locks)
    with pytest.raises(Failed, match="No locks available"):
        Limits(tmp_path)
