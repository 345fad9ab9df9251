"""Writes what people decide into the journals: holds, requests for erasure.

Used by holds and erasure. Only root and the archive's user can. Raises NotRoot,
RecordRemoved, StoreFailed and JournalFailed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

from postfix_archive.config.settings import Settings
from postfix_archive.errors import JournalFailed, NotRoot, RecordRemoved
from postfix_archive.message import address, dates
from postfix_archive.search.look_up import Place
from postfix_archive.store import journal, journal_reader, known_end, record_reader
from postfix_archive.store.journal import Journal
from postfix_archive.store.journal_event import Event
from postfix_archive.store.journal_reader import Line
from postfix_archive.system import files, privileges

LOCK_TIMEOUT = 60.0  # seconds


def require_writer(store_directory: str, action: str) -> None:
    """Raise NotRoot for a user who cannot write the journals."""
    try:
        owner = os.stat(store_directory).st_uid
    except OSError as error:
        raise files.store_error(store_directory, error) from error
    if os.geteuid() not in (0, owner):
        raise NotRoot(
            f"only root and the archive's user can do this: sudo postfix-archive"
            f" {action}"
        )


@contextlib.contextmanager
def locked_journals(
    settings: Settings, archives: Iterable[str]
) -> Iterator[dict[str, Journal]]:
    """Lock the journals of some archives, all at once; yield them by archive."""
    store = settings.archive_store_directory
    host = address.as_text(settings.myhostname)
    with contextlib.ExitStack() as stack:
        stack.enter_context(privileges.as_owner(store))
        journals = {}
        for archive in sorted(archives):  # so that no two processes wait for another
            known_end.require(settings.archive_fallback_directory, store, archive)
            journal_file = Journal(
                f"{store}/{archive}", host=host, lock_timeout=LOCK_TIMEOUT
            )
            journals[archive] = stack.enter_context(journal_file)
        yield journals


def require_present(settings: Settings, place: Place) -> None:
    """Raise RecordRemoved if a record was removed since it was looked up."""
    store = settings.archive_store_directory
    path = journal_reader.path_of(store, place.archive)
    for line in journal_reader.lines_at(path, place.offsets):
        if line.is_struck_out or line.kind in journal.REMOVAL_EVENTS:
            raise RecordRemoved(str(record_reader.not_found(place.archive_id, store)))


def now() -> str:
    """Return the time, as events have it (RFC 3339)."""
    return dates.format_rfc3339(time.time())


def event_of(line: Line, path: str) -> Event | None:
    """Return the event in the line of a decision, None for a torn line.

    Raises JournalFailed for a damaged one: what it said must not be forgotten.
    """
    try:
        return line.event()
    except ValueError as error:
        raise JournalFailed(
            f"{path}: the line of an event {line.kind} is damaged; run postfix-archive"
            " verify"
        ) from error
