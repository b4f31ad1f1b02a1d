"""Hostile cases that want to get inside: private addresses, rebinding, redirects behind the wall.

They run without ``allow_private``, through the fetcher itself and a lookup that lies. A site's
first host stands for the public internet where ``walled`` says so, its second for what is private.
"""

import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from breadth.curate.fetch.fetcher import Fetched, Fetcher, FetchOptions
from breadth.curate.fetch.limits import Limits
from breadth.curate.fetch.robots import Robots

from .hostile_case import leads, ok, paths, picture
from .hostile_pictures import jpeg
from .hostile_server import MISSING, Answer, Hostile, Site

HERE, THERE = "{here_ip}", "{there_ip}"
Addresses = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Inside:
    """A link, what each name in it resolves to, lookup by lookup (the last stays), and the end."""

    name: str
    url: str
    failure: str | None
    names: Mapping[str, Addresses] = field(default_factory=dict)
    answer: Answer = b""
    robots: Answer = MISSING
    walled: bool = False  # the first host of the site counts as public

    @property
    def site(self) -> Site:
        """Return the site; its second host holds a picture that must never be asked for."""
        return Site(self.name, self.answer or picture(), self.robots, picture(), MISSING)


def literal(name: str, host: str, failure: str = "private_address") -> Inside:
    """Return a case of a link to an address, in one of the ways to write it."""
    return Inside(f"at_{name}", f"http://{host}:{{here_port}}/a.jpg", failure)


def resolves(name: str, *addresses: str, failure: str = "private_address") -> Inside:
    """Return a case of a link to a name that has these addresses."""
    url = "http://inside.example:{here_port}/a.jpg"
    return Inside(f"to_{name}", url, failure, {"inside.example": (addresses,)})


BUCHER, DOTTED = "xn--bcher-kva.example", "outside.example."
SERVICE = "{there_ip}:{there_port}"
LITERALS = {
    "loopback": "127.0.0.1",
    "loopback_short": "127.1",
    "loopback_decimal": "2130706433",
    "loopback_octal": "0177.0.0.1",
    "loopback_hex": "0x7f.0.0.0x1",
    "loopback_wide_digits": "\uff11\uff12\uff17.0.0.1",
    "loopback_wide_stops": "127\u30020\u30020\u30021",
    "loopback_escaped": "%31%32%37.0.0.1",
    "loopback_6": "[::1]",
    "loopback_mapped": "[::ffff:127.0.0.1]",
    "loopback_mapped_hex": "[::ffff:7f00:1]",
    "loopback_compatible": "[::127.0.0.1]",
    "loopback_translated": "[64:ff9b::7f00:1]",
    "loopback_6to4": "[2002:7f00:1::1]",
    "nobody": "0.0.0.0",
    "nobody_6": "[::]",
    "metadata": "169.254.169.254",
    "ten": "10.0.0.1",
    "home": "192.168.1.1",
    "office": "172.16.0.1",
    "carrier": "100.64.0.1",
    "benchmark": "198.18.0.1",
    "multicast": "224.0.0.1",
    "broadcast": "255.255.255.255",
    "link_local_6": "[fe80::1]",
    "unique_local_6": "[fc00::1]",
    "multicast_6": "[ff02::1]",
    "documentation_6": "[2001:db8::1]",
}
PUBLIC = "93.184.216.34"  # written down only: a fetch that would go there has failed before
NAMES = [
    resolves("loopback", "127.0.0.1"),
    resolves("private", "10.1.2.3"),
    resolves("metadata", "169.254.169.254"),
    resolves("mapped", "::ffff:10.0.0.1"),
    resolves("public_and_private", PUBLIC, "127.0.0.1"),
    resolves("private_and_public", "10.0.0.1", PUBLIC),
    resolves("zone", "fe80::1%eth0"),
    resolves("nothing", failure="dns"),
    resolves("silence", "silence", failure="dns"),
    Inside("to_long_label", f"http://{'a' * 70}.example/", "dns", {"a" * 70 + ".example": ((),)}),
]


def walled(name: str, failure: str | None, act: Answer = b"", **facts: object) -> Inside:
    """Return a case that begins at a public name."""
    names = {"outside.example": ((HERE,),), "inside.example": ((THERE,),)}
    facts = {"url": "http://outside.example:{here_port}/a.jpg", "names": names} | facts
    return Inside(name, failure=failure, answer=act, walled=True, **facts)  # type: ignore[arg-type]


def at(host: str, asked: str) -> dict[str, object]:
    """Return the facts of a link to a public host that the resolver is asked for as ``asked``."""
    return {"url": f"http://{host}:{{here_port}}/", "names": {asked: ((HERE,),)}}


REBINDS = {"outside.example": ((HERE,), (THERE,))}
WALLED = [
    walled("name", None),
    walled("name_not_ascii", None, **at("b\u00fccher.example", BUCHER)),
    walled("name_with_dot", None, **at(DOTTED, DOTTED)),
    walled("leads_to_address", "private_address", leads("{there}/a.jpg")),
    walled("leads_to_name", "private_address", leads("http://inside.example:{there_port}/a.jpg")),
    walled("leads_to_metadata", "private_address", leads("http://169.254.169.254/latest/")),
    walled("leads_to_decimal", "private_address", leads("http://2130706433:{there_port}/")),
    walled("leads_without_scheme_inside", "private_address", leads("//{there_ip}:{there_port}/")),
    walled("robots_lead_inside", "robots_unknown", robots=leads("{there}/robots.txt")),
    walled("rebinds", None, names=REBINDS),
    walled("rebinds_on_redirect", None, paths(picture(), a=leads("/b.jpg")), names=REBINDS),
    walled("rebinds_at_once", "private_address", names={"outside.example": ((HERE, THERE),)}),
    walled("other_service", None, ok(jpeg(), f'Alt-Svc: http/1.1="{SERVICE}"')),
]
INSIDE: list[Inside] = [*(literal(name, host) for name, host in LITERALS.items()), *NAMES, *WALLED]


class Lies:
    """A resolver that gives a name other addresses each time, and notes what it was asked."""

    def __init__(self, hostile: Hostile, case: Inside) -> None:
        self.asked: list[str] = []
        self.over = threading.Event()
        self._hostile, self._case = hostile, case

    def __call__(self, host: str, *_: Any, **__: Any) -> Sequence[Any]:
        """Answer as socket.getaddrinfo does."""
        answers = self._case.names[host]
        found = answers[min(self.asked.count(host), len(answers) - 1)]
        self.asked.append(host)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if found == ("silence",):
            self.over.wait(60)
        filled = [self._hostile.link(self._case.name, address) for address in found]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in filled]


def fetch_inside(hostile: Hostile, case: Inside, deadline_s: float = 2.0) -> Fetched:
    """Run one case through a fetcher of its own, and return what came."""
    lies = Lies(hostile, case)
    ended: list[Fetched] = []
    first = hostile.names[case.name]["here_ip"]
    wall = patch("breadth.curate.fetch.addresses.is_public", lambda address: address == first)
    with tempfile.TemporaryDirectory() as folder, wall if case.walled else nullcontext():
        limits = Limits(Path(folder))
        options = FetchOptions(deadline_s=deadline_s, retries=0)
        fetcher = Fetcher(options, limits, Robots(Path(folder), "breadth"), lookup=lies)
        url = hostile.link(case.name, case.url)
        fetcher.run([url], ended.append, room=lambda: True, stop=threading.Event())
        limits.close()
    lies.over.set()
    [fetched] = ended
    return fetched
