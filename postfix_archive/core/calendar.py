"""Converts between Unix time and dates in UTC, without importing datetime.

Used by received. Proleptic Gregorian calendar. Importing datetime would cost a
transport process 1.3 ms. The years of the computation begin in March, so that a leap
day is the last day of its year, and an era of 400 years always has the same number of
days.
"""

from __future__ import annotations

DAY_SECONDS = 86400  # seconds (POSIX time has no leap seconds)
ERA_DAYS = 146097  # days in 400 years
EPOCH_DAYS = 719468  # days from 1 March of the year 0 to 1 January 1970
LAST_YEAR = 9999  # RFC 5322 and RFC 3339 dates have four digits


def calendar_date(days: int) -> tuple[int, int, int]:
    """Return (year, month, day) of a number of days since 1 January 1970."""
    era, day = divmod(days + EPOCH_DAYS, ERA_DAYS)
    year = (day - day // 1460 + day // 36524 - day // (ERA_DAYS - 1)) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153  # March is 0
    day -= (153 * month + 2) // 5
    is_next_year = month >= 10  # January and February belong to the next year
    return (
        400 * era + year + is_next_year,
        month - 9 if is_next_year else month + 3,
        day + 1,
    )


def days_since_epoch(year: int, month: int, day: int) -> int | None:
    """Return the days from 1 January 1970 to a date, None if the date is invalid.

    Valid years are 1 to 9999.
    """
    if not (1 <= year <= LAST_YEAR and 1 <= month <= 12):
        return None
    is_previous_year = month < 3
    era, year_of_era = divmod(year - is_previous_year, 400)
    day_of_era = (153 * (month + 9 if is_previous_year else month - 3) + 2) // 5
    day_of_era += 365 * year_of_era + year_of_era // 4 - year_of_era // 100
    epoch_days = ERA_DAYS * era + day_of_era + day - 1 - EPOCH_DAYS
    return epoch_days if calendar_date(epoch_days) == (year, month, day) else None


def time_of_day(seconds: int) -> tuple[int, int, int]:
    """Return (hour, minute, second), in UTC, of a Unix time."""
    minutes, second = divmod(seconds % DAY_SECONDS, 60)
    return minutes // 60, minutes % 60, second
