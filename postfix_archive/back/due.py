"""Stores and mails the outcome reports that are due.

Used by outcomes.follower, which records what is due: a report is due once all captures
of a record are settled, and until it is stored and, with archive_outcome_mail, mailed.
A failure is retried.
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

PAUSE = 60  # seconds between two attempts after a failure
ENOUGH = 20  # failures after which the store counts as down


class Due:
    """The outcome reports that are due.

    ``delay_warning`` says why some are not stored or mailed yet, ``damage_warnings``
    which records can have none; one line each.
    """

    def __init__(self, settings: Settings, state: Followed) -> None:
        """Begin."""
        self._settings = settings
        self._state = state
        self.waits = ""
        self.damaged: list[str] = []
        self._again_at = 0

    def keep(self, now: int) -> None:
        """Store and mail what is due; now is Unix time. What fails stays due.

        A missing or damaged archive copy delays no report but its own.
        """
        if self.waits and now < self._again_at:
            return
        self.waits = ""
        self._again_at = now + PAUSE
        try:
            keys = config.keys(self._settings)
        except (KeyMissing, KeyUnreadable) as problem:
            self.waits = f"outcome reports delayed: {problem}"
            return
        failures = 0
        for archive, record_id in self._state.due():
            try:
                self._settle(archive, record_id, keys, now)
            except (HandBackUnreachable, HandBackRefused) as problem:
                self.waits = f"outcome reports not mailed yet: {problem}"
                return
            except (StoreFailed, JournalFailed) as problem:
                self.waits = f"outcome reports delayed: {problem}"
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
