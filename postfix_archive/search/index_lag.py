"""How far the indexes are behind their journals.

Used by search, status and the doctor; imports no library.
"""

from __future__ import annotations

from typing import NamedTuple

from postfix_archive.config.settings import Settings
from postfix_archive.search import archive_index
from postfix_archive.store import journal, journal_reader
from postfix_archive.system import files, privileges

LAST_RUN_FILE = "indexed"  # touched when all journals were read to their ends


class Lag(NamedTuple):
    """What the index of one archive lacks.

    ``size`` is in bytes of the journal; ``seconds`` is the age of the first message
    that is not in the index. ``has_index`` is false before the first run.
    """

    has_index: bool
    size: int
    seconds: float


def lag(settings: Settings, archive: str) -> Lag:
    """Return how far the index of an archive is behind its journal."""
    directory = f"{settings.archive_index_directory}/{archive}"
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    state = archive_index.read_state(directory)
    position = state.position if state else 0
    size = journal_reader.end_offset(path) - position
    return Lag(
        state is not None,
        size,
        journal_reader.age_of_next(path, position, journal.CAPTURE_EVENTS),
    )


def touch_last_run(settings: Settings) -> None:
    """Record that all journals were read to their ends; an error is ignored."""
    privileges.touch(settings.archive_fallback_directory, LAST_RUN_FILE)


def last_run_age(settings: Settings, now: float) -> float | None:
    """Return how many seconds ago (or ahead) that was recorded, None if never."""
    path = f"{settings.archive_fallback_directory}/{LAST_RUN_FILE}"
    last = files.modified_time(path)
    return None if last is None else abs(now - last)
