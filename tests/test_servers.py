"""The demo's loopback hosts answer as their paths say."""

import http.client
import socket
import time
import urllib.error
import urllib.request

import pytest

from breadth.loaders.errors import Failed
from breadth.scripts.demo import servers as hosts


@pytest.fixture
def running(tmp_path):
    """Three hosts with one file and one placeholder each."""
    addresses = hosts.loopback(3)
    for address in addresses:
        (tmp_path / address).mkdir()
        (tmp_path / address / "one.jpg").write_bytes(address.encode())
        (tmp_path / address / hosts.PLACEHOLDER).write_bytes(b"no picture")
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    with hosts.serve(tmp_path, addresses, hosts.free_port(addresses)) as servers:
        yield servers


def _get(url, timeout=5):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read(), answer.headers["Content-Type"], answer.url


def test_each_host_serves_its_own_folder(running):
    """The same name on different addresses is a different file."""
    found = [_get(f"{base}/one.jpg") for base in running.base_urls]
    assert [body for body, _, _ in found] == [a.encode() for a in running.addresses]
    assert {kind for _, kind, _ in found} == {"image/jpeg"}


def test_a_redirect_leads_to_the_next_host(running):
    """A redirected link gives the file of another address."""
    body, _, url = _get(f"{running.base_urls[2]}/redirect/one.jpg")
    assert (body, url) == (b"127.0.0.2", f"{running.base_urls[0]}/one.jpg")


def test_a_placeholder_is_served_for_every_link(running):
    """Any name behind a placeholder gives the same bytes."""
    assert {_get(f"{running.base_urls[0]}/placeholder/{n}.jpg")[0] for n in range(3)} == {
        b"no picture"
    }


@pytest.mark.parametrize("path", ["/none.jpg", "/", "/..", "/../secret.jpg", "/%2e%2e/secret.jpg"])
def test_what_is_no_file_of_the_host_is_a_404(running, path):
    """Missing names and ways out of the folder are both not found."""
    connection = http.client.HTTPConnection(running.addresses[0], running.port, timeout=5)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


def test_one_connection_serves_several_requests(running):
    """Connections are kept alive."""
    connection = http.client.HTTPConnection(running.addresses[0], running.port, timeout=5)
    connection.connect()
    port = connection.sock.getsockname()[1]
    for _ in range(3):
        connection.request("GET", "/one.jpg")
        assert connection.getresponse().read() == b"127.0.0.2"
        assert connection.sock.getsockname()[1] == port
    connection.close()


def test_a_slow_host_answers_and_a_hanging_one_does_not(running):
    """Slow comes after SLOW_S; hang outlasts the client's patience."""
    start = time.perf_counter()
    assert _get(f"{running.base_urls[0]}/slow/one.jpg")[0] == b"127.0.0.2"
    assert time.perf_counter() - start >= hosts.SLOW_S
    with pytest.raises((TimeoutError, urllib.error.URLError)):
        _get(f"{running.base_urls[0]}/hang/one.jpg", timeout=0.3)


def test_requests_are_counted_by_behaviour(running):
    """A redirect counts once for itself and once for the file it leads to."""
    _get(f"{running.base_urls[0]}/redirect/one.jpg")
    assert running.requests == {"redirect": 1, "file": 1}


def test_a_taken_port_is_refused_in_one_line(tmp_path):
    """Links name their port, so another one is never taken in its place."""
    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))
        other.listen()
        with (
            pytest.raises(Failed, match="in use"),
            hosts.serve(tmp_path, ["127.0.0.2"], other.getsockname()[1]),
        ):
            pass


def test_leaving_stops_hanging_conversations_at_once(tmp_path, caplog):
    """The context ends, without a word, although a client still waits for an answer."""
    port = hosts.free_port(["127.0.0.2"])
    with socket.socket() as client:
        with hosts.serve(tmp_path, ["127.0.0.2"], port):
            client.connect(("127.0.0.2", port))
            client.sendall(b"GET /hang/one.jpg HTTP/1.1\r\n\r\n")
            time.sleep(0.1)
            start = time.perf_counter()
        assert time.perf_counter() - start < 2
    assert not caplog.records
