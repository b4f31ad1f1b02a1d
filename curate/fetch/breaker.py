"""When a host that fails, or a domain that refuses, is left alone, and when it is tried again."""

from typing import NamedTuple

LONGEST_COOL_DOWN_S = 300.0
SKEW_S = 2.0  # how far the clocks of two machines may lie apart
FIRST_SILENCE_S = 1.0  # after a 429 without Retry-After; doubles with the next one
FORGIVEN_S = 60.0  # after a silence, when the doubling begins anew
HOPELESS = 4  # silences with no other answer between: in the last nobody waits any more


class Health(NamedTuple):
    """What is known of a host: clock times in seconds, 0 where none applies."""

    failures: int = 0  # in a row
    trips: int = 0  # probes that failed since it last answered
    open_until: float = 0.0  # until then nobody asks it
    due_s: float = 0.0  # when its Crawl-delay allows the next request


class Traffic(NamedTuple):
    """What is known of a domain: clock times in seconds, 0 where none applies."""

    due_s: float = 0.0  # when the rate allows the next request
    silent_until: float = 0.0  # Retry-After
    throttles: int = 0  # 429s in a row
    last: int = 0  # who started last
    asker: int = 0  # who was refused a slot last
    asker_held: int = 0  # how many it had
    asked_s: float = 0.0
    refusals: int = 0  # silences since the domain last gave another answer


def cool_down_s(first_s: float, trips: int) -> float:
    """Return how long a host is left alone after so many failed probes: it doubles."""
    return float(min(first_s * 2.0 ** min(trips, 30), max(LONGEST_COOL_DOWN_S, first_s)))


def left_alone_s(health: Health, first_s: float, now: float) -> float:
    """Return for how long nobody asks the host; 0 when it may be probed.

    More than a whole cool-down cannot be: then the clock was set back, and the time is over.
    """
    left = health.open_until - now
    return left if 0 < left <= cool_down_s(first_s, health.trips) + SKEW_S else 0.0


def after_failure(health: Health, most: int, first_s: float, now: float, probe: bool) -> Health:
    """Return a host's health after one more failure, of a probe or of any other request."""
    failures = health.failures + 1
    if probe:
        trips = min(health.trips + 1, 1000)
        return Health(failures, trips, now + cool_down_s(first_s, trips), health.due_s)
    if failures == most:  # what was under way as it opened does not prolong it
        return Health(failures, 0, now + cool_down_s(first_s, 0), health.due_s)
    return Health(failures, health.trips, health.open_until, health.due_s)


def after_answer(health: Health) -> Health:
    """Return a host's health after an answer of any kind: it is up."""
    return Health(due_s=health.due_s)


def silenced(traffic: Traffic, asked_s: float | None, longest_s: float, now: float) -> Traffic:
    """Return a domain's traffic after one more 429; ``asked_s`` is its Retry-After."""
    left_s = traffic.silent_until - now
    throttles, refusals = traffic.throttles, traffic.refusals
    if not 0.0 < left_s <= longest_s + SKEW_S:  # together they count once
        throttles = min(throttles + 1, 30) if -left_s < FORGIVEN_S else 1
        refusals = min(refusals + 1, 30)
        left_s = 0.0
    if asked_s is None:
        asked_s = FIRST_SILENCE_S * 2.0 ** (throttles - 1)
    silence_s = max(left_s, min(max(asked_s, 0.0), longest_s))
    return traffic._replace(silent_until=now + silence_s, throttles=throttles, refusals=refusals)
