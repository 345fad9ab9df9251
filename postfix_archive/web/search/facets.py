"""The chart over time and the lists beside the hits, each value with a query for it.

Used by search_page. Made of what VisibleArchives.groups() returns. Pure.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from postfix_archive.search.index_engine import Groups
from postfix_archive.web.language import gettext as _
from postfix_archive.web.search import query_form

VALUES = 8  # of a list
DAYS, MONTHS = 45, 48  # more than these are shown as months, as years
BARS = 60
WIDTH, HEIGHT = 12, 64  # of a bar and of the chart, in units of the SVG


class Value(NamedTuple):
    """A value, how many messages have it, and the query that finds these."""

    text: str
    number: int
    query: str


class Facet(NamedTuple):
    """A list of values."""

    title: str
    values: list[Value]


class Bar(NamedTuple):
    """A bar of the chart: a day, month or year; place and size in units of the SVG."""

    value: Value
    x: int
    y: int
    height: int


class Chart(NamedTuple):
    """The messages over time."""

    bars: list[Bar]
    first: str
    last: str
    width: int
    height: int


def facets(groups: Groups, query: str) -> list[Facet]:
    """Return the lists that have values."""
    years: dict[str, int] = {}
    for day, number in _days(groups).items():
        years[day[:4]] = years.get(day[:4], 0) + number
    numbers = {**groups.numbers, "date": years}
    made = (
        Facet(title, [*_values(numbers.get(field, {}), query, field)])
        for field, title in (
            ("archive", _("Archive")),
            ("date", _("Year")),
            ("from", _("From")),
            ("rcpt", _("Recipient")),
            ("type", _("Attachment")),
            ("outcome", _("Outcome")),
        )
    )
    return [each for each in made if each.values and not _is_only_archive(each)]


def _is_only_archive(facet: Facet) -> bool:
    return facet.title == _("Archive") and len(facet.values) == 1


def _values(numbers: Mapping[str, int], query: str, field: str) -> Iterator[Value]:
    pairs = sorted(numbers.items(), key=lambda pair: (-pair[1], pair[0]))
    for text, number in [each for each in pairs if each[0]][:VALUES]:
        condition = query_form.term(field, _written(field, text))
        yield Value(text, number, query_form.add(query, condition))


def _written(field: str, text: str) -> str:
    """Return a value as the query language has it."""
    return {"from": "@", "rcpt": "@", "type": "."}.get(field, "") + text


def _days(groups: Groups) -> dict[str, int]:
    """Return the numbers by day; what is no day of four digits of a year is none."""
    days = groups.numbers.get("date", {})
    return {day: number for day, number in days.items() if day and len(day) == 10}


def chart(groups: Groups, query: str) -> Chart | None:
    """Return the chart, None if all messages are of one day."""
    days = _days(groups)
    if len(days) < 2:
        return None
    first, last = min(days), max(days)
    length, units = _units(first, last)
    numbers = dict.fromkeys(units[-BARS:], 0)
    for day, number in days.items():
        if day[:length] in numbers:
            numbers[day[:length]] += number
    highest = max(numbers.values())
    bars = []
    for place, (unit, number) in enumerate(numbers.items()):
        height = -(-number * HEIGHT // highest) if number else 0
        value = Value(unit, number, query_form.add(query, f"date:{unit}"))
        bars.append(Bar(value, place * WIDTH, HEIGHT - height, height))
    return Chart(bars, bars[0].value.text, unit, len(bars) * WIDTH, HEIGHT)


def _units(first: str, last: str) -> tuple[int, list[str]]:
    """Return how long the names of the units are, and all from first to last."""
    start, end = (datetime.date.fromisoformat(each) for each in (first, last))
    days = (end - start).days + 1
    if days <= DAYS:
        return 10, [str(start + datetime.timedelta(each)) for each in range(days)]
    months = [
        f"{month // 12:04d}-{month % 12 + 1:02d}"
        for month in range(start.year * 12 + start.month - 1, end.year * 12 + end.month)
    ]
    if len(months) <= MONTHS:
        return 7, months
    return 4, [f"{year:04d}" for year in range(start.year, end.year + 1)]
