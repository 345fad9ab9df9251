"""Counts the newest hits of a query by day, domain, type and outcome, in bounded time.

Used by index_reader. All of it is one statement that yields one row: the lock of the
interpreter is released only once, so threads that search do not wait for each other.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence

from postfix_archive.search import index_schema
from postfix_archive.search.index_engine import Groups, Limits
from postfix_archive.search.index_query import Plan

STEPS = 20_000  # of SQLite between two looks at the clock: 5 ms, with MATCH up to 100
DAY = "strftime('%Y-%m-%d', m.arrived, 'unixepoch', 'localtime')"
MESSAGES = "grouped CROSS JOIN message m ON m.number = grouped.number"
DOMAINS = (
    "address.domain AS value, count(DISTINCT grouped.number) FROM grouped"
    " CROSS JOIN address_use ON address_use.message = grouped.number"
    " CROSS JOIN address ON address.number = address_use.address"
)
LABELS = (
    "grouped CROSS JOIN label_use ON label_use.message = grouped.number"
    " CROSS JOIN label ON label.number = label_use.label"
)
# For each field the SELECT of its values and numbers. Outcomes are bits.
SELECTS = {
    "date": f"{DAY} AS value, count(*) FROM {MESSAGES}",
    "from": f"{DOMAINS} WHERE roles & {index_schema.FROM}",
    "rcpt": f"{DOMAINS} WHERE roles & {index_schema.RECIPIENT}",
    "type": f"substr(name, 2) AS value, count(*) FROM {LABELS}"
    f" WHERE kind = {index_schema.LABELS.index('type')} AND name LIKE '.%'",
    "outcome": f"m.outcomes AS value, count(*) FROM {MESSAGES}",
}


def groups(
    db: sqlite3.Connection, plan: Plan, fields: Sequence[str], limits: Limits
) -> Groups:
    """Return the groups of what a plan finds in one database.

    Where the time does not suffice, none is counted, and ``has_more`` is true.
    """
    parts = [f"SELECT '{each}', {SELECTS[each]} GROUP BY value" for each in fields]
    statement = (
        "WITH found(number) AS MATERIALIZED ("
        f" SELECT {plan.number} FROM {plan.count_tables} WHERE {plan.where}"
        f" ORDER BY {plan.number} DESC LIMIT {limits.total + 1}),"
        " grouped(number) AS MATERIALIZED ("
        f" SELECT number FROM found ORDER BY number DESC LIMIT {limits.grouped})"
        " SELECT (SELECT count(*) FROM found), (SELECT count(*) FROM grouped),"
        " (SELECT json_group_array(json_array(field, value, number)) FROM ("
        f" SELECT '' AS field, '' AS value, 0 AS number WHERE 0"
        f" {' '.join(f'UNION ALL {each}' for each in parts)}))"
    )
    db.set_progress_handler(lambda: time.monotonic() > limits.deadline, STEPS)
    try:
        row = db.execute(statement, plan.values).fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return Groups(0, True, 0, {})
    finally:
        db.set_progress_handler(None, 0)
    total, grouped, numbers = row
    return Groups(
        min(total, limits.total), total > limits.total, grouped, _by_field(numbers)
    )


def _by_field(rows: str) -> dict[str, dict[str, int]]:
    numbers: dict[str, dict[str, int]] = {}
    for field, value, number in json.loads(rows):
        values = numbers.setdefault(field, {})
        for each in _outcomes(value) if field == "outcome" else [value]:
            values[each] = values.get(each, 0) + number
    return numbers


def _outcomes(bits: int) -> list[str]:
    return [name for name, bit in index_schema.OUTCOME_BITS.items() if bits & bit]


def add(parts: Iterable[Groups]) -> Groups:
    """Return the sum of some groups."""
    total = grouped = 0
    has_more = False
    numbers: dict[str, dict[str, int]] = {}
    for part in parts:
        total += part.total
        grouped += part.grouped
        has_more |= part.has_more
        for field, values in part.numbers.items():
            totals = numbers.setdefault(field, {})
            for value, number in values.items():
                totals[value] = totals.get(value, 0) + number
    return Groups(total, has_more, grouped, numbers)
