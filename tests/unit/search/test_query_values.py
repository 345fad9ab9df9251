"""Claims about dates, ages and sizes as people type them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.search import query_values

NOON = datetime(2026, 5, 15, 12, 0)


@pytest.fixture(autouse=True, params=["UTC", "Europe/Berlin", "America/New_York"])
def time_zone(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-03-31", (2026, 3, 31), (2026, 4, 1)),
        ("2026/03/31", (2026, 3, 31), (2026, 4, 1)),
        ("31.3.2026", (2026, 3, 31), (2026, 4, 1)),
        ("3.4.2026", (2026, 4, 3), (2026, 4, 4)),
        ("3/4/2026", (2026, 3, 4), (2026, 3, 5)),
        ("31 Mar 2026", (2026, 3, 31), (2026, 4, 1)),
        ("March 31, 2026", (2026, 3, 31), (2026, 4, 1)),
        ("31 Mar", (2026, 3, 31), (2026, 4, 1)),
        ("24 Dec", (2025, 12, 24), (2025, 12, 25)),
        ("2026-03", (2026, 3, 1), (2026, 4, 1)),
        ("2026", (2026, 1, 1), (2027, 1, 1)),
        ("today", (2026, 5, 15), (2026, 5, 16)),
        ("Yesterday", (2026, 5, 14), (2026, 5, 15)),
        ("2026-03-31 14:30", (2026, 3, 31, 14, 30), (2026, 3, 31, 14, 31)),
        ("2026-03-31 14:30:05", (2026, 3, 31, 14, 30, 5), (2026, 3, 31, 14, 30, 6)),
        ("2026-02-29", None, None),
        ("soon", None, None),
        ("March", None, None),
        ("", None, None),
    ],
)
def test_a_date_is_a_period(
    text: str, start: tuple[int, ...] | None, end: tuple[int, ...]
) -> None:
    if start is None:
        with pytest.raises(ValueError, match="is not a date"):
            query_values.parse_date(text, NOON.timestamp())
    else:
        found = query_values.parse_date(text, NOON.timestamp())
        assert found == tuple(map(unix_time, (start, end)))


def unix_time(parts: tuple[int, ...]) -> int:
    """The Unix time of year, month, day and so on in the local time zone."""
    year, month, day, *rest = parts
    return int(datetime(year, month, day, *rest).timestamp())  # type: ignore[arg-type]


def test_a_time_zone_counts() -> None:
    first, _ = query_values.parse_date("2026-03-31T00:00:00Z", NOON.timestamp())
    assert first == 1774915200


@given(text=st.text(max_size=25) | st.text("0123456789-/.: TZ+", max_size=20))
def test_any_text_is_a_date_or_refused(text: str) -> None:
    for parse in (query_values.parse_date, query_values.parse_age):
        try:
            parse(text, NOON.timestamp())
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", datetime(2026, 5, 15, 0)),
        ("7d", datetime(2026, 5, 8, 12)),
        ("2w", datetime(2026, 5, 1, 12)),
        ("3m", datetime(2026, 2, 15, 12)),
        ("1Y", datetime(2025, 5, 15, 12)),
    ],
)
def test_an_age_is_before_now(text: str, expected: datetime) -> None:
    assert query_values.parse_age(text, NOON.timestamp()) == expected.timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500", 500), ("20k", 20_000), ("5M", 5_000_000), ("1.5g", 1_500_000_000)],
)
def test_a_size_may_have_a_unit(text: str, expected: int) -> None:
    assert query_values.parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "k", "5X", "-1", "1e5", "٣"])
def test_another_text_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        query_values.parse_size(text)
