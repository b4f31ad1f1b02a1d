"""X-Robots-Tag: what is forbidden to us, what is not, and when a server wants to be asked again."""

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breadth.curate.fetch.opt_out import forbidden_by
from breadth.curate.fetch.retry_after import retry_after_s

DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")


def tag(*values: str) -> str | None:
    headers = [("content-type", "image/png"), *(("x-robots-tag", value) for value in values)]
    return forbidden_by(headers, "Breadth", DIRECTIVES)


@pytest.mark.parametrize(
    "value",
    [
        "noai",
        "NoAI",
        " noarchive ,  noai ",
        "nofollow,noimageai",
        "none",
        "noai;noarchive",
        "noarchive noai",
        "*: noai",
        "breadth: noai",
        "BREADTH : noarchive, noai",
        "breadth/0.1: noai",
        "otherbot: noindex, breadth: noai",
        "noarchive, unavailable_after: 25 Jun 2010 15:00:00 PST, noai",
        "unavailable_after: 25 Jun 2010 15:00:00 PST, noai",
        "unavailable_after: Friday, 25-Jun-10 15:00:00 PST, noai",
        "unavailable_after: 2010-06-25T15:00:00+00:00, noai",
        "max-snippet: 20, max-image-preview:large, max-video-preview : -1, noai",
        "breadth: max-snippet: 20, noai",
        "noai: true",
    ],
)
def test_what_is_forbidden_to_us(value: str) -> None:
    """However it is written, and behind whatever other directive, with the header as evidence."""
    assert tag(value) == f"X-Robots-Tag: {value.strip()}"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "all",
        "noarchive, nosnippet",
        "otherbot: noai",
        "otherbot: noarchive, noai",
        "breadthbot: noindex",
        "my-breadth: noindex",
        "breadth: noarchive, otherbot: noai",
        "unavailable_after: 25 Jun 2010 15:00:00 PST",
        "max-image-preview: large",
        "noarchive, max-image-preview: none",
        "noaitall, xnoai, no ai",
        ":,;:,",
    ],
)
def test_what_is_not(value: str) -> None:
    """What is for another agent, or only looks alike, forbids us nothing."""
    assert tag(value) is None


def test_every_header_counts_and_the_first_that_forbids_is_the_evidence() -> None:
    """An agent named in one header does not own the next one."""
    assert tag("otherbot: noindex", "noarchive, noai", "noindex") == "X-Robots-Tag: noarchive, noai"
    assert tag("otherbot: noindex", "otherbot: noai") is None
    assert forbidden_by([("x-robots", "noai")], "breadth", DIRECTIVES) is None


def test_only_the_directives_of_the_recipe_count() -> None:
    """An owner who switches it off is obeyed; "none" means noindex and nofollow, and not noai."""
    headers = [("x-robots-tag", "none, noai")]
    assert forbidden_by(headers, "breadth", ()) is None
    assert forbidden_by([("x-robots-tag", "none")], "breadth", ("noai",)) is None
    assert forbidden_by([("x-robots-tag", "none")], "breadth", ("NoFollow",)) is not None
    assert forbidden_by(headers, "", ("noai",)) is not None


HARMLESS = st.sampled_from(["noarchive", "all", "max-snippet: 3", "unavailable_after: 1 Jan 2030"])
HARMFUL = st.sampled_from(["noai", "noindex", "NOIMAGEAI", "none"])
SCOPES = st.sampled_from(["", "*: ", "Breadth: ", "otherbot: ", "google-extended: "])


@given(
    st.lists(st.tuples(SCOPES, st.lists(HARMLESS | HARMFUL, min_size=1, max_size=4)), max_size=4),
    st.sampled_from([", ", ",", " ,\t"]),
)
def test_a_scope_decides_for_whom_the_directives_are(
    parts: list[tuple[str, list[str]]], comma: str
) -> None:
    """One header a scope, or all scopes in one header: forbidden if a harmful one is for us."""
    harmful = {"noai", "noindex", "noimageai", "none"}
    ours = [
        any(word.lower() in harmful for word in words)
        for scope, words in parts
        if scope in ("", "*: ", "Breadth: ")
    ]
    assert (tag(*(scope + comma.join(words) for scope, words in parts)) is not None) == any(ours)
    named = [(scope or "*: ", words) for scope, words in parts]  # else the scope before goes on
    assert (
        tag(comma.join(scope + comma.join(words) for scope, words in named)) is not None
    ) == any(ours)


@given(st.text(max_size=60))
def test_no_header_is_too_odd(value: str) -> None:
    """Whatever a server sends is read without an error."""
    assert tag(value) in (None, f"X-Robots-Tag: {value.strip()}")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wednesday, 21-Oct-15 07:28:10 GMT", 10.0),
        ("Wed Oct 21 07:28:10 2015", 10.0),
        ("Wed, 21 Oct 2015 07:28:10 -0000", 10.0),
        ("Wed, 21 Oct 2015 08:28:10 +0100", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("9" * 400, None),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Wed, 99 Oct 2015 07:28:10 GMT", None),
        ("\u0663", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both of its forms, in the three ways of writing a date; what is neither says nothing."""
    assert retry_after_s(value, 1445412480.0) == seconds


def test_a_date_without_a_zone_is_of_greenwich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever this machine stands."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after_s("Wed, 21 Oct 2015 07:28:10 -0000", 1445412480.0) == 10.0
        assert retry_after_s("Wed Oct 21 07:28:10 2015", 1445412480.0) == 10.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.integers(0, 2**32), st.integers(0, 10**6))
def test_a_date_is_as_good_as_seconds(now: int, seconds: int) -> None:
    """The date that lies so many seconds ahead says the same as their number."""
    date = formatdate(now + seconds, usegmt=True)
    assert retry_after_s(date, float(now)) == retry_after_s(str(seconds), float(now)) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_is_too_odd(value: str) -> None:
    """Whatever a server sends is read without an error, and is no time that is past."""
    assert (retry_after_s(value, 0.0) or 0.0) >= 0.0
