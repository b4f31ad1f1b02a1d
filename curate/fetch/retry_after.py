"""The Retry-After header: seconds, or a date."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"\d{1,15}(\.\d*)?", re.ASCII)


def retry_after_s(value: str | None, now: float) -> float | None:
    """Return in how many seconds from ``now`` (Unix time) to ask again; None if it says nothing.

    A date that is past gives 0. Source: RFC 9110, section 10.2.3.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000": the date is UTC, its zone unknown
            moment = moment.replace(tzinfo=UTC)
        return max(moment.timestamp() - now, 0.0)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
