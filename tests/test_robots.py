"""robots.txt: what it forbids to us, by which line, and who need not ask for it again."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.curate.fetch.robots import Robots, RobotsVerdict, Rules
from breadth.curate.fetch.robots_lines import MOST_BYTES, lines_for

from .conftest import Clock

ORIGIN = "https://site.example"
HOUR = 3600.0


@pytest.fixture
def robots(tmp_path: Path, clock: Clock) -> Iterator[Robots]:
    made = Robots(tmp_path, "Breadth", clock)
    yield made
    made.close()


def rules_of(robots: Robots, text: str | bytes) -> Rules:
    body = text.encode() if isinstance(text, str) else text
    return robots.learn(ORIGIN, 200, body, None)


def allowed(robots: Robots, text: str | bytes, path: str) -> bool:
    return rules_of(robots, text).verdict(ORIGIN + path).allowed


@pytest.mark.parametrize(
    ("text", "path", "verdict"),
    [
        ("", "/a.jpg", True),
        ("User-agent: *\nDisallow:", "/a.jpg", True),
        ("User-agent: *\nDisallow: /", "/a.jpg", False),
        ("User-agent: *\nDisallow: /img", "/img/a.jpg", False),
        ("User-agent: *\nDisallow: /img", "/IMG/a.jpg", True),
        ("User-agent: *\nDisallow: /img/\nAllow: /img/free", "/img/free/a.jpg", True),
        ("User-agent: *\nAllow: /img\nDisallow: /img", "/img/a.jpg", True),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg?w=3", True),
        ("User-agent: *\nDisallow: /*?", "/x/a.jpg?w=3", False),
        ("User-agent: *\nDisallow: /caf\u00e9", "/caf%C3%A9/a.jpg", False),
        (b"User-agent: *\nDisallow: /caf\xe9", "/caf%E9/a.jpg", False),
        (b"User-agent: *\nDisallow: /caf\xc3\xa9\nDisallow: /\xe9", "/caf%C3%A9", False),
        ("User-agent: *\nDisallow: /a%7Eb", "/a~b", False),
        ("Disallow: /", "/a.jpg", True),
        ("User-agent: otherbot\nDisallow: /", "/a.jpg", True),
        ("User-agent: breadth\nDisallow: /", "/a.jpg", False),
        ("User-agent: BREADTH/2.0 (+http://x)\nDisallow: /", "/a.jpg", False),
        ("User-agent: breadth*\nDisallow: /", "/a.jpg", False),
        ("User-agent: bread\nDisallow: /", "/a.jpg", True),
        ("User-agent: breadthbot\nDisallow: /", "/a.jpg", True),
        ("User-agent: *\nDisallow: /\nUser-agent: breadth\nDisallow:", "/a.jpg", True),
        ("User-agent: breadth\nAllow: /\n\nUser-agent: *\nDisallow: /", "/a.jpg", True),
        ("User-agent: x\nUser-agent: breadth\nUser-agent: y\nDisallow: /", "/a.jpg", False),
        ("User-agent: x\n\n# y\nSitemap: /s\nUser-agent: breadth\nDisallow: /", "/a.jpg", False),
        ("User-agent: breadth\nDisallow: /a\nUser-agent: x\nDisallow: /b", "/b", True),
        ("User-agent: breadth\nAllow: /\n\nUser-agent: breadth\nDisallow: /b", "/b", False),
        ("User-agent: breadth\nCrawl-delay: 1\nUser-agent: x\nDisallow: /", "/a.jpg", True),
        ("user-AGENT : *\n  dissallow:/img # not for you\n", "/img/a.jpg", False),
        ("User-agent *\nDisallow /img", "/img/a.jpg", False),
        ("User-agent: *\rDisallow: /img\rAllow: /", "/img", False),
        ("\ufeffUser-agent: *\r\nDisallow: /img\r\n", "/img", False),
        ("User-agent: *\nDisallow: /img".encode("utf-16"), "/img", False),
        ("U\x00ser-agent: *\nDisallow: /i\x00mg\x00", "/img", False),
        ("User-agent: *\nDisallow: /a\u2028b\nDisallow: /img", "/img", False),
        ("User-agent: *\nDisallow: /img#x", "/img", False),
        ("<!DOCTYPE html><html>\n<p>Disallow: /</p>\nAllow cookies now\n", "/a.jpg", True),
        ("User-agent: *\nDisallow: /", "/robots.txt", True),
        (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4, "/a.jpg", True),
    ],
)  # fmt: skip
def test_who_may_fetch_what(robots: Robots, text: str | bytes, path: str, verdict: bool) -> None:
    """Groups, longest match, wildcards, encodings and the usual accidents."""
    assert allowed(robots, text, path) is verdict


def test_an_agent_without_a_name_is_one_of_all() -> None:
    """A group for nobody is not its own; that for everyone is."""
    body = b"User-agent:\nDisallow: /\n\nUser-agent: *\nDisallow: /img"
    assert [line.text for line in lines_for(body, "")] == ["Disallow: /img"]


def test_the_evidence_is_the_line_that_forbids(robots: Robots) -> None:
    """As it stands there, without its comment: the longest of those that match."""
    text = "User-agent: *\nDisallow: /  # all\n disallow :/img/*.JPG\nDisallow: /img\nAllow: /x\n"
    rules = rules_of(robots, text)
    verdicts = [rules.verdict(ORIGIN + path) for path in ("/a", "/img/a", "/img/a.JPG", "/x")]
    assert [v.rule for v in verdicts] == [
        "Disallow: /",
        "Disallow: /img",
        "disallow :/img/*.JPG",
        None,
    ]
    assert verdicts[-1] == RobotsVerdict(True)


PATHS = st.lists(st.sampled_from(["a", "b", "ab", "/", ".jpg"]), max_size=5).map(
    lambda parts: "/" + "".join(parts)
)
PATTERNS = st.tuples(
    st.lists(st.sampled_from(["a", "b", "/", ".jpg", "*"]), max_size=5).map("".join),
    st.sampled_from(["", "", "$"]),
).map(lambda parts: "/" + "".join(parts))
RULES = st.lists(st.tuples(st.sampled_from(["Allow", "Disallow"]), PATTERNS), max_size=40)


def matches(pattern: str, path: str) -> bool:
    """RFC 9309 in one regular expression."""
    end = "$" if pattern.endswith("$") else ""
    return bool(re.match(re.escape(pattern.removesuffix("$")).replace(r"\*", ".*") + end, path))


@given(RULES, PATHS)
@settings(deadline=None, max_examples=200)
def test_verdict_and_evidence_are_those_of_the_rfc(
    tmp_path_factory: pytest.TempPathFactory, rules: list[tuple[str, str]], path: str
) -> None:
    """The longest pattern that matches decides, allow if they tie; the evidence is that line."""
    text = "\n".join(["User-agent: *", *(f"{kind}: {pattern}" for kind, pattern in rules)])
    robots = Robots(tmp_path_factory.mktemp("robots"), "breadth")
    verdict = rules_of(robots, text).verdict(ORIGIN + path)
    robots.close()
    hits = [(len(pattern), kind == "Allow") for kind, pattern in rules if matches(pattern, path)]
    longest, allow = max(hits, default=(0, True))
    assert verdict.allowed is allow
    if allow:
        assert verdict.rule is None
    else:
        kind, pattern = (verdict.rule or "").split(": ")
        assert (kind, len(pattern)) == ("Disallow", longest)
        assert ("Disallow", pattern) in rules
        assert matches(pattern, path)


@given(st.binary(max_size=300), st.text(max_size=20))
@settings(deadline=None)
def test_no_robots_txt_is_too_odd(body: bytes, path: str) -> None:
    """Any bytes are read without an error, and give lines or none."""
    head = b"User-agent: *\nDisallow: "
    for each in (body, head + body, body.replace(b"\x00", b"\n" + head)):
        rules = Rules(0.0, tuple(line.text for line in lines_for(each, "breadth")))
        assert rules.verdict(f"{ORIGIN}/{path}").allowed in (True, False)


@pytest.mark.parametrize(
    ("status", "failure", "verdict"),
    [
        (200, None, RobotsVerdict(False, "Disallow: /")),
        (206, "too_large", RobotsVerdict(False, "Disallow: /")),
        (301, "redirects", RobotsVerdict(True)),
        (None, "redirects", RobotsVerdict(True)),
        (304, None, RobotsVerdict(True)),
        (401, "forbidden", RobotsVerdict(True)),
        (403, "forbidden", RobotsVerdict(True)),
        (404, "not_found", RobotsVerdict(True)),
        (410, None, RobotsVerdict(True)),
        (429, "throttled", RobotsVerdict(False, None, True)),
        (500, "server_error", RobotsVerdict(False, None, True)),
        (503, "throttled", RobotsVerdict(False, None, True)),
        (200, "broken_off", RobotsVerdict(False, None, True)),
        (None, "timeout", RobotsVerdict(False, None, True)),
        (None, "dns", RobotsVerdict(False, None, True)),
    ],
)
def test_what_an_answer_means(
    robots: Robots, status: int | None, failure: str | None, verdict: RobotsVerdict
) -> None:
    """RFC 9309: 4xx allows all, no answer and 5xx forbid all for now; 429 is no permission."""
    rules = robots.learn(ORIGIN, status, b"User-agent: *\nDisallow: /", failure)
    assert rules.verdict(f"{ORIGIN}/a.jpg") == verdict


def test_what_one_reads_all_know_for_a_day(tmp_path: Path, robots: Robots, clock: Clock) -> None:
    """Rules, permission and ignorance are shared, per origin; ignorance for five minutes only."""
    body = b"User-agent: *\nDisallow: /img\nCrawl-delay: 4"
    robots.learn("https://a.example", 200, body, None)
    robots.learn("https://b.example", 404, b"", None)
    robots.learn("https://c.example", None, b"", "timeout")
    other = Robots(tmp_path, "breadth", clock)
    for one in (robots, other):
        told = one.known("https://a.example")
        assert told is not None
        assert told.verdict("https://a.example/img/x").rule == "Disallow: /img"
        assert (told.crawl_delay_s, told.read_s) == (4.0, clock.now)
        assert one.known("http://a.example") is None
        assert one.known("https://b.example") == Rules(clock.now)
        assert one.known("https://c.example") == Rules(clock.now, unknown=True)
    clock.now += 301
    assert [r.known("https://c.example") for r in (robots, other)] == [None, None]
    clock.now += 24 * HOUR - 302
    assert other.known("https://a.example") is not None
    assert other.known("https://b.example") is not None
    clock.now += 2
    for origin in ("https://a.example", "https://b.example"):
        assert [r.known(origin) for r in (robots, other)] == [None, None]
    clock.now -= 48 * HOUR  # set back: what comes from the future is not believed
    assert [r.known("https://a.example") for r in (robots, other)] == [None, None]
    other.close()


def test_another_agent_does_not_take_these_rules(
    tmp_path: Path, robots: Robots, clock: Clock
) -> None:
    """They were picked for one name; a recipe with another name reads robots.txt again."""
    rules_of(robots, "User-agent: breadth\nDisallow: /")
    other = Robots(tmp_path, "otherbot", clock)
    assert other.known(ORIGIN) is None
    other.close()


READER = """
import sys
from pathlib import Path
from breadth.curate.fetch.robots import Robots
rules = Robots(Path(sys.argv[1]), "breadth").known("https://site.example")
print(rules.verdict("https://site.example/img/a.jpg").rule)
"""


def test_another_process_knows_it_too(tmp_path: Path) -> None:
    """What this process read, the next one finds in the folder."""
    mine = Robots(tmp_path, "breadth")
    rules_of(mine, "User-agent: breadth\nDisallow: /img")
    command = [sys.executable, "-c", READER, str(tmp_path)]
    assert subprocess.check_output(command, text=True).strip() == "Disallow: /img"
    mine.close()


def test_torn_rules_are_as_if_absent(tmp_path: Path, robots: Robots, clock: Clock) -> None:
    """Shared rules that are cut off, altered or gone mean: read robots.txt again."""
    rules_of(robots, "User-agent: *\nDisallow: /img")
    file = tmp_path / "robots" / "rules"
    content = file.read_bytes()
    assert content.endswith(b"Disallow: /img")
    for damaged in (content[:-1], b"", content.replace(b"/img", b"/imh")):
        file.write_bytes(damaged)
        other = Robots(tmp_path, "breadth", clock)
        assert other.known(ORIGIN) is None
        other.close()


def test_permission_costs_next_to_nothing(tmp_path: Path, robots: Robots) -> None:
    """Of 3,000 origins without a rule for us none takes 1 ms, nor more than 64 bytes and a hole."""
    began = time.process_time()
    for number in range(1500):
        robots.learn(f"https://{number}.example", 404, b"", None)
        body = b"User-agent: otherbot\nDisallow: /\nUser-agent: *\nDisallow:\nAllow: /x\n"
        robots.learn(f"https://free{number}.example", 200, body, None)
    assert time.process_time() - began < 3.0
    sizes = {f.name: f.stat().st_blocks * 512 for f in (tmp_path / "robots").iterdir()}
    assert sizes.keys() == {"origins", "rules"}
    assert sizes["rules"] == 0
    assert sizes["origins"] < 2.5 * 2**20


def test_memory_stays_bounded(robots: Robots, clock: Clock) -> None:
    """Of origins with many rules only so many are remembered; the others are in the files."""
    body = b"User-agent: *\n" + b"".join(b"Disallow: /%d\n" % n for n in range(2000))
    for number in range(60):
        robots.learn(f"https://{number}.example", 200, body, None)
    assert sum(len(rules.lines) for rules in robots._memory.values()) <= 50_000
    rules = robots.known("https://0.example")
    assert rules is not None
    assert rules.verdict("https://0.example/1999/a").rule == "Disallow: /1999"


def test_only_so_much_of_it_is_read(robots: Robots) -> None:
    """500 KiB count, and of a line that they cut in two nothing does."""
    head = b"User-agent: *\nDisallow: /img\n"
    filler = b"# " + b"x" * (MOST_BYTES - len(head) - 14) + b"\n"
    body = head + filler + b"Disallow: /whole/gallery\nDisallow: /late\n"
    assert body[:MOST_BYTES].endswith(b"\nDisallow: /")
    assert [allowed(robots, body, path) for path in ("/img", "/free", "/late")] == [
        False,
        True,
        True,
    ]


def test_a_hostile_robots_txt_takes_no_time(robots: Robots) -> None:
    """Half a megabyte of wildcards, which a search that backtracks would never end with."""
    lines = b"".join(b"Disallow: /*a%d*a*a*a*b$\n" % n for n in range(17_000))
    began = time.process_time()
    rules = rules_of(robots, b"User-agent: *\n" + lines + b"Disallow: /aaa\n")
    assert rules.verdict(f"{ORIGIN}/{'a' * 60}").rule == "Disallow: /aaa"
    for number in range(20):
        assert rules.verdict(f"{ORIGIN}/{'a' * 60}{number}").rule == "Disallow: /aaa"
    assert time.process_time() - began < 60.0  # three on a usual machine


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("86400", 30.0),
        ("-1", 0.0),
        ("nan", 0.0),
        ("inf", 30.0),
        ("x", 0.0),
    ],
)
def test_crawl_delay_is_heard_up_to_half_a_minute(
    robots: Robots, value: str, seconds: float
) -> None:
    """Seconds, of which one host may ask for 30; what is no number asks for nothing."""
    assert rules_of(robots, f"User-agent: *\nCrawl-delay: {value}").crawl_delay_s == seconds
    assert allowed(robots, f"User-agent: *\nCrawl-delay: {value}", "/a.jpg")
