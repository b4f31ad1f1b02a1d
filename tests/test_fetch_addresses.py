"""Public and private addresses, and look-ups that nobody waits for."""

import ipaddress
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breadth.curate.fetch import addresses
from breadth.curate.fetch.addresses import Found, Lookup, Resolver, is_public

PUBLIC = (  # noqa: SIM905
    "8.8.8.8 1.1.1.1 93.184.216.34 172.15.255.255 172.32.0.0 100.63.255.255 100.128.0.0 "
    "192.0.1.0 198.17.0.0 223.255.255.255 2606:4700::1111 2a00:1450:4001::1 ::ffff:8.8.8.8 "
    "64:ff9b::808:808"
).split()
PRIVATE = (  # noqa: SIM905
    "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 127.0.0.1 127.255.0.1 169.254.169.254 172.16.0.1 "
    "172.31.255.255 192.168.0.1 100.64.0.1 100.127.255.255 100.100.100.200 168.63.129.16 "
    "192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.7 "
    "203.0.113.9 224.0.0.1 239.255.255.250 232.1.1.1 240.0.0.1 255.255.255.255 "
    ":: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 "
    "64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::808:808 100::1 2001::1 2001:0:7f00:1::1 "
    "2001:db8::1 2001:10::1 2002:7f00:1::1 2002:808:808::1 3fff::1 5f00::1 fc00::1 "
    "fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1 4000::1"
).split()


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_public_internet_are_public(address: str) -> None:
    """What lies just outside a private range is public; so is IPv4 mapped into IPv6."""
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_all_others_are_private(address: str) -> None:
    """Private, shared, link-local, metadata, multicast, reserved; IPv4 inside IPv6 counts."""
    assert not is_public(address)


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "8.8.8.8/32", "8.8.8.8 ", "0x8.8.8.8"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    """A text that ipaddress does not read is refused, not guessed at."""
    assert not is_public(text)


@given(st.integers(0, 2**32 - 1))
def test_ipv4_inside_ipv6_is_judged_as_itself(number: int) -> None:
    """A mapped or NAT64 address is public exactly if its IPv4 is, by Python's rules at least."""
    v4 = ipaddress.IPv4Address(number)
    assert is_public(f"::ffff:{v4}") == is_public(f"64:ff9b::{v4}") == is_public(str(v4))
    assert v4.is_global or not is_public(str(v4))


@given(st.integers(0, 2**128 - 1))
def test_ipv6_is_public_only_where_the_internet_routes(number: int) -> None:
    """Nothing outside 2000::/3 is public but mapped and NAT64 addresses."""
    v6 = ipaddress.IPv6Address(number)
    if is_public(str(v6)):
        assert str(v6)[0] in "23" or v6.ipv4_mapped or str(v6).startswith("64:ff9b::")


class Names:
    """A look-up of names in a table: it counts, waits, and fails for names it does not know."""

    def __init__(self, table: dict[str, list[str]], delay_s: float = 0.0) -> None:
        self.table, self.delay_s = table, delay_s
        self.asked: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.go_on = threading.Event()

    def __call__(self, host: str, _port: Any, **_: Any) -> list[Any]:
        with self.lock:
            self.asked[host] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if host.startswith("hang"):
                self.go_on.wait(30)
            time.sleep(self.delay_s)
            if host not in self.table:
                raise socket.gaierror(socket.EAI_NONAME, "no such host")
            return [(0, 0, 0, "", (address, 0)) for address in self.table[host]]
        finally:
            with self.lock:
                self.at_once -= 1


@contextmanager
def resolver(lookup: Lookup, **options: Any) -> Iterator[Resolver]:
    made = Resolver(lambda: None, lookup=lookup, **options)
    try:
        yield made
    finally:
        made.close()


def wait_for(made: Resolver, *hosts: str) -> dict[str, Found]:
    for host in hosts:
        made.ask(host)
    return gather(made, lambda found: len(found) == len(hosts))


def gather(made: Resolver, enough: Callable[[dict[str, Found]], bool]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    ends = time.monotonic() + 10
    while not enough(found):
        assert time.monotonic() < ends, found
        found |= dict(made.answers()) | dict(made.overdue())
        time.sleep(0.005)
    return found


def test_a_host_is_public_only_if_all_its_addresses_are() -> None:
    """One private address among public ones refuses the host; allow_private takes it."""
    names = Names({"good": ["8.8.8.8", "2606:4700::1"], "mixed": ["8.8.8.8", "10.0.0.1"]})
    with resolver(names) as made:
        found = wait_for(made, "good", "mixed", "nowhere")
        assert found["good"][:2] == (("8.8.8.8", "2606:4700::1"), None)
        assert found["mixed"][:2] == ((), "private_address")
        assert found["nowhere"][:2] == ((), "dns")
    with resolver(names, allow_private=True) as made:
        assert wait_for(made, "mixed")["mixed"].addresses == ("8.8.8.8", "10.0.0.1")


def test_addresses_in_urls_are_judged_without_a_look_up() -> None:
    """A host that is an address, in brackets or not, needs no DNS and cannot get around it."""
    names = Names({})
    with resolver(names) as made:
        found = [made.known(host) for host in ("127.0.0.1", "[::ffff:a00:1]", "8.8.8.8", "[::1]")]
        assert [f and f.failure for f in found] == ["private_address"] * 2 + [None] + [
            "private_address"
        ]
        assert found[2] == Found(("8.8.8.8",), None, 0.0)
        assert made.known("a.test") is None
    assert not names.asked


def test_a_host_is_looked_up_once_while_the_answer_is_fresh() -> None:
    """Asking again while it is under way, or known, does nothing; after its time it is asked."""
    names = Names({"a": ["8.8.8.8"]}, delay_s=0.02)
    with resolver(names, ttl_s=0.2) as made:
        made.ask("a")
        wait_for(made, "a")
        assert made.known("a") is not None and names.asked["a"] == 1
        time.sleep(0.25)
        assert made.known("a") is None
        wait_for(made, "a")
        assert names.asked["a"] == 2


def test_many_hosts_are_looked_up_together_but_not_all() -> None:
    """200 look-ups of 20 ms by 40 threads take 0.1 s, not 4 s, and never more than 40 at once."""
    names = Names({f"h{n}": ["8.8.8.8"] for n in range(200)}, delay_s=0.02)
    began = time.monotonic()
    with resolver(names, threads=40) as made:
        assert len(wait_for(made, *names.table)) == 200
    assert time.monotonic() - began < 2.0
    assert names.most_at_once <= 40 and set(names.asked.values()) == {1}


def test_look_ups_without_end_hold_nobody_up() -> None:
    """More hanging hosts than threads fail in their time, and a good one behind them is found."""
    names = Names({"good": ["8.8.8.8"]})
    hanging, before = [f"hang{n}" for n in range(6)], set(threading.enumerate())
    with resolver(names, threads=2, limit_s=0.1) as made:
        found = wait_for(made, *hanging, "good")
        assert {found[h].failure for h in hanging} == {"dns"}
        assert found["good"].failure is None
        names.go_on.set()
        ends = time.monotonic() + 5
        while names.at_once and time.monotonic() < ends:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(set(threading.enumerate()) - before) <= 2, "replaced threads live on"


def test_when_every_thread_is_lost_hosts_fail_instead_of_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With no thread left to replace, what waits for one fails as well: nothing waits for ever."""
    monkeypatch.setattr(addresses, "LOST_THREADS", 2)
    names = Names({"good": ["8.8.8.8"]})
    with resolver(names, threads=1, limit_s=0.1) as made:
        found = wait_for(made, *(f"hang{n}" for n in range(5)), "good")
        assert {f.failure for f in found.values()} == {"dns"}
        names.go_on.set()


def test_threads_end_when_the_resolver_is_closed() -> None:
    """Idle threads end at once; one in a look-up ends after it; all are daemons."""
    names = Names({"a": ["8.8.8.8"]})
    before = set(threading.enumerate())
    with resolver(names, threads=4) as made:
        wait_for(made, "a")
        made.ask("hang")
        time.sleep(0.05)
        own = set(threading.enumerate()) - before
        assert own and all(thread.daemon for thread in own)
    names.go_on.set()
    for thread in own:
        thread.join(5)
        assert not thread.is_alive()


def test_a_name_that_dns_cannot_hold_is_a_host_without_address() -> None:
    """A label of 64 letters makes Python's own encoder raise; it is a failure like another."""
    with resolver(socket.getaddrinfo) as made:
        [found] = wait_for(made, f"{'a' * 64}.test").values()
        assert found.failure == "dns"


def test_what_nobody_expected_of_a_look_up_reaches_the_caller() -> None:
    """An exception that is no answer of DNS is raised where the answers are taken."""

    def broken(*_: Any, **__: Any) -> list[Any]:
        raise ZeroDivisionError

    with resolver(broken) as made, pytest.raises(ZeroDivisionError):
        wait_for(made, "a")
