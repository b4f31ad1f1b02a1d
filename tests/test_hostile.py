"""A web that lies, stalls, floods and snoops: every pair gets the outcome that the table says."""

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breadth.curate.fetch.failures import FAILURES

from .hostile import CASES, DEADLINE_S, Outcome, fetch, markdown, served, wrong
from .hostile_case import case as make
from .hostile_inside import INSIDE, Inside, fetch_inside
from .hostile_pictures import jpeg
from .hostile_server import Hostile, Request, Wire, serving
from .hostile_wire import OPEN

NO_IPV6 = not Path("/proc/net/if_inet6").exists()
RUN = [case for case in CASES if not (case.site.ipv6 and NO_IPV6)]
STATEFUL = ("retry", "robots", "svg", "file_bomb", "leads_to_robots")
MIXED = [case for case in RUN if not case.timed and not case.name.startswith(STATEFUL)]
"""Cases that are quick, and that come out the same however often they are met."""


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    """The server of all cases, which all tests here share."""
    with served(RUN) as running:
        yield running


class Run:
    """The whole table in one call of the stage: outcomes, and what it cost."""

    def __init__(self, hostile: Hostile) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
        before, began = _status("VmRSS"), time.perf_counter()
        self.outcomes = fetch(hostile, RUN)
        self.seconds = time.perf_counter() - began
        self.more_memory = _status("VmHWM") - before
        self.asked = list(hostile.asked)


def _status(name: str) -> int:
    """Return a figure in bytes of what Linux knows of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def run(hostile: Hostile) -> Run:
    return Run(hostile)


@pytest.mark.parametrize("number", range(len(RUN)), ids=[case.name for case in RUN])
def test_a_case_has_the_outcome_of_the_table(run: Run, number: int) -> None:
    """Status, failure, retryable, size and colour are what a careful fetcher gives."""
    assert wrong(run.outcomes[number]) is None


def test_the_server_is_asked_for_what_the_links_mean(run: Run) -> None:
    """Odd links and redirects ask for the targets that browsers ask for, each once."""
    for case in RUN:
        if case.asked is not None:
            found = tuple(
                request.target
                for request in run.asked
                if request.site == case.name and request.target != "/robots.txt"
            )
            assert found == case.asked, case.name


def test_no_request_tells_more_than_it_must(run: Run) -> None:
    """Only GET; no cookies, credentials or referrers, nothing injected, and who we are."""
    assert len(run.asked) > 2 * 100
    for request in run.asked:
        if request.method == "PRI":  # the first line of HTTP/2
            continue
        names = {name for name, _ in request.headers}
        assert request.method == "GET"
        assert not names & {"cookie", "authorization", "referer", "x-injected", "range", "upgrade"}
        assert len(request.all("host")) == 1
        assert request.origin.endswith(f"//{request.all('host')[0]}")
        [agent] = request.all("user-agent")
        assert agent.startswith("breadth/")


def test_no_picture_makes_another_request(run: Run) -> None:
    """What documents and headers point at is not loaded: no canary is asked for."""
    assert not [request.target for request in run.asked if "canary" in request.target]


def test_the_table_ends_within_its_deadlines(run: Run) -> None:
    """A flood, a drip or a silence holds nobody up: all of it ends in a few deadlines."""
    assert run.seconds < 15 * DEADLINE_S


def test_bombs_stay_small_in_memory(run: Run) -> None:
    """Whatever a file promises, the process that fetches and decodes grows by a few pictures."""
    assert run.more_memory < 400 * 2**20


def test_the_table_knows_most_failures() -> None:
    """Every kind of failure that a server or a file alone can bring about has its case."""
    options = {"hash_mismatch", "host_down", "too_small", "area", "aspect_ratio"}
    kinds = {case.failure for case in [*CASES, *INSIDE] if case.failure}
    assert set(FAILURES) - kinds <= options | {"slow_picture", "crash"}
    assert len(CASES) + len(INSIDE) >= 300


def test_opt_outs_keep_their_evidence(run: Run) -> None:
    """A row that somebody forbids says where; no other row has evidence."""
    for outcome in run.outcomes:
        forbidden = outcome.case.failure in ("robots", "opt_out")
        assert bool(outcome.row["opt_out"]) == forbidden, outcome.case.name


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=st.lists(st.sampled_from(range(len(MIXED))), min_size=1, max_size=60))
def test_in_is_success_and_every_kind_of_failure(hostile: Hostile, drawn: list[int]) -> None:
    """Of any mix, with repeats: in = success + failures by kind, each row as its case says."""
    outcomes = fetch(hostile, [MIXED[number] for number in drawn])
    found = Counter(outcome.failure for outcome in outcomes)
    assert found == Counter(MIXED[number].failure for number in drawn)
    assert found.total() == len(drawn)
    assert [wrong(outcome) for outcome in outcomes] == [None] * len(drawn)


def test_the_outcomes_do_not_depend_on_the_order(hostile: Hostile, run: Run) -> None:
    """A second run, backwards, gives every row the same bytes in every column."""
    again = fetch(hostile, MIXED[::-1])[::-1]
    before = {outcome.case.name: _lasting(outcome) for outcome in run.outcomes}
    assert [_lasting(outcome) for outcome in again] == [before[case.name] for case in MIXED]


def _lasting(outcome: Outcome) -> dict[str, object]:
    """Return a row without the time at which somebody's refusal was read."""
    return {name: value for name, value in outcome.row.items() if name != "opt_out"}


def test_the_printed_table_has_every_case(run: Run) -> None:
    """``python -m tests.hostile`` prints one line a case, with what was expected and found."""
    lines = markdown(run.outcomes).splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [c.name for c in RUN]


def test_hogs_take_nothing_from_the_others() -> None:
    """Some hosts that send much and then stall fail alone: others' pictures still arrive."""

    async def hog(wire: Wire, _: Request) -> None:
        wire.writer.write(OPEN + bytes(27 << 20))
        await wire.writer.drain()
        await wire.hang()

    async def late(wire: Wire, _: Request) -> None:
        await wire.send(OPEN)
        await asyncio.sleep(2.5)  # by then as many bytes are in flight as may be
        await wire.send(jpeg())

    hogs = [make(f"hog_{n}", hog, "timeout") for n in range(4)]
    others = [make(f"late_{n}", late) for n in range(20)]
    with served([*hogs, *others]) as running:
        outcomes = fetch(running, [*hogs, *others], max_bytes=32 * 2**20, deadline_s=6.0)
    assert [wrong(outcome) for outcome in outcomes] == [None] * len(outcomes)


@pytest.fixture(scope="module")
def walls() -> Iterator[Hostile]:
    """The server of the cases that want to get inside."""
    with serving([case.site for case in INSIDE]) as running:
        yield running


@pytest.mark.parametrize("case", INSIDE, ids=lambda case: case.name)
def test_nothing_private_is_reached(
    walls: Hostile, case: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No link, redirect, name or changed answer of a resolver connects to what is private."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, walls.link(case.name, "{there}"))
    fetched = fetch_inside(walls, case)
    assert fetched.failure == case.failure, fetched.message
    assert walls.connections[case.name, "there"] == 0
    if not case.walled:
        assert walls.connections[case.name, "here"] == 0
    assert (fetched.body is not None) == (case.failure is None)


def test_a_netrc_is_not_read(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords that this machine keeps for a host are not sent to it."""
    [sound] = [case for case in RUN if case.name == "sound"]
    host = hostile.names["sound"]["here_ip"]
    (tmp_path / ".netrc").write_text(f"machine {host} login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    before = len(hostile.requests("sound"))
    [outcome] = fetch(hostile, [sound])
    assert outcome.failure is None
    [request] = hostile.requests("sound")[before:]
    assert not request.all("authorization")


def test_children_leave_no_trace(run: Run) -> None:
    """Decoding in child processes has ended with them: none is left, none grew without bound."""
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 5 * 2**30
    assert not _children()


def _children() -> list[str]:
    """The decoders among this process's children; other tests may have left other ones."""
    own = Path("/proc/self/task")
    pids = [pid for file in own.glob("*/children") for pid in file.read_text().split()]
    return [p for p in pids if b"fetch.isolated" in Path(f"/proc/{p}/cmdline").read_bytes()]


def test_the_server_does_what_it_says(hostile: Hostile) -> None:
    """Seen through a bare socket: a drip drips, a reset resets, and robots.txt is another's."""
    names = hostile.names
    with socket.create_connection(
        (names["drips_body"]["here_ip"], _port(names, "drips_body"))
    ) as s:
        s.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        began = time.perf_counter()
        assert sum(len(s.recv(4096)) for _ in range(5)) <= 10
        assert time.perf_counter() - began > 0.2
    site = "resets_before_answer"
    with socket.create_connection((names[site]["here_ip"], _port(names, site))) as s:
        s.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            s.recv(4096)
    with socket.create_connection((names[site]["here_ip"], _port(names, site))) as s:
        s.sendall(b"GET /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 404")


def _port(names: dict[str, dict[str, str]], site: str) -> int:
    return int(names[site]["here_port"])
