"""Hostile cases below the picture: connections, HTTP framing, codings, statuses, TLS."""

import gzip
import zlib

from .hostile_bombs import zeros
from .hostile_case import (
    Case,
    answer,
    case,
    drip,
    endless,
    ok,
    picture,
    then_kept,
    then_reset,
    then_silence,
)
from .hostile_pictures import jpeg, pillow
from .hostile_server import MISSING, Request, Site, Wire

BODY = jpeg()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
OPEN = HEAD + b"Connection: close\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def chunks(data: bytes, *, end: bytes = b"0\r\n\r\n", size: int = 100) -> bytes:
    """Cut data into chunks as HTTP does."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + end


async def smuggled(wire: Wire, _: Request) -> None:
    """Answer robots.txt with a 404 and, unasked, with a picture of another size."""
    await wire.send(
        MISSING.replace(b"Connection: close\r\n", b"") + ok(pillow("JPEG", size=(32, 32)))
    )
    wire.keep = True


CONNECTIONS = [
    case("sound", picture()),
    Case(Site("nobody_listens", deaf=True), "connect"),
    case("closes_before_answer", b"", "broken_off"),
    case("resets_before_answer", then_reset(), "broken_off"),
    case("resets_in_header", then_reset(HEAD), "broken_off"),
    case("resets_in_body", then_reset(ok(BODY)[:-300]), "broken_off"),
    case("never_answers", then_silence(), "timeout", timed=True),
    case("stops_in_header", then_silence(HEAD), "timeout", timed=True),
    case("stops_in_body", then_silence(ok(BODY)[:-300]), "timeout", timed=True),
    case("drips_header", drip(ok(BODY)), "timeout", timed=True),
    case("drips_body", drip(OPEN + BODY), "timeout", timed=True),
    case("keep_alive_lie", picture(), robots=MISSING.replace(b"close", b"keep-alive")),
    case("answers_twice", picture(), robots=smuggled),
    Case(Site("ipv6", picture(), ipv6=True), None),
]

FRAMING = [
    case("no_length", OPEN + BODY),
    case("http_1_0", OPEN.replace(b"1.1", b"1.0") + BODY),
    case("http_0_9", BODY, "protocol"),
    case("http_9_9", ok(BODY).replace(b"HTTP/1.1", b"HTTP/9.9"), "protocol"),
    case("http_2_unasked", b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64", "protocol"),
    case("ssh", b"SSH-2.0-OpenSSH_9.6\r\n" * 40, "protocol"),
    case("ftp", b"220 ready\r\n331 who\r\n", "protocol"),
    case("icy", b"ICY 200 OK\r\n\r\n" + BODY, "protocol"),
    case("status_of_letters", ok(BODY).replace(b"200 OK", b"two"), "protocol"),
    case("status_without_words", ok(BODY).replace(b"200 OK", b"200")),
    case("bare_line_feeds", OPEN.replace(b"\r\n", b"\n") + BODY),
    case("header_without_colon", ok(BODY, "this is no header"), "protocol"),
    case("nul_in_header", ok(BODY, "X-Nul: a\0b"), "protocol"),
    case("folded_header", ok(BODY, "X-Long: one\r\n two")),
    case("latin_1_header", ok(BODY, "X-Name: Caf\xe9")),
    case("endless_header_lines", endless(HEAD, b"X-More: of the same\r\n" * 200), "protocol"),
    case("endless_header_line", endless(HEAD + b"X-Long: ", b"x" * 8192), "protocol"),
    case("endless_continue", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 400), "protocol"),
    case("continue_first", b"HTTP/1.1 100 Continue\r\n\r\n" + picture()),
    case("early_hints", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + picture()),
    case("switching", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + BODY, "protocol"),
    case("length_too_long", ok(BODY, "Content-Length: 999999"), "broken_off"),
    case("length_too_short", ok(BODY, f"Content-Length: {len(BODY) - 200}"), "broken_picture"),
    case("length_and_more", ok(BODY) + b"garbage after the end" * 50),
    case("length_negative", ok(BODY, "Content-Length: -5"), "protocol"),
    case("length_of_words", ok(BODY, "Content-Length: many"), "protocol"),
    case("length_twice", ok(BODY, f"Content-Length: {len(BODY)}", "Content-Length: 7"), "protocol"),
    case("length_huge", ok(BODY, "Content-Length: 10000000000"), "too_large"),
    case("length_overflow", ok(BODY, f"Content-Length: {10**25}"), "too_large"),
    case("endless_body", endless(OPEN, b"\xff\xd8\xff\xe0" + bytes(65_536)), "too_large"),
    case("endless_not_found", endless(b"HTTP/1.1 404 No\r\n\r\n", bytes(65_536)), "not_found"),
    case("endless_forbidden", endless(b"HTTP/1.1 403 No\r\n\r\n", bytes(65_536)), "forbidden"),
]

TWO_LENGTHS = CHUNKED.replace(b"\r\n", b"\r\nContent-Length: 9\r\n", 1)
CHUNKS = [
    case("chunked", CHUNKED + chunks(BODY)),
    case("chunked_one_byte_each", CHUNKED + chunks(BODY, size=1)),
    case(
        "chunked_and_length",
        TWO_LENGTHS + chunks(BODY),
    ),
    case("chunked_trailers", CHUNKED + chunks(BODY, end=b"0\r\nX-Sum: 1\r\n\r\n")),
    case("chunked_extension", CHUNKED + b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    case("chunked_garbage", CHUNKED + b"zz\r\n" + BODY, "protocol"),
    case("chunked_negative", CHUNKED + b"-8\r\n" + BODY, "protocol"),
    case("chunked_overflow", CHUNKED + b"F" * 17 + b"\r\n" + BODY, "protocol"),
    case("chunked_without_end", CHUNKED + chunks(BODY, end=b""), "broken_off"),
    case("chunked_cut", CHUNKED + chunks(BODY)[:-200], "broken_off"),
    case("chunked_forever", endless(CHUNKED, b"10000\r\n" + bytes(65_536) + b"\r\n"), "too_large"),
    case("coding_unknown", ok(BODY, "Transfer-Encoding: rot13"), "protocol"),
]


def zipped(coding: str, body: bytes) -> bytes:
    """Return an answer whose body is said to be in a coding."""
    return ok(body, f"Content-Encoding: {coding}")


GZIP_BOMB = gzip.compress(bytes(1 << 26))
RAW = zlib.compressobj(9, zlib.DEFLATED, -15)
CODINGS = [
    case("gzip", zipped("gzip", gzip.compress(BODY))),
    case("gzip_by_its_old_name", zipped("x-gzip", gzip.compress(BODY))),
    case("deflate", zipped("deflate", zlib.compress(BODY))),
    case("deflate_raw", zipped("deflate", RAW.compress(BODY) + RAW.flush())),
    case("identity", zipped("identity", BODY)),
    case("gzip_lie", zipped("gzip", BODY)),
    case("gzip_cut", zipped("gzip", gzip.compress(BODY)[:-100]), "broken_picture"),
    case("gzip_bad_sum", zipped("gzip", gzip.compress(BODY)[:-8] + b"\1" * 8), "not_a_picture"),
    case("gzip_bomb", zipped("gzip", GZIP_BOMB), "too_large"),
    case("deflate_bomb", zipped("deflate", zeros(1 << 28)), "too_large"),
    case(
        "gzip_in_gzip_bomb",
        zipped("gzip, gzip", gzip.compress(GZIP_BOMB)),
        "too_large",
    ),
    case("coded_ten_times", zipped(", ".join(["gzip"] * 10), gzip.compress(BODY)), "not_a_picture"),
    case("coding_of_words", zipped("magic", BODY)),
    case("gzip_file", ok(gzip.compress(BODY)), "not_a_picture"),
]

OUTCOMES = {
    "201 Created": "http_error",
    "204 No Content": "http_error",
    "206 Partial Content": "http_error",
    "300 Multiple Choices": "http_error",
    "304 Not Modified": "http_error",
    "400 Bad Request": "http_error",
    "401 Unauthorized": "forbidden",
    "402 Payment Required": "forbidden",
    "403 Forbidden": "forbidden",
    "404 Not Found": "not_found",
    "405 Method Not Allowed": "http_error",
    "407 Proxy Authentication Required": "http_error",
    "408 Request Timeout": "http_error",
    "410 Gone": "not_found",
    "418 I'm a teapot": "http_error",
    "429 Too Many Requests": "throttled",
    "451 Unavailable For Legal Reasons": "forbidden",
    "500 Internal Server Error": "server_error",
    "502 Bad Gateway": "server_error",
    "503 Service Unavailable": "server_error",
    "504 Gateway Timeout": "server_error",
    "599 Odd": "server_error",
    "999 Request denied": "http_error",
}
FAR_DATE = "Fri, 31 Dec 2100 23:59:59 GMT"
WITHOUT_BODY = ("204", "304")
STATUSES = [
    case(
        f"status_{status[:3]}",
        answer(status, body=b"" if status[:3] in WITHOUT_BODY else BODY),
        failure,
    )
    for status, failure in OUTCOMES.items()
] + [
    case("retry_in_seconds", answer("429 Slow", "Retry-After: 60"), "throttled"),
    case(
        "retry_at_date",
        answer("503 Busy", "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT"),
        "throttled",
    ),
    case("retry_in_words", answer("429 Slow", "Retry-After: soon"), "throttled"),
    case("retry_in_ages", answer("429 Slow", f"Retry-After: {10**30}"), "throttled"),
    case("retry_before_now", answer("503 Busy", "Retry-After: -5"), "throttled"),
    case(
        "challenge",
        answer("401 Who", "WWW-Authenticate: Basic realm=x"),
        "forbidden",
    ),
]

TLS = [
    Case(Site("tls", picture(), tls="sound"), None),
    Case(Site("tls_kept", then_kept(picture()), tls="sound"), None),
    Case(Site("tls_self_signed", picture(), tls="self_signed"), "tls"),
    Case(Site("tls_expired", picture(), tls="expired"), "tls"),
    Case(Site("tls_other_host", picture(), tls="other_host"), "tls"),
    Case(Site("tls_1_0", picture(), tls="old"), "tls"),
    Case(Site("https_to_http", picture()), "tls", url="https://{here_ip}:{here_port}/picture.jpg"),
    case("http_to_https", b"\x15\x03\x03\0\2\2\x46", "protocol"),
]

CASES = [*CONNECTIONS, *FRAMING, *CHUNKS, *CODINGS, *STATUSES, *TLS]
