"""URLs as the fetcher reads them: WHATWG rules, and no host that means more than a host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breadth.curate.fetch.urls import canonical_url, join, parse, registrable_domain


@pytest.mark.parametrize(
    ("url", "href", "host", "port", "origin"),
    [
        ("http://a.test/x", "http://a.test/x", "a.test", 80, "http://a.test"),
        (" HTTPS://A.test:443/a b#f ", "https://a.test/a%20b", "a.test", 443, "https://a.test"),
        ("http://a.test:8080", "http://a.test:8080/", "a.test", 8080, "http://a.test:8080"),
        ("http:\\\\a.test\\x", "http://a.test/x", "a.test", 80, "http://a.test"),
        ("http://münchen.de/ü?q=ü", None, "xn--mnchen-3ya.de", 80, "http://xn--mnchen-3ya.de"),
        ("http://[::1]:81/", "http://[::1]:81/", "[::1]", 81, "http://[::1]:81"),
        ("http://[2001:DB8::1]/", "http://[2001:db8::1]/", "[2001:db8::1]", 80, None),
        ("http://0x7f.1/", "http://127.0.0.1/", "127.0.0.1", 80, "http://127.0.0.1"),
        ("http://2130706433/", "http://127.0.0.1/", "127.0.0.1", 80, "http://127.0.0.1"),
        ("http://0177.0.0.01/", "http://127.0.0.1/", "127.0.0.1", 80, "http://127.0.0.1"),
        ("http://a.test?q", "http://a.test/?q", "a.test", 80, "http://a.test"),
        ("http://a_b.test./", "http://a_b.test./", "a_b.test.", 80, "http://a_b.test."),
    ],
)
def test_a_url_is_taken_apart_as_browsers_do(
    url: str, href: str | None, host: str, port: int, origin: str | None
) -> None:
    """Scheme, host and port are those of WHATWG: numbers are addresses, spaces are escaped."""
    link = parse(url)
    assert link is not None
    assert (link.host, link.port) == (host, port)
    assert href in (None, link.href) and origin in (None, link.origin)
    assert link.href.isascii() and "#" not in link.href and not link.has_credentials


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        "file:///etc/hostname",
        "ftp://a.test/x",
        "data:image/png;base64,AA",
        "javascript:alert(1)",
        "//a.test/x",
        "http://",
        "http://a.test:0/",
        "http://a.test:65536/",
        "http://a test/",
        "http://1.2.3.4.5/",
        "http://[::1/",
        "http://*/",  # libcurl's list of addresses would read it as every host
        "http://-a.test/",  # and this one as "forget a.test"
        "http://+a.test/",
        "http://a,b/",
        "http://a.test/" + "x" * 40_000,
        "http://a.test/\ud800",
    ],
)
def test_what_is_no_fetchable_url_is_none(url: str) -> None:
    """Other schemes, bad hosts, port 0 and endless URLs are refused before anything is asked."""
    assert parse(url) is None


def test_credentials_are_seen() -> None:
    """A user name, a password, or both, or an empty name count; an @ in the path does not."""
    links = [parse(f"http://{who}a.test/@x") for who in ("u:p@", "u@", ":p@", "")]
    assert [link is not None and link.has_credentials for link in links] == [True] * 3 + [False]
    assert all(link is not None and link.host == "a.test" for link in links)


@pytest.mark.parametrize(
    ("location", "href"),
    [
        ("b", "https://a.test/x/b"),
        ("/b?c", "https://a.test/b?c"),
        ("//b.test/c", "https://b.test/c"),
        ("http://b.test", "http://b.test/"),
        ("?q=1", "https://a.test/x/y?q=1"),
        ("ü b", "https://a.test/x/%C3%BC%20b"),
        ("#f", "https://a.test/x/y"),
        ("file:///etc/hostname", None),
        ("data:,x", None),
        ("http://*/", None),
        ("http://[", None),
    ],
)
def test_a_redirect_is_joined_to_the_page_it_is_on(location: str, href: str | None) -> None:
    """Relative and protocol-relative locations work; other schemes lead nowhere."""
    link = join("https://a.test/x/y", location)
    assert (link.href if link else None) == href


@given(st.text(max_size=60))
def test_a_link_is_a_fixed_point(text: str) -> None:
    """Whatever is accepted is its own canonical form, so that what is checked is what is asked."""
    link = parse(f"http://{text}")
    if link is not None:
        assert parse(link.href) == link
        assert canonical_url(link.href) == link.href


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("img.example.co.uk", "example.co.uk"),
        ("a.b.github.io", "b.github.io"),
        ("b.github.io", "b.github.io"),
        ("example.com.", "example.com"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("x.y.unknown-tld", "y.unknown-tld"),
    ],
)
def test_a_registrable_domain_is_what_somebody_registered(host: str, domain: str) -> None:
    """Private suffixes count as such, addresses are themselves."""
    assert registrable_domain(host) == domain
