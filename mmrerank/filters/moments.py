"""Dates as filters see them: text in one of a few forms, of which the clock counts and no time zone.

A date that lacks its month, day or time is a span in a filter (``2024`` is all of that year) and its first
moment in a record. Moments are compared as text of 19 characters, ``2024-06-01T12:30:00``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

FORMS = "2024, 2024-06, 2024-06-01 or 2024-06-01T12:30"
_FIRST = "0000-01-01T00:00:00"
_DATE = re.compile(
    r"([12]\d{3})(?:([-:])(0[1-9]|1[0-2])(?:\2(0[1-9]|[12]\d|3[01])"
    r"(?:[T ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d|60)(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)?)?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Span:
    """From ``low`` up to, and without, ``high``."""

    low: str
    high: str

    def holds(self, operator: str, moment: str) -> bool:
        """Whether ``moment`` stands so to the span; ``=`` is within it.

        >>> span("2024-06").holds("<=", "2024-06-30T23:59:59")
        True
        """
        match operator:
            case "<":
                return moment < self.low
            case "<=":
                return moment < self.high
            case ">":
                return moment >= self.high
            case ">=":
                return moment >= self.low
        return self.low <= moment < self.high


def moment(text: object) -> str | None:
    """The first moment of a date, as 19 characters; None for what is no date. Years are 1000 to 2999.

    >>> moment("2024:06:01 12:30:00"), moment("2024"), moment("soon")
    ('2024-06-01T12:30:00', '2024-01-01T00:00:00', None)
    """
    if not isinstance(text, str) or len(text) < 4 or _DATE.fullmatch(text) is None:
        return None
    if len(text) < 10:
        return text.replace(":", "-") + _FIRST[len(text) :]
    time = text[11:19]
    return f"{text[:4]}-{text[5:7]}-{text[8:10]}T{time}{_FIRST[11 + len(time) :]}"


def span(text: str) -> Span:
    """What a date of a filter covers. Raises `ValueError` for what is none, or none of the calendar."""
    found = _DATE.fullmatch(text)
    low = moment(text)
    if found is None or low is None:
        raise ValueError(f"a date is written {FORMS}")
    first = datetime.fromisoformat(low)  # raises for February 30
    year, _, month, day, hour, _, second = found.groups()
    if second:
        after = first + timedelta(seconds=1)
    elif hour:
        after = first + timedelta(minutes=1)
    elif day:
        after = first + timedelta(days=1)
    elif month:
        after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    else:
        after = first.replace(year=int(year) + 1)
    return Span(low=low, high=after.isoformat())


def span_of(text: object) -> Span | None:
    """`span`, and None for what is no date."""
    try:
        return span(text) if isinstance(text, str) else None
    except ValueError:
        return None


def year_of(number: object) -> Span | None:
    """The span of a whole number that can be a year, else None."""
    if isinstance(number, int) and not isinstance(number, bool) and 1000 <= number <= 2999:
        return span(str(number))
    return None
