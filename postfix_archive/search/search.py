"""Finds archived messages by a query, in the indexes of all archives or of some.

Used by the commands and by whatever works on the messages that a query finds. Pages
follow each other by the place of their last hit (keyset), so that mail that arrives
meanwhile changes none. Memory does not grow with the number of hits. Raises
QueryInvalid, RecordNotFound, IndexMissing, IndexFailed and StoreFailed.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    IndexFailed,
    IndexMissing,
    JournalFailed,
    LibraryMissing,
)
from postfix_archive.search import index_groups, index_reader
from postfix_archive.search.index_engine import (
    ORDERS,
    Groups,
    Hit,
    IndexReader,
    Limits,
    Order,
    Place,
    Query,
)
from postfix_archive.search.index_reader import ArchiveReader
from postfix_archive.search.query_nodes import Node
from postfix_archive.store import journal_reader, record_reader

PAGE_SIZE = 50  # hits
LAG_BYTES = 1 << 20  # of a journal: an index that lacks more than this is being built
PLACE = re.compile(r"(-?[0-9]{1,15})\.([0-9]{1,12})\.([0-9]{4})\.([0-9]{1,12})\.(.+)")


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

    after is ``next`` of the page before; sort is one of ORDERS; archives
    are archive addresses, all if there are none.
    """
    found = Search(settings, query, sort=sort, archives=archives)
    some = list(islice(found.hits(after, limit + 1), limit + 1))
    has_more = len(some) > limit
    del some[limit:]
    return Page(
        some, place_of(some[-1], found.order) if has_more else "", found.notices
    )


def place_of(hit: Hit, order: Order) -> str:
    """Return the place of a hit as text: what ``after`` must be to go on after it."""
    return ".".join(map(str, order.place(hit)))


class Search:
    """One query, with its ``node`` and its ``order``."""

    def __init__(
        self,
        settings: Settings,
        query: str | Node,
        *,
        text: str = "",
        sort: str = "newest",
        archives: Sequence[str] = (),
        now: float | None = None,
    ) -> None:
        """Parse the query. Raises QueryInvalid; IndexMissing without any index.

        RecordNotFound for an archive that is not there. now (Unix time) is that of
        newer_than: and of dates without a year; text is what the user typed, where
        query is a node that was made of it.
        """
        text = query if isinstance(query, str) else text
        self.node = parse(query) if isinstance(query, str) else query
        self.order = ORDERS[sort]
        self._query = Query(self.node, text, time.time() if now is None else now)
        self._notices: list[str] = []
        index_reader.conditions(self._query, "")
        self._readers = self._open(settings, archives)

    @property
    def archives(self) -> list[str]:
        """The archives that have an index."""
        return [each.archive for each in self._readers]

    @property
    def notices(self) -> list[str]:
        """What could not be searched; see Page. More may follow while hits are read."""
        return [*self._notices, *(n for each in self._readers for n in each.notices)]

    def _open(self, settings: Settings, archives: Sequence[str]) -> list[IndexReader]:
        """Return the indexes that are there; name the others in the notices."""
        store = settings.archive_store_directory
        names = record_reader.selected_archives(store, *archives)
        if not names:
            raise IndexMissing(f"there is no archive in {store}")
        readers: list[IndexReader] = []
        for name in sorted(names):
            try:
                end = journal_reader.end_offset(journal_reader.path_of(store, name))
                reader = ArchiveReader(settings.archive_index_directory, name)
            except (IndexFailed, JournalFailed) as error:
                self._notices.append(f"{name}: not searched: {error}")
                continue
            if reader.position is None:
                self._notices.append(
                    f"{name} has no index, or one of an older version; make one:"
                    " postfix-archive index --once"
                )
                continue
            readers.append(reader)
            if end - reader.position > LAG_BYTES:
                self._notices.append(
                    f"{name}: its index is being built"
                    f" ({100 * reader.position // end} %); later messages are not found"
                )
        if not readers:
            raise IndexMissing("; ".join(self._notices))
        return readers

    def hits(
        self, after: str = "", first: int = index_reader.CHUNK_SIZE
    ) -> Iterator[Hit]:
        """Yield all hits, or those after a place. Raises ValueError for a bad place.

        first: how many the caller will read at least.
        """
        place = parse_place(after) if after else None
        streams = [
            stream
            for each in self._readers
            for stream in each.hits(self._query, self.order, place, first)
        ]
        return merge(streams, self.order)

    def count(self) -> int:
        """Return the number of hits."""
        return sum(each.count(self._query) for each in self._readers)

    def groups(self, fields: Sequence[str], limits: Limits) -> Groups:
        """Count the newest hits of each archive by it and the values of these fields.

        The limits are those of all archives together.
        """
        limits = limits.shared(len(self._readers))
        return index_groups.add(
            each.groups(self._query, fields, limits) for each in self._readers
        )


def merge(streams: Iterable[Iterator[Hit]], order: Order) -> Iterator[Hit]:
    """Yield the hits of streams, each in order, in this order."""
    return heapq.merge(*streams, key=order.key, reverse=order.is_descending)


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
    value, archived, year, number, archive = match.groups()
    return Place(int(value), int(archived), year, int(number), archive)
