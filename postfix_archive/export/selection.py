"""Which messages an export or a replay is about: by id, by query, or all of a period.

Used by export/run and the commands. Yields one record at a time, so that memory does
not grow with the store. Raises RecordNotFound, StoreFailed, JournalFailed, and for a
query QueryInvalid, IndexMissing and IndexFailed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from postfix_archive.config.settings import Settings
from postfix_archive.errors import RecordDamaged, RecordNotFound, RecordRemoved
from postfix_archive.search import look_up
from postfix_archive.search.index_engine import Hit
from postfix_archive.search.search import Search
from postfix_archive.store import journal, journal_reader, record_reader
from postfix_archive.store.record import Record


@dataclass(frozen=True)
class Selection:
    """What to take: these ids (see look_up), the hits of a query, or else a period.

    ``archive`` is "" for all archives. ``since`` and ``until`` are Unix times of the
    first capture, as in record_reader.records().
    """

    ids: tuple[str, ...] = ()
    query: str = ""
    archive: str = ""
    since: float = 0.0
    until: float = math.inf

    @property
    def archives(self) -> tuple[str, ...]:
        """The archives that are searched; none for all."""
        return (self.archive,) if self.archive else ()

    def to_json(self) -> dict[str, object]:
        """Return the selection for the description of an export."""
        return {**asdict(self), "ids": [*self.ids], "until": str(self.until)}


def records(
    settings: Settings, selection: Selection, notice: Callable[[str], None]
) -> Iterator[Record]:
    """Return the records: ids in the order given, others oldest first.

    All ids are found, and a query is parsed, before this returns. notice is called with
    a line about each part of the archive that a query could not search, and about
    damaged lines of a journal.
    """
    store = settings.archive_store_directory
    if selection.ids:
        archive = selection.archive or None
        places = [look_up.find(settings, each, archive) for each in selection.ids]
        return (look_up.record_of(settings, each) for each in places)
    if selection.query:
        archives = selection.archives
        search = Search(settings, selection.query, sort="oldest", archives=archives)
        return _hits(settings, search, notice)
    names = record_reader.selected_archives(store, selection.archive)
    return _of_period(store, names, selection, notice)


def _hits(
    settings: Settings, search: Search, notice: Callable[[str], None]
) -> Iterator[Record]:
    yield from of_hits(settings, search.hits(), notice)
    for each in search.notices:
        notice(each)


def of_hits(
    settings: Settings, hits: Iterable[Hit], notice: Callable[[str], None]
) -> Iterator[Record]:
    """Yield the records of hits but those removed meanwhile.

    notice is called with a line about each that cannot be read.
    """
    for hit in hits:
        try:
            record = look_up.record_of(settings, hit)
        except RecordRemoved:
            continue
        except (RecordNotFound, RecordDamaged) as error:
            notice(str(error))
            continue
        yield record


def _of_period(
    store: str,
    archives: list[str],
    selection: Selection,
    notice: Callable[[str], None],
) -> Iterator[Record]:
    for address in archives:
        yield from record_reader.records(
            store, address, since=selection.since, until=selection.until, warn=notice
        )


def count(settings: Settings, selection: Selection) -> int:
    """Return about how many messages there are, for a progress bar."""
    if selection.ids:
        return len(selection.ids)
    if selection.query:
        return Search(settings, selection.query, archives=selection.archives).count()
    store = settings.archive_store_directory
    end = None if math.isinf(selection.until) else selection.until
    return sum(
        line.kind == journal.ARCHIVED
        for address in record_reader.selected_archives(store, selection.archive)
        for line in journal_reader.lines_between(
            journal_reader.path_of(store, address), selection.since, end
        )
    )
