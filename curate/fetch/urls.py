"""Read URLs as browsers do: their parts, what a redirect leads to, and whose host it is."""

import re
from functools import cache, lru_cache
from typing import NamedTuple

import ada_url
import publicsuffixlist

MOST_CHARACTERS = 32_768
"""Longer URLs are taken for none: no server reads them."""
_HOST = re.compile(r"[a-z0-9_][a-z0-9._-]*|\[[0-9a-f:.]+\]")
"""Names by RFC 1123, underscores too: what WHATWG also lets through, "*" say, no DNS knows."""


class Link(NamedTuple):
    """A URL that can be fetched, in WHATWG form: ASCII, without fragment."""

    href: str
    scheme: str  # http or https
    host: str  # lower case; an IPv6 address has its brackets
    port: int
    origin: str  # scheme, host and, where it is not the scheme's own, port
    has_credentials: bool


def canonical_url(url: str) -> str:
    """Return the URL in WHATWG form without its fragment, or as it is where it is none."""
    try:
        parsed = ada_url.URL(url.strip())
    except ValueError:
        return url
    parsed.hash = ""
    return str(parsed.href)


def parse(url: str) -> Link | None:
    """Read an http or https URL by WHATWG rules; None where it is none (cost: 4 us)."""
    try:
        return _link(ada_url.URL(url.strip()).href)
    except (ValueError, UnicodeEncodeError):  # a lone surrogate
        return None


def join(base: str, location: str) -> Link | None:
    """Read the URL that ``location`` means on the page ``base``; None where it is not http(s)."""
    try:
        return _link(ada_url.URL(location.strip(), base).href)
    except (ValueError, UnicodeEncodeError):
        return None


def _link(href: str) -> Link | None:
    """Take a normalised URL apart: what stands between the slashes can be trusted."""
    href = href.partition("#")[0]
    scheme, _, rest = href.partition("://")
    if scheme not in ("http", "https") or len(href) > MOST_CHARACTERS:
        return None
    _, at, authority = rest.partition("/")[0].rpartition("@")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):  # the last colon is one of an IPv6 address
        host, port = authority, ""
    if not _HOST.fullmatch(host) or port == "0":
        return None
    number = int(port) if port else (443 if scheme == "https" else 80)
    return Link(href, scheme, host, number, f"{scheme}://{authority}", bool(at))


@lru_cache(maxsize=65_536)
def registrable_domain(host: str) -> str:
    """Return the part of a host name that somebody registered; addresses are themselves.

    a.b.example.co.uk is example.co.uk, and a.github.io stays (the list's private section). A name
    without such a part, a public suffix say, is itself. Source: publicsuffix.org.
    """
    name = host.rstrip(".")
    if name.startswith("[") or name.rpartition(".")[2].isdigit():
        return host
    return _suffixes().privatesuffix(name) or name


@cache
def _suffixes() -> publicsuffixlist.PublicSuffixList:
    return publicsuffixlist.PublicSuffixList()
