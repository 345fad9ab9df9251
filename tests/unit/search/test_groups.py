"""Claims about groups: each number is that of the query which has the value added."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from postfix_archive.search import index_groups
from postfix_archive.search.index_engine import (
    GROUP_FIELDS,
    ORDERS,
    REVERSED,
    Groups,
    Limits,
)
from postfix_archive.search.search import Search

from unit.search.index_helpers import settings_of

QUERIES = ("*", "contract", "contract OR friday", "-contract", "from:@example.org")
CONDITIONS = {
    "archive": "archive:{}",
    "date": "date:{}",
    "from": "from:@{}",
    "rcpt": "rcpt:@{}",
    "type": 'type:".{}"',
    "outcome": "outcome:{}",
}


def groups(store: Path, query: str, total: int = 1000, grouped: int = 1000) -> Groups:
    limits = Limits(total, grouped, time.monotonic() + 3600)
    return Search(settings_of(store), query).groups(GROUP_FIELDS, limits)


@pytest.mark.parametrize("query", QUERIES)
def test_each_number_is_that_of_the_narrower_query(stored: Path, query: str) -> None:
    found = groups(stored, query)
    assert (found.total, found.has_more) == (
        Search(settings_of(stored), query).count(),
        False,
    )
    assert found.grouped == found.total
    assert sum(found.numbers["date"].values()) == found.total
    for field, values in found.numbers.items():
        for value, number in values.items():
            narrower = f"{query} {CONDITIONS[field].format(value)}"
            count = Search(settings_of(stored), narrower).count()
            assert (narrower, number) == (narrower, count)


def test_limits(stored: Path) -> None:
    found = groups(stored, "*", total=10, grouped=4)
    assert found.has_more
    assert found.total < Search(settings_of(stored), "*").count()
    assert sum(found.numbers["date"].values()) == found.grouped <= found.total


def test_time_limit(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_groups, "STEPS", 1)
    limits = Limits(1000, 1000, time.monotonic())
    found = Search(settings_of(stored), "*").groups(GROUP_FIELDS, limits)
    assert found == Groups(0, True, 0, {})


@pytest.mark.parametrize("sort", ORDERS)
def test_opposite_orders(stored: Path, sort: str) -> None:
    settings = settings_of(stored)
    there = [*Search(settings, "*", sort=sort).hits()]
    assert [*Search(settings, "*", sort=REVERSED[sort]).hits()] == there[::-1]
