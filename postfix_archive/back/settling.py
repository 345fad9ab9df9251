"""Stores and mails the outcome report of a record whose recipients are all settled.

Used by everything that appends outcomes to a journal. First the store, then the mail,
then the journal event that it was mailed: a process that is killed between two steps
and repeats them stores one report, and mails it at most twice, with the same
Message-Id.
"""

from __future__ import annotations

from postfix_archive.back import handback, reading, store, stored
from postfix_archive.core import archiving, digest, outcome_report, report, trace, wire
from postfix_archive.core.envelope import Recipient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.record import Record
    from postfix_archive.core.settings import Settings


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
    directory = settings.archive_store_directory
    store_archive = store.Archive(directory, archive)
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
        record.archive_id, report_name, trace.format_rfc3339(now), queue_id
    )
    result = result or f"{record.archive_id}: outcome report already stored"
    return f"{result}; mailed, queued as {queue_id}"


def _needs_mail(settings: Settings, record: Record) -> bool:
    if not settings.archive_outcome_mail:
        return False
    return not archiving.could_loop(record.envelope, record.request, settings)


def _store_report(
    settings: Settings,
    keys: Keyring,
    store_archive: store.Archive,
    record: Record,
    now: int,
) -> str:
    """Store the report; return its file name."""
    covers = record.results.sha256
    content = outcome_report.build(
        record,
        reading.original_head(settings.archive_store_directory, record),
        sender=settings.archive_from,
        boundary=report.make_boundary(record.archive_id, covers, keys),
        now=now,
    )
    timestamp = trace.format_rfc3339(now)
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
    content = b"".join(stored.decompress(path))
    content_sha256 = digest.sha256_of((content,)).digest()
    stamp_line = archiving.make_copy_stamp(
        record.archive_id, record.request, content_sha256, keys, now=now
    )
    return handback.submit(
        settings.copy_port,
        settings.archive_sender,
        (Recipient(record.archive.encode()),),
        wire.chain((stamp_line,), (content,)),
        eightbit=not content.isascii(),
    )
