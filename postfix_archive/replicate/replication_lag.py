"""How far the bucket is behind the journals, by the file that the service keeps.

Used by status and the doctor; asks no server and imports no library.
"""

from __future__ import annotations

from typing import NamedTuple

from postfix_archive.config.settings import Settings
from postfix_archive.replicate import replication_state
from postfix_archive.replicate.replication_state import ArchiveState
from postfix_archive.store import journal, journal_reader
from postfix_archive.system import files, privileges

LAST_RUN_FILE = "replicated-at"  # touched when the bucket has all journals


class Lag(NamedTuple):
    """What the bucket lacks of one archive.

    ``size`` is in bytes of the journal, ``seconds`` the age of its first line that is
    missing. ``removed`` counts removed records that the server still keeps.
    """

    size: int
    seconds: float
    removed: int


def lag(settings: Settings, archive: str) -> Lag:
    """Return how far the bucket is behind the journal of an archive."""
    state = replication_state.read(settings)
    known = state.archives.get(archive) if state else None
    known = known or ArchiveState()
    end = known.ends.get(journal.NAME)
    position = end.position if end else 0
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    size = max(0, journal_reader.end_offset(path) - position)
    seconds = journal_reader.age_of_next(path, position) if size else 0.0
    return Lag(size, seconds, len(known.removed))


def touch_last_run(settings: Settings) -> None:
    """Record that the bucket has all journals up to their ends; errors are ignored."""
    privileges.touch(settings.archive_fallback_directory, LAST_RUN_FILE)


def last_run_age(settings: Settings, now: float) -> float | None:
    """Return how many seconds ago (or ahead) that was recorded, None if never."""
    path = f"{settings.archive_fallback_directory}/{LAST_RUN_FILE}"
    last = files.modified_time(path)
    return None if last is None else abs(now - last)
