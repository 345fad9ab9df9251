"""Append to the access journals of a store, and read them.

Each archive has one, beside its journal and in the same format:

    <store>/<archive address>/access/YYYY-MM

Used by access_recorder, access_service and the command history. Only the archive's user
can write it. Raises StoreFailed and JournalFailed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from postfix_archive.access import access_entry
from postfix_archive.access.access_entry import Entry
from postfix_archive.message import dates
from postfix_archive.store import journal, journal_reader
from postfix_archive.store.journal_reader import Line
from postfix_archive.system import privileges

NAME = "access"  # of the journal's directory
EVENT = "access"
IDS_PER_LINE = 500


def append(
    store_directory: str, ids: Mapping[str, Sequence[str]], entry: Entry
) -> None:
    """Append an entry to the journal of each archive in ids, durably.

    ids are the archive ids by archive; long lists are split over several lines.
    """
    now = dates.format_rfc3339(time.time())
    for archive, archive_ids in ids.items():
        directory = f"{store_directory}/{archive}"
        events: list[journal.Event] = [
            (EVENT, entry._replace(ids=chunk).to_fields())
            for chunk in _chunks(archive_ids)
        ]
        with privileges.as_owner(directory):
            with journal.Journal(directory, name=NAME) as journal_file:
                journal_file.extend(now, events)


def entries(store_directory: str, archive: str) -> Iterator[Entry]:
    """Yield the entries of an archive's access journal, oldest first.

    Lines that are torn or damaged are left out: verify reports them. Raises
    JournalFailed for a store of format 1, which has none.
    """
    journal_reader.require_format(journal_reader.path_of(store_directory, archive))
    path = journal_reader.path_of(store_directory, archive, NAME)
    for line in journal_reader.lines(path):
        entry = _entry(line)
        if entry is not None:
            yield entry


def entries_backwards(
    store_directory: str, archive: str, end: int | None = None
) -> Iterator[tuple[int, Entry | None]]:
    """Yield the offset of each line and its entry, the last one before end first.

    end None is the end of the journal. None is yielded for what entries() leaves out.
    """
    path = journal_reader.path_of(store_directory, archive, NAME)
    for line in journal_reader.lines_backwards(path, end):
        yield line.offset, _entry(line)


def offset_after(store_directory: str, archive: str, time: float) -> int | None:
    """Return an offset such that no entry after it is older than a Unix time.

    None if there is no later entry.
    """
    path = journal_reader.path_of(store_directory, archive, NAME)
    # Twice: lines_between() begins before the time by it, and a clock may step back.
    begin = time + 2 * journal_reader.CLOCK_SLACK
    line = next(journal_reader.lines_between(path, begin), None)
    return line.offset if line else None


def _entry(line: Line) -> Entry | None:
    event = journal_reader.valid_event(line)
    if event is None or event["event"] != EVENT:
        return None
    try:
        return access_entry.from_fields(event)
    except ValueError:
        return None


def _chunks(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the ids in chunks of IDS_PER_LINE, at least one, which may be empty."""
    rest = iter(ids)
    yield tuple(islice(rest, IDS_PER_LINE))
    while chunk := tuple(islice(rest, IDS_PER_LINE)):
        yield chunk
