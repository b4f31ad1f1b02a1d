"""Every way in which a pair's picture can fail, and whether a later try can succeed."""

from dataclasses import dataclass
from typing import Any

NOT_DOWNLOADED = "failed_to_download"
NOT_RESIZED = "failed_to_resize"


@dataclass(frozen=True)
class Failure:
    """One kind of failure: img2dataset's status for it, and whether to try again later."""

    status: str
    retryable: bool
    meaning: str


def _final(meaning: str) -> Failure:
    return Failure(NOT_DOWNLOADED, False, meaning)


def _again(meaning: str) -> Failure:
    return Failure(NOT_DOWNLOADED, True, meaning)


def _picture(meaning: str) -> Failure:
    return Failure(NOT_RESIZED, False, meaning)


FAILURES: dict[str, Failure] = {
    "bad_url": _final("no URL by WHATWG rules, or not http or https"),
    "credentials": _final("a user name or password in the URL"),
    "private_address": _final("the host, or one it redirects to, is not on the public internet"),
    "dns": _again("the host has no address, or the resolver did not answer"),
    "connect": _again("nobody listens, or there is no way there"),
    "tls": _final("the certificate or the handshake is not in order"),
    "timeout": _again("not all of it came before the deadline"),
    "broken_off": _again("the connection ended before the answer did"),
    "protocol": _final("the answer is not HTTP"),
    "redirects": _final("too many redirects, or one that leads nowhere"),
    "not_found": _final("404 or 410"),
    "forbidden": _final("401, 402, 403 or 451"),
    "throttled": _again("429, or 503 with Retry-After"),
    "server_error": _again("5xx"),
    "http_error": _final("any other answer than 200"),
    "too_large": _final("more bytes than max_bytes, as sent or decompressed"),
    "robots": _final("the host's robots.txt forbids it"),
    "robots_unknown": _again("robots.txt could not be read, which forbids everything for now"),
    "opt_out": _final("an X-Robots-Tag header forbids it"),
    "host_down": _again("the host failed so often in a row that it was left alone"),
    "hash_mismatch": _final("the bytes are not those that the pool's hash is of"),
    "not_a_picture": _picture("the bytes are of no picture format: a page, a text, nothing"),
    "unsupported": _picture("a picture format that is not read, or a feature of one"),
    "broken_picture": _picture("a picture that is cut off or damaged"),
    "too_many_pixels": _picture("the header promises more pixels than max_pixels"),
    "too_small": _picture("the shorter side is less than min_image_size"),
    "area": _picture("more pixels than max_image_area"),
    "aspect_ratio": _picture("the sides' ratio is more than max_aspect_ratio"),
    "slow_picture": Failure(NOT_RESIZED, True, "the decoder was still at work at the deadline"),
    "crash": _picture("the decoder died of it twice, in a process of its own"),
}
"""Failures by name, in the order in which a fetch meets them."""


def failed_row(name: str, message: str | None, opt_out: str | None = None) -> dict[str, Any]:
    """Return the columns of a URL that failed in a way that FAILURES knows."""
    failure = FAILURES[name]
    return {
        "status": failure.status,
        "failure": name,
        "retryable": failure.retryable,
        "error_message": message or failure.meaning,
        "opt_out": opt_out,
    }
