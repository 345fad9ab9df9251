"""Values in a query: dates as people type them, ages, sizes.

Used by query_fields. Pure but for the local time zone. Raises ValueError with a text
for the user.
"""

from __future__ import annotations

import datetime
import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dateutil.relativedelta import relativedelta

DAY_WORDS = {"today": 0, "yesterday": 1}
UNITS = {"h": "hours", "d": "days", "w": "weeks", "m": "months", "y": "years"}
AGE = re.compile(r"([0-9]{1,4})([hdwmy])")
SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?([kmgt]?)b?", re.IGNORECASE)
FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
YEAR_OR_MONTH = re.compile(r"([0-9]{4})(?:[-/.]([0-9]{1,2}))?")
# Two defaults that differ in each part: a part that is the same in both was typed.
DEFAULTS = (datetime.datetime(2000, 1, 1), datetime.datetime(2004, 2, 2, 1, 1, 1))
DATE_LENGTH = 100  # characters


def parse_date(text: str, now: float) -> tuple[int, int]:
    """Return first second and end (exclusive) of a date, in Unix time.

    A year, a month, a day, or an hour, minute or second, in the local time zone unless
    one is given. A date without a year is the last one before now.
    """
    try:
        start, step = _parse_date(text, now)
        end = start + step
        return int(start.timestamp()), int(end.timestamp())
    except (ArithmeticError, LookupError, TypeError, ValueError, Warning):
        raise ValueError(
            f"{text!r} is not a date; write 2026-03-31, 2026-03 or 2026"
        ) from None


def _parse_date(text: str, now: float) -> tuple[datetime.datetime, relativedelta]:
    import dateutil.parser  # takes 10 ms, which a query without a date does not need

    text = text.strip()[:DATE_LENGTH]
    if text.lower() in DAY_WORDS:
        day = datetime.datetime.fromtimestamp(now).date()
        start = datetime.datetime.combine(day, datetime.time())
        return start - _step(days=DAY_WORDS[text.lower()]), _step(days=1)
    if match := YEAR_OR_MONTH.fullmatch(text):
        start = datetime.datetime(int(match[1]), int(match[2] or 1), 1)
        return start, _step(months=1) if match[2] else _step(years=1)
    is_day_first = "." in text and not re.match(r"[0-9]{4}", text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a time zone that it does not know
        first, second = (
            dateutil.parser.parse(text, default=default, dayfirst=is_day_first)
            for default in DEFAULTS
        )
    if first.day != second.day:
        raise ValueError("no day")
    if first.year != second.year:
        first = _last_before(first, now)
    if first.hour != second.hour:
        return first, _step(days=1)
    if first.minute != second.minute:
        return first, _step(hours=1)
    if first.second != second.second:
        return first, _step(minutes=1)
    return first.replace(microsecond=0), _step(seconds=1)


def _last_before(date: datetime.datetime, now: float) -> datetime.datetime:
    today = datetime.datetime.fromtimestamp(now, date.tzinfo)
    date = date.replace(year=today.year)
    return date if date <= today else date - _step(years=1)


def _step(**parts: int) -> relativedelta:
    from dateutil.relativedelta import relativedelta

    return relativedelta(**parts)  # type: ignore[arg-type]


def parse_age(text: str, now: float) -> int:
    """Return the Unix time that was ``7d`` (days; or h, w, m, y) before now."""
    match = AGE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not an age; write 12h, 7d, 2w, 6m or 1y")
    age = _step(**{UNITS[match[2]]: int(match[1])})
    try:
        return int((datetime.datetime.fromtimestamp(now) - age).timestamp())
    except (ValueError, OverflowError):
        return 0


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 500, 20k, 5M or 1.5G; 1k is 1000 bytes."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 20k, 5M or 1.5G")
    factor = FACTORS[match[3].lower()]
    return int(match[1]) * factor + int(float(f"0.{match[2] or 0}") * factor)
