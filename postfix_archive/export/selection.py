"""Which messages an export or a replay is about: by id, or all of a period.

Used by export/run and the commands. Yields one record at a time, so that memory does
not grow with the store. Raises RecordNotFound, StoreFailed and JournalFailed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from postfix_archive.config.settings import Settings
from postfix_archive.errors import RecordNotFound
from postfix_archive.store import journal, journal_reader, record_reader
from postfix_archive.store.record import Record


@dataclass(frozen=True)
class Selection:
    """What to take: these ids (or prefixes); without any, all messages of a period.

    ``archive`` is "" for all archives. ``since`` and ``until`` are Unix times of the
    first capture, as in record_reader.records().
    """

    ids: tuple[str, ...] = ()
    archive: str = ""
    since: float = 0.0
    until: float = math.inf

    def to_json(self) -> dict[str, object]:
        """Return the selection for the description of an export."""
        return {**asdict(self), "ids": [*self.ids], "until": str(self.until)}


def records(settings: Settings, selection: Selection) -> Iterator[Record]:
    """Yield the records, in the order of the journal; ids in the order given."""
    store = settings.archive_store_directory
    if selection.ids:
        for each in selection.ids:
            yield record_reader.find_record(store, each, selection.archive or None)
        return
    for address in _archives(store, selection):
        yield from record_reader.records(
            store, address, since=selection.since, until=selection.until
        )


def count(settings: Settings, selection: Selection) -> int:
    """Return about how many messages there are, for a progress bar."""
    if selection.ids:
        return len(selection.ids)
    store = settings.archive_store_directory
    end = None if math.isinf(selection.until) else selection.until
    return sum(
        line.kind == journal.ARCHIVED
        for address in _archives(store, selection)
        for line in journal_reader.lines_between(
            journal_reader.path_of(store, address), selection.since, end
        )
    )


def _archives(store: str, selection: Selection) -> list[str]:
    known = record_reader.archives(store)
    if not selection.archive:
        return known
    if selection.archive not in known:
        raise RecordNotFound(f"{store} has no archive {selection.archive}")
    return [selection.archive]
