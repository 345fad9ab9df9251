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


MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
WEEKDAYS = b"Mon Tue Wed Thu Fri Sat Sun".split()
DAY_MINUTES = 24 * 60
TIME_LIMIT = 253402300800  # the year 10000, exclusive limit of dates


def format_rfc3339(seconds: float) -> str:
    """Return a Unix time as an RFC 3339 timestamp in UTC.

    A time before 1970 or after 9999 becomes the first or last of that range.
    """
    clamped = min(max(0, int(seconds)), TIME_LIMIT - 1)
    day = calendar_date(clamped // DAY_SECONDS)
    return "%04d-%02d-%02dT%02d:%02d:%02dZ" % (*day, *time_of_day(clamped))


def parse_rfc5322(text: bytes) -> int | None:
    """Return the Unix time of a date such as ``Sun, 22 Nov 2026 12:53:00 +0100 (CET)``.

    None if the text is not such a date (RFC 5322 3.3).
    """
    tokens = text.split()
    if tokens and tokens[0].endswith(b","):
        tokens = tokens[1:]  # the day of the week is optional
    try:
        day, month, year, time_text, zone, *comment = tokens
        if comment and not (len(comment) == 1 and comment[0][:1] == b"("):
            return None
        if len(zone) != 5 or zone[:1] not in (b"+", b"-") or not zone[1:].isdigit():
            return None
        hour, minute, second = time_text.split(b":")
        zone_minutes = int(zone[:3]) * 60 + int(zone[:1] + zone[3:5])  # minutes
        days = days_since_epoch(int(year), MONTHS.index(month) + 1, int(day))
        time = int(hour), int(minute), min(int(second), 59)
    except ValueError:
        return None
    if days is None or abs(zone_minutes) >= DAY_MINUTES or not _is_time_of_day(*time):
        return None
    seconds = (
        DAY_SECONDS * days + 3600 * time[0] + 60 * (time[1] - zone_minutes) + time[2]
    )
    return seconds if 0 <= seconds < TIME_LIMIT else None


def _is_time_of_day(hour: int, minute: int, second: int) -> bool:
    return 0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60


def format_rfc5322(seconds: int | None) -> bytes:
    """Return a Unix time as an RFC 5322 3.3 date in UTC; empty for None."""
    if seconds is None:
        return b""
    days = seconds // DAY_SECONDS
    year, month, day = calendar_date(days)
    weekday = WEEKDAYS[(days + 3) % 7]  # 1 January 1970 was a Thursday
    values = (weekday, day, MONTHS[month - 1], year, *time_of_day(seconds))
    return b"%s, %02d %s %04d %02d:%02d:%02d +0000" % values
