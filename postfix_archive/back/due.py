"""Keeps the outcome reports that are due, as the follower of the log has noted them.

Used by following. A report is due once all captures of a record are settled, and stays
so until the store has it, and the archive address too where that is wanted: whatever
comes between, it is tried again.
"""

from __future__ import annotations

from postfix_archive.back import config, reading, settling
from postfix_archive.back.followed import Followed
from postfix_archive.core.errors import (
    HandBackRefused,
    HandBackUnreachable,
    JournalFailed,
    KeyMissing,
    KeyUnreadable,
    RecordDamaged,
    StoreFailed,
)
from postfix_archive.core.keyring import Keyring
from postfix_archive.core.record import Record
from postfix_archive.core.settings import Settings

PAUSE = 60  # seconds until what has failed is tried again
ENOUGH = 20  # failures of the store, until it counts as down


class Due:
    """The reports that are due.

    ``waits`` says why some could not be kept or mailed yet, ``damaged`` which records
    can have none, in one sentence each.
    """

    def __init__(self, settings: Settings, state: Followed) -> None:
        """Begin."""
        self._settings = settings
        self._state = state
        self.waits = ""
        self.damaged: list[str] = []
        self._again_at = 0

    def keep(self, now: int) -> None:
        """Keep what is due, now Unix time; what cannot be kept stays due.

        A copy that is gone from the store delays no report but its own.
        """
        if self.waits and now < self._again_at:
            return
        self.waits = ""
        self._again_at = now + PAUSE
        try:
            keys = config.keys(self._settings)
        except (KeyMissing, KeyUnreadable) as problem:
            self.waits = f"{problem}; until then outcome reports wait"
            return
        failures = 0
        for archive, record_id in self._state.due():
            try:
                self._settle(archive, record_id, keys, now)
            except (HandBackUnreachable, HandBackRefused) as problem:
                self.waits = f"outcome reports wait to be mailed: {problem}"
                return
            except (StoreFailed, JournalFailed) as problem:
                self.waits = f"outcome reports wait: {problem}"
                failures += 1
                if failures == ENOUGH:
                    return
                continue
            except RecordDamaged as problem:
                self.damaged.append(str(problem))
            self._state.reported(archive, record_id)

    def _settle(self, archive: str, record_id: str, keys: Keyring, now: int) -> None:
        kept = self._record(archive, record_id)
        if kept is not None:
            settling.settle(self._settings, keys, archive, kept, now)

    def _record(self, archive: str, record_id: str) -> Record | None:
        folder = self._settings.archive_store_directory
        places = self._state.lines_of(archive, record_id)
        kept = reading.at(folder, archive, record_id, places)
        if kept is not None:
            return kept
        return reading.some(folder, archive, {record_id}).get(record_id)
