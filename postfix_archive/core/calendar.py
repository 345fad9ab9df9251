"""Converts between Unix time and dates in UTC, without importing datetime.

Used by received. Proleptic Gregorian calendar. Importing datetime would cost a
transport process 1.3 ms. The years of the computation begin in March, so that a leap
day is the last day of its year, and an era of 400 years always has the same number of
days.
"""

from __future__ import annotations

DAY = 86400  # seconds (POSIX time has no leap seconds)
ERA = 146097  # days in 400 years
EPOCH = 719468  # days from 1 March of the year 0 to 1 January 1970
LAST_YEAR = 9999  # RFC 5322 and RFC 3339 dates have four digits


def date(days: int) -> tuple[int, int, int]:
    """Return (year, month, day) of a number of days since 1 January 1970."""
    era, day = divmod(days + EPOCH, ERA)
    year = (day - day // 1460 + day // 36524 - day // (ERA - 1)) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153  # March is 0
    day -= (153 * month + 2) // 5
    later = month >= 10  # January and February belong to the next year
    return 400 * era + year + later, month - 9 if later else month + 3, day + 1


def days(year: int, month: int, day: int) -> int | None:
    """Return the days from 1 January 1970 to a date, None if the date is invalid.

    Valid years are 1 to 9999.
    """
    if not (1 <= year <= LAST_YEAR and 1 <= month <= 12):
        return None
    earlier = month < 3
    era, of_era = divmod(year - earlier, 400)
    before = (153 * (month + 9 if earlier else month - 3) + 2) // 5
    before += 365 * of_era + of_era // 4 - of_era // 100
    found = ERA * era + before + day - 1 - EPOCH
    return found if date(found) == (year, month, day) else None


def clock(seconds: int) -> tuple[int, int, int]:
    """Return (hour, minute, second), in UTC, of a Unix time."""
    minutes, second = divmod(seconds % DAY, 60)
    return minutes // 60, minutes % 60, second
