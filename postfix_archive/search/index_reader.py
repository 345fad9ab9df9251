"""Reads the index of one archive: its hits, their number, its archive ids.

Used by search and short_ids, as index_engine.IndexReader. Opens a database only while
it reads. A damaged one is named in the notices and marked for the indexer. Raises
IndexFailed and, for a query, QueryInvalid.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain

from postfix_archive.errors import IndexDamaged
from postfix_archive.search import (
    archive_index,
    index_file,
    index_groups,
    index_query,
)
from postfix_archive.search.index_engine import (
    Groups,
    Hit,
    Limits,
    Order,
    Place,
    Query,
)
from postfix_archive.search.query_condition import Condition, Value
from postfix_archive.search.query_fields import Compiler

# Hits that are read in one transaction: as many as the caller will need, then more and
# more, since some conditions are evaluated anew each time. 16,000 take some 10 MB.
CHUNK_SIZE, MAX_CHUNK_SIZE = 1000, 16_000
NEIGHBOURS = (
    "SELECT max(archive_id) FROM message WHERE archive_id < ?",
    "SELECT min(archive_id) FROM message WHERE archive_id > ?",
)


class ArchiveReader:
    """The index of one archive, for a reader; see IndexReader."""

    def __init__(self, directory: str, archive: str) -> None:
        """Read its state. Raises IndexFailed if this user may not."""
        state = archive_index.read_state(f"{directory}/{archive}")
        self.archive = archive
        self.position = state.position if state else None
        self.notices: list[str] = []
        self._directory = f"{directory}/{archive}"

    def hits(
        self, query: Query, order: Order, after: Place | None, first: int
    ) -> list[Iterator[Hit]]:
        """Return streams of hits, each in order, those after a place."""
        paths = archive_index.database_paths(self._directory)
        parts = [
            self._hits_of_database(query, order, path, after, min(first, CHUNK_SIZE))
            for path in (paths if order.is_descending else paths[::-1])
        ]
        if order.column:
            return parts
        # The next year is opened when it is needed.
        return [chain.from_iterable(parts)]

    def count(self, query: Query) -> int:
        """Return the number of hits."""
        total = 0
        for path in archive_index.database_paths(self._directory):
            with self._noticed(path), open_database(path) as db:
                total += index_query.count(db, conditions(query, self.archive))
        return total

    def groups(self, query: Query, fields: Sequence[str], limits: Limits) -> Groups:
        """Count the newest hits by the values of these fields."""
        parts: list[Groups] = []
        for path in archive_index.database_paths(self._directory):
            with self._noticed(path), open_database(path) as db:
                plan = index_query.make_plan(db, conditions(query, self.archive))
                if plan is None:
                    continue
                part = index_groups.groups(db, plan, fields, limits)
                parts.append(part)
                limits = limits.without(part)
                if part.has_more:
                    break
        found = index_groups.add(parts)
        if found.grouped:
            found.numbers["archive"] = {self.archive: found.grouped}
        return found

    def neighbours(self, archive_id: str) -> Iterator[str]:
        """Yield the archive ids next to this one, in the order of their characters."""
        for path in archive_index.database_paths(self._directory):
            with open_database(path) as db:
                for query in NEIGHBOURS:
                    [other] = db.execute(query, (archive_id,)).fetchone()
                    if other:
                        yield other

    def _hits_of_database(
        self, query: Query, order: Order, path: str, place: Place | None, first: int
    ) -> Iterator[Hit]:
        year = archive_index.year_of(path)
        after = _after(place, order, self.archive, year)
        if after is None:
            return
        with self._noticed(path), open_database(path) as db:
            plan = index_query.make_plan(db, conditions(query, self.archive))
            limit = first
            while plan is not None:
                chunk = index_query.hits(
                    db,
                    plan,
                    order,
                    archive=self.archive,
                    year=year,
                    limit=limit,
                    after=after,
                )
                yield from chunk
                if len(chunk) < limit:
                    return
                last = order.place(chunk[-1])
                after = _after(last, order, self.archive, year) or ("0", ())
                limit = min(2 * max(limit, CHUNK_SIZE), MAX_CHUNK_SIZE)

    @contextlib.contextmanager
    def _noticed(self, path: str) -> Iterator[None]:
        """Name a database that turns out to be damaged in the notices."""
        try:
            yield
        except IndexDamaged as error:
            self.notices.append(
                f"{self.archive}, {archive_index.year_of(path)}: not searched, its"
                f" index must be built again by postfix-archive index ({error.reason})"
            )


def conditions(query: Query, archive: str) -> list[Condition]:
    """Return what a message of an archive must meet. Raises QueryInvalid."""
    return Compiler(query.text, archive, query.now).conditions(query.node)


@contextlib.contextmanager
def open_database(path: str) -> Iterator[sqlite3.Connection]:
    """Open a database to read it; mark it for the indexer if that finds damage."""
    if not os.path.exists(path):
        raise IndexDamaged(path, "it is missing")
    with contextlib.closing(index_file.open_for_reading(path)) as db:
        try:
            with index_file.translated(path):
                yield db
        except IndexDamaged as error:
            if index_file.mark_damaged(path):
                raise
            reason = f"{error.reason}; by --rebuild, since this user may not mark it"
            raise IndexDamaged(path, reason) from error


def _after(
    place: Place | None, order: Order, archive: str, year: str
) -> tuple[str, tuple[Value, ...]] | None:
    """Return the condition for what comes after a place, None if nothing does.

    In SQL, with its values; {number} stands for the number of the message. Among hits
    with the same size or time the archives are in the order of their names, too.
    """
    if place is None:
        return "1", ()
    sign = "<" if order.is_descending else ">"
    is_same = archive == place.archive
    is_later = (archive > place.archive) != order.is_descending
    if order.column:
        column = f"m.{order.column}"
        if is_same:
            return f"({column}, m.archived, {{number}}) {sign} (?, ?, ?)", (
                place.value,
                place.archived,
                place.number,
            )
        sign += "=" if is_later else ""
        return f"({column}, m.archived) {sign} (?, ?)", (place.value, place.archived)
    if is_same:
        if year == place.year:
            return f"{{number}} {sign} ?", (place.number,)
        is_before = year < place.year
        return ("1", ()) if is_before == order.is_descending else None
    sign += "=" if is_later else ""
    edge, default = ("max", 0) if order.is_descending else ("min", 1 << 62)
    edge_sign = "<=" if order.is_descending else ">="
    return (
        f"{{number}} {edge_sign} (SELECT coalesce({edge}(number), {default})"
        f" FROM message WHERE archived {sign} ?)",
        (place.archived,),
    )
