"""Stores and mails the outcome report of a record whose recipients are all settled.

Used by everything that appends outcomes to a journal. First the store, then the mail,
then the journal event that it was mailed: a process that is killed between two steps
and repeats them stores one report, and mails it at most twice, with the same
Message-Id.
"""

from __future__ import annotations

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    CapsuleBroken,
    JournalFailed,
    KeyMissing,
    KeyUnreadable,
    PostfixRefused,
    PostfixUnreachable,
    RecordDamaged,
    RecordNotFound,
    RecordRemoved,
    StoreFailed,
)
from postfix_archive.message import archive_copy, dates, digest, smtp_data, stamp
from postfix_archive.message.envelope import Recipient
from postfix_archive.message.keyring import Keyring
from postfix_archive.outcomes import outcome_report
from postfix_archive.outcomes.follower_state import FollowerState
from postfix_archive.postfix import smtp_client
from postfix_archive.store import copy_file, record_reader
from postfix_archive.store.archive import Archive, of_settings
from postfix_archive.store.record import Record


def store_and_mail(
    settings: Settings, keys: Keyring, archive: str, record: Record, now: int
) -> str:
    """Store the outcome report of a record; mail it if archive_outcome_mail is yes.

    record is the record as the journal has it now; now is Unix time. Returns one line
    about what was done, "" if there is nothing to do: a recipient is not settled yet,
    or this report was stored, and mailed if so configured. Durable on return. Raises
    StoreFailed, JournalFailed, RecordDamaged, PostfixUnreachable and PostfixRefused;
    call it again then.
    """
    if not record.results.is_settled:
        return ""
    store_archive = of_settings(settings, archive)
    covers = record.results.sha256
    report_names = [
        report_name
        for report_name, covered in record.reports.items()
        if covered == covers
    ]
    result = "" if report_names else f"{record.archive_id}: outcome report stored"
    report_name = (
        report_names[0]
        if report_names
        else _store_report(settings, keys, store_archive, record, now)
    )
    if not _needs_mail(settings, record) or report_name in record.mailed:
        return result
    queue_id = _mail_report(
        settings, keys, record, store_archive.path(report_name), now
    )
    store_archive.record_report_mailed(
        record.archive_id, report_name, dates.format_rfc3339(now), queue_id
    )
    result = result or f"{record.archive_id}: outcome report already stored"
    return f"{result}; mailed, queued as {queue_id}"


def _needs_mail(settings: Settings, record: Record) -> bool:
    if not settings.archive_outcome_mail:
        return False
    return not archive_copy.could_loop(
        record.envelope,
        record.request,
        record_reader.original_head(settings.archive_store_directory, record),
        archive_from=settings.archive_from,
        archive_sender=settings.archive_sender,
        has_store=settings.has_store,
    )


def _store_report(
    settings: Settings,
    keys: Keyring,
    store_archive: Archive,
    record: Record,
    now: int,
) -> str:
    """Store the report; return its file name."""
    covers = record.results.sha256
    content = outcome_report.build(
        record,
        record_reader.original_head(settings.archive_store_directory, record),
        sender=settings.archive_from,
        boundary=archive_copy.make_boundary(record.archive_id, covers, keys),
        now=now,
    )
    timestamp = dates.format_rfc3339(now)
    return store_archive.store_outcome_report(
        record.archive_id, (content,), covers, timestamp
    )


def _mail_report(
    settings: Settings, keys: Keyring, record: Record, path: str, now: int
) -> str:
    """Mail a stored report to the archive address; return Postfix's queue id.

    It has the stamp of an archive copy: a report that is forwarded back to this host
    only adds a supplement to its record.
    """
    content = b"".join(copy_file.decompress(path, copy_file.REPORT_LIMIT))
    content_sha256 = digest.sha256_of((content,)).digest()
    stamp_line = stamp.make_copy_stamp(
        record.archive_id, record.request, content_sha256, keys, now=now
    )
    return smtp_client.submit(
        settings.copy_port,
        settings.archive_sender,
        (Recipient(record.archive.encode()),),
        smtp_data.chain((stamp_line,), (content,)),
        eightbit=not content.isascii(),
    )


RETRY_SECONDS = 60  # seconds between two attempts after a failure
# The same for a damaged record: each attempt may read the whole journal.
DAMAGE_RETRY_SECONDS = 3600
MAX_STORE_FAILURES = 20  # failures after which the store counts as down


class ReportQueue:
    """The outcome reports that are due.

    ``delay_warning`` says why some are not stored or mailed yet, ``damage_warnings``
    which records are damaged, or not in the journal any more; one line each.
    """

    def __init__(self, settings: Settings, state: FollowerState) -> None:
        """Begin."""
        self._settings = settings
        self._state = state
        self.delay_warning = ""
        self.damage_warnings: list[str] = []
        self._retry_at = 0
        self._retry_at_of: dict[tuple[str, str], int] = {}  # damaged records

    def process(self, now: int) -> None:
        """Store and mail what is due; now is Unix time. What fails stays due.

        A missing or damaged archive copy, or journal line, delays no report but its
        own; that is stored after a repair.
        """
        if self.delay_warning and now < self._retry_at:
            return
        self.delay_warning = ""
        self._retry_at = now + RETRY_SECONDS
        try:
            keys = archive_cf.load_keys(self._settings)
        except (KeyMissing, KeyUnreadable) as error:
            self.delay_warning = f"outcome reports delayed: {error}"
            return
        failures = 0
        for archive, record_id in self._state.due_reports():
            key = archive, record_id
            if now < self._retry_at_of.get(key, 0):
                continue
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
                self._retry_at_of[key] = now + DAMAGE_RETRY_SECONDS
                self._warn(f"outcome report delayed: {error}")
                continue
            except RecordNotFound as error:
                self._warn(f"no outcome report: {error}")
            self._state.remove_due_report(archive, record_id)

    def _warn(self, text: str) -> None:
        if text not in self.damage_warnings:
            self.damage_warnings.append(text)

    def _process_record(
        self, archive: str, record_id: str, keys: Keyring, now: int
    ) -> None:
        try:
            record = self._read_record(archive, record_id)
            if record is not None:
                store_and_mail(self._settings, keys, archive, record, now)
        except CapsuleBroken as error:
            raise RecordDamaged(f"{record_id}: {error}") from error

    def _read_record(self, archive: str, record_id: str) -> Record | None:
        """Return the record, None if it was removed."""
        directory = self._settings.archive_store_directory
        offsets = self._state.journal_offsets(archive, record_id)
        try:
            record = record_reader.record_at(directory, archive, offsets)
            if record.archive_id == record_id:
                return record
        except RecordRemoved:
            return None
        except RecordNotFound:
            pass
        try:
            return record_reader.find_record(directory, record_id, archive)
        except JournalFailed as error:  # its first line is damaged
            raise RecordDamaged(str(error)) from error
