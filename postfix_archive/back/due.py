"""Keeps the outcome reports that are due, as the follower of the log has noted them.

Used by following. A report is due once all captures of a record are settled, and stays
so until the store has it, and the archive address too where that is wanted: whatever
comes between, it is tried again.
"""

from __future__ import annotations

from postfix_archive.back import reading, settling
from postfix_archive.back.followed import Followed
from postfix_archive.core.errors import (
    HandBackRefused,
    HandBackUnreachable,
    RecordDamaged,
)
from postfix_archive.core.keyring import Keyring
from postfix_archive.core.record import Record
from postfix_archive.core.settings import Settings

PAUSE = 60  # seconds until Postfix is asked again that has not taken a report


class Due:
    """The reports that are due.

    ``waits`` says why some could not be kept or mailed yet, ``damaged`` which records
    can have none, in one sentence each.
    """

    def __init__(
        self, settings: Settings, keys: Keyring | None, state: Followed
    ) -> None:
        """Begin; without the site keys nothing is kept, and all stays due."""
        self._settings = settings
        self._keys = keys
        self._state = state
        self.waits = ""
        self.damaged: list[str] = []
        self._again_at = 0

    def keep(self, now: int) -> None:
        """Keep what is due, now Unix time. Raises StoreFailed and JournalFailed."""
        if self._keys is None or (self.waits and now < self._again_at):
            return
        self.waits = ""
        for archive, record_id in self._state.due():
            kept = self._record(archive, record_id)
            try:
                if kept is not None:
                    settling.settle(self._settings, self._keys, archive, kept, now)
            except (HandBackUnreachable, HandBackRefused) as problem:
                self._again_at = now + PAUSE
                self.waits = f"outcome reports wait to be mailed: {problem}"
                return
            except RecordDamaged as problem:
                self.damaged.append(str(problem))
            self._state.reported(archive, record_id)

    def _record(self, archive: str, record_id: str) -> Record | None:
        folder = self._settings.archive_store_directory
        places = self._state.lines_of(archive, record_id)
        kept = reading.at(folder, archive, record_id, places)
        if kept is not None:
            return kept
        return reading.some(folder, archive, {record_id}).get(record_id)
