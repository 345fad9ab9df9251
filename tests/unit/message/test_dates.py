"""Claims about dates: they are those of datetime, on every day that there is."""

from __future__ import annotations

import datetime
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postfix_archive.message import dates, received_header

FIRST = datetime.date(1970, 1, 1).toordinal()
LAST = datetime.date(9999, 12, 31).toordinal() - FIRST
MONTHS = [month.decode() for month in dates.MONTHS]


def earlier_read_date(text: bytes) -> int | None:
    """read_date() as it was while datetime was there to ask."""
    fields = text.split()
    if fields and fields[0].endswith(b","):
        fields = fields[1:]
    try:
        day, month, year, clock, zone, *comment = fields
        if comment and not (len(comment) == 1 and comment[0][:1] == b"("):
            return None
        if len(zone) != 5 or zone[:1] not in (b"+", b"-") or not zone[1:].isdigit():
            return None
        hour, minute, second = clock.split(b":")
        shift = int(zone[:3]) * 60 + int(zone[:1] + zone[3:5])
        if abs(shift) >= 24 * 60:
            return None
        local = datetime.datetime(
            int(year),
            dates.MONTHS.index(month) + 1,
            int(day),
            int(hour),
            int(minute),
            min(int(second), 59),
            tzinfo=datetime.timezone.utc,
        )
    except (ValueError, OverflowError):
        return None
    seconds = int(local.timestamp()) - shift * 60
    return seconds if 0 <= seconds < dates.TIME_LIMIT else None


def moment(seconds: int) -> datetime.datetime:
    """The time as datetime has it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def assert_date_of_day(number: int) -> None:
    expected = datetime.date.fromordinal(number + FIRST)
    date = (expected.year, expected.month, expected.day)
    assert dates.calendar_date(number) == date
    assert dates.days_since_epoch(*date) == number


def test_each_day_from_the_year_1_to_9999_has_its_date() -> None:
    for number in range(
        1 - FIRST, LAST + 1, 7
    ):  # a week: 7 and 400 years' days share 7
        assert_date_of_day(number)


@pytest.mark.parametrize("year", [1, 4, 100, 400, 1600, 1900, 1970, 1999, 2000, 2024])
def test_each_day_around_a_turn_of_the_year_or_of_february(year: int) -> None:
    first = datetime.date(year, 1, 1).toordinal() - FIRST
    for number in range(first, first + 366):
        assert_date_of_day(number)


@given(st.integers(-3, 10003), st.integers(-1, 14), st.integers(-1, 33))
@example(1900, 2, 29)
@example(2000, 2, 29)
@example(9999, 12, 31)
@example(10000, 1, 1)
@example(0, 12, 31)
@example(2026, 11, 0)
@example(2026, 11, 31)
@example(10**5000, 1, 1)
@example(2026, 1, 10**5000)
def test_a_day_that_there_is_not_is_none(year: int, month: int, day: int) -> None:
    try:
        expected = datetime.date(year, month, day).toordinal() - FIRST
    except (ValueError, OverflowError):
        assert dates.days_since_epoch(year, month, day) is None
    else:
        assert dates.days_since_epoch(year, month, day) == expected


@given(st.integers(0, dates.TIME_LIMIT - 1))
@example(0)
@example(dates.TIME_LIMIT - 1)
@example(951782399)
@example(951868800)
def test_times_are_written_as_datetime_writes_them(seconds: int) -> None:
    expected = moment(seconds)
    assert dates.format_rfc3339(seconds) == expected.strftime("%Y-%m-%dT%H:%M:%SZ")
    day = expected.strftime("%a, %d %b %Y %H:%M:%S +0000")  # tests run in the C locale
    assert dates.format_rfc5322(seconds).decode() == day
    origin = received_header.Origin(b"h", b"q", 0)
    origin.arrival = seconds
    record_id = received_header.archive_id(origin, sender=b"", sha256=b"", now=0)
    assert record_id[:9] == expected.strftime("%Y%m%d-")


numbers = st.one_of(
    st.integers(-2, 70).map(str),
    st.integers(0, 99).map("{:02}".format),
    st.sampled_from(["", "x", "+1", "-0", "1_0", "007", "1" * 4301, "9" * 30, "٣"]),
)
years = st.one_of(st.integers(-1, 10001).map(str), st.integers(0, 99).map(str), numbers)
zones = st.one_of(
    st.integers(-9999, 9999).map("{:+05}".format),
    st.sampled_from(
        ["+0000", "-0000", "0000", "+000", "+00000", "GMT", "+ 100", "+-100"]
    ),
)
date_texts = st.builds(
    "{}{} {} {} {}:{}:{} {}{}".format,
    st.sampled_from(["", "Sun, ", ", ", "Sun ", " Mon,  "]),
    numbers,
    st.sampled_from([*MONTHS, "jan", "", "Sept"]),
    years,
    numbers,
    numbers,
    numbers,
    zones,
    st.sampled_from(["", " (CET)", " (", " CET", " (a b)"]),
)


@given(date_texts)
@example("29 Feb 1900 00:00:00 +0000")
@example("29 Feb 2000 23:59:60 -2359")
@example("31 Dec 9999 23:59:59 +0000")
@example("31 Dec 9999 23:59:59 -0001")
@example("1 Jan 1970 00:00:00 +0001")
@example("1 Jan 99 00:00:00 +0000")
@example("1 Jan 2026 00:00:-1 +0000")
@example("1 Jan 2026 00:00:00 +9999")
def test_the_same_texts_are_dates_and_the_same_ones(text: str) -> None:
    assert dates.parse_rfc5322(text.encode()) == earlier_read_date(text.encode())


def test_ten_thousand_dates_read_as_datetime_reads_them() -> None:
    generator = random.Random(6)
    for _ in range(10_000):
        day = generator.choice(["00", "01", "28", "29", "30", "31", "32"])
        month = generator.choice(MONTHS)
        year = generator.choice(
            [generator.randint(0, 10000), generator.randint(1960, 2100)]
        )
        hour, minute, second = (generator.randint(-1, top) for top in (25, 61, 61))
        zone = f"{generator.randint(-2500, 2500):+05}"
        text = f"{day} {month} {year} {hour}:{minute}:{second} {zone}".encode()
        assert dates.parse_rfc5322(text) == earlier_read_date(text), text


def test_an_unknown_time_is_written_as_nothing() -> None:
    assert dates.format_rfc5322(None) == b""
