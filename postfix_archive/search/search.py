"""Finds archived messages by a query, in the indexes of all archives or of some.

Used by the commands and by whatever works on the messages that a query finds. Pages
follow each other by the place of their last hit (keyset), so that mail that arrives
meanwhile changes none. Memory does not grow with the number of hits. Raises
QueryInvalid, IndexMissing, IndexFailed and StoreFailed.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    IndexDamaged,
    IndexFailed,
    IndexMissing,
    JournalFailed,
    LibraryMissing,
)
from postfix_archive.search import archive_index, index_file, index_query
from postfix_archive.search.index_query import ORDERS, Hit, Order
from postfix_archive.search.query_condition import Value
from postfix_archive.search.query_fields import Compiler
from postfix_archive.search.query_nodes import Node
from postfix_archive.store import journal_reader, record_reader

PAGE_SIZE = 50  # hits
# Hits that are read in one transaction: as many as the caller will need, then more and
# more, since some conditions are evaluated anew each time. 16,000 take some 10 MB.
CHUNK_SIZE, MAX_CHUNK_SIZE = 1000, 16_000
LAG_BYTES = 1 << 20  # of a journal: an index that lacks more than this is being built
PLACE = re.compile(r"([0-9]{1,15})\.([0-9]{1,12})\.([0-9]{4})\.([0-9]{1,12})\.(.+)")


class Place(NamedTuple):
    """The place of a hit among all hits."""

    size: int
    archived: int
    year: str
    number: int
    archive: str


class Page(NamedTuple):
    """Some hits; ``next`` is what ``after`` must be for the next page, "" at the end.

    ``notices`` name the archives and years that could not be searched, and why.
    """

    hits: list[Hit]
    next: str
    notices: list[str]


def search(
    settings: Settings,
    query: str,
    *,
    limit: int = PAGE_SIZE,
    after: str = "",
    sort: str = "newest",
    archives: Sequence[str] = (),
) -> Page:
    """Return a page of the hits of a query.

    after is ``next`` of the page before; sort is one of index_query.ORDERS; archives
    are archive addresses, all if there are none.
    """
    found = Search(settings, query, sort=sort, archives=archives)
    some = list(islice(found.hits(after, limit + 1), limit + 1))
    has_more = len(some) > limit
    del some[limit:]
    return Page(some, place_of(some[-1]) if has_more else "", found.notices)


def place_of(hit: Hit) -> str:
    """Return the place of a hit as text: what ``after`` must be to go on after it."""
    return f"{hit.size}.{hit.archived}.{hit.year}.{hit.number}.{hit.archive}"


class Search:
    """One query, with its ``node``. ``notices`` grows while hits are read; see Page."""

    def __init__(
        self,
        settings: Settings,
        query: str | Node,
        *,
        sort: str = "newest",
        archives: Sequence[str] = (),
        now: float | None = None,
    ) -> None:
        """Parse the query. Raises QueryInvalid, and IndexMissing without any index.

        now (Unix time) is that of newer_than: and of dates without a year.
        """
        self._query = query if isinstance(query, str) else ""
        self.node = parse(query) if isinstance(query, str) else query
        self._order = ORDERS[sort]
        self._now = time.time() if now is None else now
        self._directory = settings.archive_index_directory
        self._store_directory = settings.archive_store_directory
        self.notices: list[str] = []
        Compiler(self._query, "", self._now).conditions(self.node)
        self.archives = self._indexed(archives)

    def _indexed(self, archives: Sequence[str]) -> list[str]:
        """Return the archives that have an index; name the others in the notices."""
        names = list(archives) or record_reader.archives(self._store_directory)
        if not names:
            raise IndexMissing(f"there is no archive in {self._store_directory}")
        indexed = []
        for name in sorted(names):
            path = journal_reader.path_of(self._store_directory, name)
            try:
                end = journal_reader.end_offset(path)
                state = archive_index.read_state(f"{self._directory}/{name}")
            except (IndexFailed, JournalFailed) as error:
                self.notices.append(f"{name}: not searched: {error}")
                continue
            if state is None:
                self.notices.append(
                    f"{name} has no index, or one of an older version; make one:"
                    " postfix-archive index --once"
                )
                continue
            indexed.append(name)
            if end - state.position > LAG_BYTES:
                self.notices.append(
                    f"{name}: its index is being built"
                    f" ({100 * state.position // end} %); later messages are not found"
                )
        if not indexed:
            raise IndexMissing("; ".join(self.notices))
        return indexed

    def hits(self, after: str = "", first: int = CHUNK_SIZE) -> Iterator[Hit]:
        """Yield all hits, or those after a place. Raises ValueError for a bad place.

        first: how many the caller will read at least.
        """
        place = parse_place(after) if after else None
        streams: list[Iterator[Hit]] = []
        for archive in self.archives:
            parts = [
                self._hits_of_database(archive, path, place, min(first, CHUNK_SIZE))
                for path in self._paths(archive)
            ]
            if self._order.column:
                streams += parts
            else:  # the next year is opened when it is needed
                streams.append(each for part in parts for each in part)
        return heapq.merge(
            *streams, key=lambda hit: (*self._order.key(hit), hit.archive)
        )

    def count(self) -> int:
        """Return the number of hits."""
        total = 0
        for archive in self.archives:
            for path in self._paths(archive):
                with self._noticed(archive, path), open_database(path) as db:
                    plan = self._plan(db, archive)
                    total += index_query.count(db, plan) if plan else 0
        return total

    def _paths(self, archive: str) -> list[str]:
        paths = archive_index.database_paths(f"{self._directory}/{archive}")
        return paths if self._order.is_descending else paths[::-1]

    def _plan(self, db: sqlite3.Connection, archive: str) -> index_query.Plan | None:
        compiler = Compiler(self._query, archive, self._now)
        return index_query.make_plan(db, compiler.conditions(self.node))

    def _hits_of_database(
        self, archive: str, path: str, place: Place | None, first: int
    ) -> Iterator[Hit]:
        year = archive_index.year_of(path)
        after = _after(place, self._order, archive, year)
        if after is None:
            return
        with self._noticed(archive, path), open_database(path) as db:
            plan = self._plan(db, archive)
            limit = first
            while plan is not None:
                chunk = index_query.hits(
                    db,
                    plan,
                    self._order,
                    archive=archive,
                    year=year,
                    limit=limit,
                    after=after,
                )
                yield from chunk
                if len(chunk) < limit:
                    return
                last = parse_place(place_of(chunk[-1]))
                after = _after(last, self._order, archive, year) or ("0", ())
                limit = min(2 * max(limit, CHUNK_SIZE), MAX_CHUNK_SIZE)

    @contextlib.contextmanager
    def _noticed(self, archive: str, path: str) -> Iterator[None]:
        """Name a database that turns out to be damaged in the notices."""
        try:
            yield
        except IndexDamaged as error:
            self.notices.append(
                f"{archive}, {archive_index.year_of(path)}: not searched, its index"
                f" must be built again by postfix-archive index ({error.reason})"
            )


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


def parse(query: str) -> Node:
    """Return the nodes of a query. Raises QueryInvalid and LibraryMissing."""
    # Here, because the import takes 30 ms, which a look-up by an id does not need.
    try:
        from postfix_archive.search import query_syntax
    except ImportError as error:
        raise LibraryMissing(
            f"{error}; run make install again, or pip install 'postfix-archive[search]'"
        ) from error
    return query_syntax.parse(query)


def parse_place(text: str) -> Place:
    """Return the place in a text of place_of(). Raises ValueError."""
    match = PLACE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not the end of a page")
    size, archived, year, number, archive = match.groups()
    return Place(int(size), int(archived), year, int(number), archive)


def _after(
    place: Place | None, order: Order, archive: str, year: str
) -> tuple[str, tuple[Value, ...]] | None:
    """Return the condition for what comes after a place, None if nothing does.

    In SQL, with its values; {number} stands for the number of the message. Among hits
    with the same size or time the archives are in the order of their names.
    """
    if place is None:
        return "1", ()
    sign = "<" if order.is_descending else ">"
    is_same = archive == place.archive
    if order.column:
        if is_same:
            return f"(m.size, m.archived, {{number}}) {sign} (?, ?, ?)", (
                place.size,
                place.archived,
                place.number,
            )
        sign += "=" if archive > place.archive else ""
        return f"(m.size, m.archived) {sign} (?, ?)", (place.size, place.archived)
    if is_same:
        if year == place.year:
            return f"{{number}} {sign} ?", (place.number,)
        is_before = year < place.year
        return ("1", ()) if is_before == order.is_descending else None
    sign += "=" if archive > place.archive else ""
    edge, default = ("max", 0) if order.is_descending else ("min", 1 << 62)
    edge_sign = "<=" if order.is_descending else ">="
    return (
        f"{{number}} {edge_sign} (SELECT coalesce({edge}(number), {default})"
        f" FROM message WHERE archived {sign} ?)",
        (place.archived,),
    )
