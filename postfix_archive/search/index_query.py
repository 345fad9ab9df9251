"""Runs a query on one index database, in an order, page by page.

Used by index_reader. FTS5 finds words newest first without sorting; a condition that
few messages meet is looked up first. Raises IndexFailed and IndexDamaged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from postfix_archive.search.index_database import unpack_offsets
from postfix_archive.search.index_engine import Hit, Order
from postfix_archive.search.query_condition import Condition, Value

# Messages that meet one condition and are then looked at one by one: FTS5 takes 50 µs
# for each to say whether it matches.
FEW, FEW_WITH_MATCH = 5000, 300
COLUMNS = (
    "m.number, m.archive_id, m.archived, m.arrived, m.sent, m.size, m.sha256,"
    " address.name, m.recipients, m.attachments, m.subject, m.offsets"
)


class Plan(NamedTuple):
    """FROM and WHERE of a query on one database; ``number`` is the message's column.

    ``count_tables`` are those that a count needs.
    """

    tables: str
    where: str
    values: list[Value]
    number: str
    count_tables: str


def make_plan(db: sqlite3.Connection, conditions: Sequence[Condition]) -> Plan | None:
    """Return how to find what meets all conditions, None if nothing can."""
    match = next((each for each in conditions if each.match), None)
    others = [each for each in conditions if each is not match]
    if any(each.sql == "0" for each in others):
        return None
    limit = FEW_WITH_MATCH if match else FEW
    for condition in [each for each in others if each.source]:
        numbers = _few_numbers(db, condition, limit)
        if numbers is not None:
            return _plan_of_numbers(numbers, match, others)
    parts = [each.sql for each in others]
    values = [value for each in others for value in each.values]
    if match is None:
        tables = "message m"
        return Plan(tables, _joined(parts), values, "m.number", tables)
    bounds = _bounds(db, others)
    if bounds is None:
        return None
    number = "message_text.rowid"
    parts = ["message_text MATCH ?", f"{number} BETWEEN ? AND ?", *parts]
    tables = f"message_text CROSS JOIN message m ON m.number = {number}"
    values = [match.match, *bounds, *values]
    count_tables = tables if others else "message_text"
    return Plan(tables, _joined(parts), values, number, count_tables)


def _few_numbers(
    db: sqlite3.Connection, condition: Condition, limit: int
) -> list[int] | None:
    """Return the numbers of what meets a condition, None if there are many."""
    query = f"SELECT * FROM ({condition.source}) LIMIT {limit + 1}"
    numbers = [row[0] for row in db.execute(query, condition.values)]
    return numbers if len(numbers) <= limit else None


def _plan_of_numbers(
    numbers: list[int], match: Condition | None, others: list[Condition]
) -> Plan | None:
    if not numbers:
        return None
    parts = [f"m.number IN ({', '.join(map(str, numbers))})"]
    values = [value for each in others for value in each.values]
    parts += [each.sql for each in others]
    if match:
        parts.append(
            "EXISTS (SELECT 1 FROM message_text WHERE message_text MATCH ?"
            " AND rowid = m.number)"
        )
        values.append(match.match)
    tables = "message m"
    return Plan(tables, _joined(parts), values, "m.number", tables)


def _bounds(
    db: sqlite3.Connection, conditions: list[Condition]
) -> tuple[int, int] | None:
    """Return the first and last number that can meet the conditions on times.

    They are a hint: messages arrive almost in the order in which they are archived.
    """
    first, last = 0, (1 << 63) - 1
    for each in conditions:
        if each.is_range:
            query = f"SELECT min(number), max(number) FROM ({each.source})"
            low, high = db.execute(query, each.values).fetchone()
            if low is None:
                return None
            first, last = max(first, low), min(last, high)
    return first, last


def _joined(parts: list[str]) -> str:
    return " AND ".join(parts) or "1"


def count(db: sqlite3.Connection, conditions: Sequence[Condition]) -> int:
    """Return the number of messages that meet all conditions."""
    if len(conditions) == 1 and conditions[0].is_range:
        # All that is needed is in the index of the column.
        query = f"SELECT count(*) FROM ({conditions[0].source})"
        return int(db.execute(query, conditions[0].values).fetchone()[0])
    plan = make_plan(db, conditions)
    if plan is None:
        return 0
    query = f"SELECT count(*) FROM {plan.count_tables} WHERE {plan.where}"
    return int(db.execute(query, plan.values).fetchone()[0])


def hits(
    db: sqlite3.Connection,
    plan: Plan,
    order: Order,
    *,
    archive: str,
    year: str,
    limit: int,
    after: tuple[str, tuple[Value, ...]],
) -> list[Hit]:
    """Return the first hits of a plan in an order, at most limit.

    after is a further condition in SQL, with its values, on what was shown before.
    """
    direction = "DESC" if order.is_descending else "ASC"
    columns = [plan.number]
    if order.column:
        columns = [f"+m.{order.column}", "+m.archived", *columns]
    query = (
        f"SELECT {COLUMNS} FROM {plan.tables}"
        f" LEFT JOIN address ON address.number = m.sender"
        f" WHERE {plan.where} AND {after[0].format(number=plan.number)}"
        f" ORDER BY {', '.join(f'{each} {direction}' for each in columns)}"
        f" LIMIT {limit}"
    )
    rows = db.execute(query, [*plan.values, *after[1]])
    return [_hit(archive, year, row) for row in rows]


def _hit(archive: str, year: str, row: tuple[Any, ...]) -> Hit:
    hit = Hit._make((archive, year, *row))
    return hit._replace(sha256=row[6].hex(), offsets=unpack_offsets(row[-1]))
