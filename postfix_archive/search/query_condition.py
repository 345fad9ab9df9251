"""Conditions on a message as SQL, and how they combine.

Used by query_fields, which makes them, and by index_query, which runs them. Pure. In
the SQL ``m`` is a row of message; no value of a query is part of the text of an SQL
statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MATCH_SQL = "m.number IN (SELECT rowid FROM message_text WHERE message_text MATCH ?)"


Value = str | int | bytes


@dataclass(frozen=True)
class Condition:
    """A condition on a message.

    ``sql`` is a Boolean expression with these ``values``. ``match`` is the expression
    of FTS5 that says the same, ``excluded`` one for what FTS5 must not match,
    ``source`` a SELECT of the numbers of all messages that meet it, with the same
    values; each is "" if there is none. ``is_range`` is true for a range of times or
    sizes.
    """

    sql: str
    values: tuple[Value, ...] = ()
    source: str = ""
    match: str = ""
    excluded: str = ""
    is_range: bool = False


ALWAYS, NEVER = Condition("1"), Condition("0")


def of_match(match: str) -> Condition:
    """Return the condition that FTS5 matches an expression."""
    return Condition(MATCH_SQL, (match,), match=match)


def of_source(source: str, *values: Value) -> Condition:
    """Return the condition that this SELECT has the number of the message."""
    return Condition(f"m.number IN ({source})", values, source=source)


def between(column: str, low: int | None, high: int | None) -> Condition:
    """Return the condition that a column is from low to high; None means no limit."""
    limits = [(">=", low), ("<=", high)]
    parts = [(sign, value) for sign, value in limits if value is not None]
    # The plus sign keeps SQLite from sorting all that are in a wide range.
    sql = " AND ".join(f"+m.{column} {sign} ?" for sign, _ in parts)
    where = " AND ".join(f"{column} {sign} ?" for sign, _ in parts)
    return Condition(
        f"({sql or '1'})",
        tuple(value for _, value in parts),
        source=f"SELECT number FROM message WHERE {where}" if parts else "",
        is_range=bool(parts),
    )


def all_of(conditions: Sequence[Condition]) -> list[Condition]:
    """Return the least conditions that together say the same as all of these.

    What FTS5 can find becomes one condition.
    """
    matches = [each.match for each in conditions if each.match]
    excluded = [each.excluded for each in conditions if each.excluded]
    others = [each for each in conditions if not each.match]
    if not matches:
        return others
    match = _joined("AND", matches)
    if excluded:
        match = f"({match}) NOT ({_joined('OR', excluded)})"
        others = [each for each in others if not each.excluded]
    return [of_match(match), *others]


def combine(conditions: Sequence[Condition]) -> Condition:
    """Return the one condition that all of these are met."""
    parts = all_of(conditions)
    if len(parts) == 1:
        return parts[0]
    return Condition(_joined("AND", [each.sql for each in parts]), _values(parts))


def any_of(conditions: Sequence[Condition]) -> Condition:
    """Return the condition that one of these is met."""
    if not conditions:
        return NEVER
    if all(each.match for each in conditions):
        return of_match(_joined("OR", [each.match for each in conditions]))
    sources = [each.source for each in conditions]
    if all(sources):
        union = " UNION ".join(f"SELECT * FROM ({each})" for each in sources)
        return of_source(union, *_values(conditions))
    return Condition(
        _joined("OR", [each.sql for each in conditions]), _values(conditions)
    )


def negate(condition: Condition) -> Condition:
    """Return the condition that this one is not met."""
    sql = f"NOT coalesce({condition.sql}, 0)"
    return Condition(sql, condition.values, excluded=condition.match)


def _joined(word: str, parts: Sequence[str]) -> str:
    """Return an expression of several, in parentheses."""
    return "(" + f" {word} ".join(f"({each})" for each in parts) + ")"


def _values(conditions: Sequence[Condition]) -> tuple[Value, ...]:
    return tuple(value for each in conditions for value in each.values)
