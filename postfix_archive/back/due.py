"""Stores and mails the outcome reports that are due.

Used by outcomes.follower, which records what is due: a report is due once all captures
of a record are settled, and until it is stored and, with archive_outcome_mail, mailed.
A failure is retried.
"""

from __future__ import annotations

from postfix_archive.back import config, reading, settling
from postfix_archive.back.followed import FollowerState
from postfix_archive.core.errors import (
    JournalFailed,
    KeyMissing,
    KeyUnreadable,
    PostfixRefused,
    PostfixUnreachable,
    RecordDamaged,
    StoreFailed,
)
from postfix_archive.core.keyring import Keyring
from postfix_archive.core.record import Record
from postfix_archive.core.settings import Settings

RETRY_SECONDS = 60  # seconds between two attempts after a failure
MAX_STORE_FAILURES = 20  # failures after which the store counts as down


class ReportQueue:
    """The outcome reports that are due.

    ``delay_warning`` says why some are not stored or mailed yet, ``damage_warnings``
    which records can have none; one line each.
    """

    def __init__(self, settings: Settings, state: FollowerState) -> None:
        """Begin."""
        self._settings = settings
        self._state = state
        self.delay_warning = ""
        self.damage_warnings: list[str] = []
        self._retry_at = 0

    def process(self, now: int) -> None:
        """Store and mail what is due; now is Unix time. What fails stays due.

        A missing or damaged archive copy delays no report but its own.
        """
        if self.delay_warning and now < self._retry_at:
            return
        self.delay_warning = ""
        self._retry_at = now + RETRY_SECONDS
        try:
            keys = config.load_keys(self._settings)
        except (KeyMissing, KeyUnreadable) as error:
            self.delay_warning = f"outcome reports delayed: {error}"
            return
        failures = 0
        for archive, record_id in self._state.due_reports():
            try:
                self._process_record(archive, record_id, keys, now)
            except (PostfixUnreachable, PostfixRefused) as error:
                self.delay_warning = f"outcome reports not mailed yet: {error}"
                return
            except (StoreFailed, JournalFailed) as error:
                self.delay_warning = f"outcome reports delayed: {error}"
                failures += 1
                if failures == MAX_STORE_FAILURES:
                    return
                continue
            except RecordDamaged as error:
                self.damage_warnings.append(str(error))
            self._state.remove_due_report(archive, record_id)

    def _process_record(
        self, archive: str, record_id: str, keys: Keyring, now: int
    ) -> None:
        record = self._read_record(archive, record_id)
        if record is not None:
            settling.store_and_mail(self._settings, keys, archive, record, now)

    def _read_record(self, archive: str, record_id: str) -> Record | None:
        directory = self._settings.archive_store_directory
        offsets = self._state.journal_offsets(archive, record_id)
        record = reading.record_at(directory, archive, record_id, offsets)
        if record is not None:
            return record
        return reading.select_records(directory, archive, {record_id}).get(record_id)
