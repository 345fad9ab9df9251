"""Catches the index of one archive up with its journal, and returns when it is.

Used by retention, which asks the index what may be removed and tells it what was. Does
the work here, unless the index service runs: then that does it. Raises IndexFailed,
SettingInvalid, JournalFailed and StoreFailed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from postfix_archive.config.settings import Settings
from postfix_archive.errors import IndexerRunning, IndexFailed
from postfix_archive.search import archive_index, index_service
from postfix_archive.search.index_service import IndexService
from postfix_archive.store import journal_reader

# For the index service. It looks twice a second, but after a removal it writes a year
# anew: 160 s for 1,000,000 messages on a busy machine (docs/retention.md).
WAIT_SECONDS = 600.0
POLL_SECONDS = 0.1


def catch_up(settings: Settings, archive: str, warn: Callable[[str], None]) -> None:
    """Catch the index of an archive up with all that its journal has now.

    warn gets what the user should know. Raises IndexFailed if the index service does
    not get there within WAIT_SECONDS.
    """
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    end = journal_reader.end_offset(path)
    deadline = time.monotonic() + WAIT_SECONDS
    while not _is_done(settings, archive, path, end):
        with contextlib.suppress(IndexerRunning):
            with index_service.locked(settings):
                service = IndexService(settings, warn, lambda *_: None)
                with contextlib.closing(service):
                    service.run_archive(archive)
                return
        if time.monotonic() > deadline:
            raise IndexFailed(
                f"{archive}: the index service has not read the journal to its end"
                f" within {WAIT_SECONDS:.0f} s; see postfix-archive status"
            )
        time.sleep(POLL_SECONDS)


def has_index(settings: Settings, archive: str) -> bool:
    """Tell whether an archive has an index, however old."""
    directory = f"{settings.archive_index_directory}/{archive}"
    return archive_index.read_state(directory) is not None


def _is_done(settings: Settings, archive: str, path: str, end: int) -> bool:
    directory = f"{settings.archive_index_directory}/{archive}"
    state = archive_index.read_state(directory)
    return state is not None and state.position >= end and state.is_of_journal(path)
