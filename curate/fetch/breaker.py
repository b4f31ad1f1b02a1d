"""When a host that failed again and again is left alone, and when it is tried again."""

from typing import NamedTuple

LONGEST_COOL_DOWN_S = 300.0
SKEW_S = 2.0  # how far the clocks of two machines may lie apart


class Health(NamedTuple):
    """What is known of a host: clock times in seconds, 0 where none applies."""

    failures: int = 0  # in a row
    trips: int = 0  # probes that failed since it last answered
    open_until: float = 0.0  # until then nobody asks it
    due_s: float = 0.0  # when its Crawl-delay allows the next request


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
