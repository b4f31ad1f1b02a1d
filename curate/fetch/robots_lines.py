"""The lines of a robots.txt that concern one agent."""

import codecs
import re
from typing import NamedTuple

MOST_BYTES = 500 * 1024  # RFC 9309: what comes after may be ignored
_AGENT = ("user-agent", "useragent", "user agent")
_ALLOW = ("allow",)
_DISALLOW = ("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw")
_DELAY = ("crawl-delay", "crawldelay", "crawl delay")
_RULES = _ALLOW + _DISALLOW + _DELAY
_NAMES = _AGENT + _RULES
_NEWLINE = re.compile(r"\r\n|\r|\n")
# NUL, and what Python, but no robots.txt, takes for the end of a line
_NOISE = re.compile("[\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ufeff]")
# Other encodings' bytes, escaped as they are in that site's URLs
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
_PRODUCT = re.compile(r"[a-z0-9_-]+")


class Line(NamedTuple):
    """A rule; ``text`` is the line as it stands there, without its comment."""

    kind: str  # "allow", "disallow" or "crawl-delay"
    value: str
    text: str


def lines_for(body: bytes, token: str) -> list[Line]:
    """Return every rule for an agent, or else those for all agents.

    All groups that name the agent count together, and so do all those for "*", as RFC 9309
    has it; a group of its own, even an empty one, makes the others none of its business.
    Cost: 1 us a line.
    """
    token = token.lower() or "-"  # one without a name is only one of all
    own: list[Line] = []
    everyone: list[Line] = []
    agents: set[str] = set()
    own_group = naming = False
    for raw in _NEWLINE.split(_text(body)):
        line = raw.partition("#")[0].strip()
        name, value = _split(line) if line else ("", "")
        if name in _AGENT:
            if not naming:
                agents = set()
            naming = True
            agents.add(_product(value))
            own_group = own_group or token in agents
        elif name in _RULES:
            naming = False
            rule = Line(_kind(name), value, line)
            if value and token in agents:
                own.append(rule)
            if value and "*" in agents:
                everyone.append(rule)
    return own if own_group else everyone


def _text(body: bytes) -> str:
    if len(body) > MOST_BYTES:  # not half a line: it could forbid more than it says
        body = body[:MOST_BYTES].rpartition(b"\n")[0]
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _NOISE.sub("", body.decode("utf-16", "replace"))
    text = body.decode("utf-8", "surrogateescape")
    text = _NOT_UTF_8.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)
    return _NOISE.sub("", text)


def _split(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    name = name.strip().lower()
    if colon and name in _NAMES:
        return name, value.strip()
    words = line.split()  # "Disallow /private" is understood by the big crawlers, too
    return (words[0].lower(), words[1]) if len(words) == 2 else ("", "")


def _product(value: str) -> str:
    """Return the product of an agent's name: "Breadth/1.0 (x)" is breadth, "*" is everyone."""
    value = value.lower()
    found = _PRODUCT.match(value.strip("* "))
    return found[0] if found else "*" if value.startswith("*") else ""


def _kind(name: str) -> str:
    return "allow" if name in _ALLOW else "disallow" if name in _DISALLOW else "crawl-delay"
