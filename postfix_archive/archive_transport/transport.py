"""The archive transport: opens a capsule, stores the archive copy, mails it.

Called by intake/pipe and intake/lmtp_worker, by archive_transport/fallback_import for
capsules in the fallback directory, and by stamp_filter for messages that need no
capsule (write_through, native_capture). The store comes before the mail, so a mailed
copy that bounces is not lost. If the store fails, the capsule goes into the fallback
directory. Every other failure defers the capsule in Postfix's queue; a retry does the
steps that are not done.
"""

from __future__ import annotations

import posix as os
from fcntl import LOCK_EX, lockf

from postfix_archive.archive_transport import copy_plan
from postfix_archive.archive_transport.archive_job import ArchiveJob, CapturedMessage
from postfix_archive.errors import (
    JournalFailed,
    PostfixRefused,
    PostfixUnreachable,
    RecordDamaged,
    StoreFailed,
)
from postfix_archive.message import (
    archive_copy,
    capsule,
    digest,
    log_fields,
    smtp_data,
    stamp,
)
from postfix_archive.message.envelope import Recipient
from postfix_archive.postfix import smtp_client
from postfix_archive.store import copy_file, fallback, journal
from postfix_archive.store.archive import Archive, of_settings
from postfix_archive.system import spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.message.archive_copy import EnvelopeReport
    from postfix_archive.message.envelope import Envelope, Request
    from postfix_archive.outcomes.outcome_report import KnownOutcomes


def archive_capsule(job: ArchiveJob) -> str:
    """Archive one capsule, else put it into the fallback directory.

    Returns the line for Postfix's log.
    """
    job.message = spool.unpack(job.message, job.settings.archive_spool_directory)
    if job.settings.archive_wait_for_outcome:
        head = job.message.head(limit=capsule.FIELDS_LIMIT)
        job.known_outcomes = known_outcomes(
            job, capsule.unseal(head, job.keys).envelope
        )
    try:
        return archive_message(job)
    except (StoreFailed, JournalFailed) as error:
        reason = f"{type(error).__name__}: {error}"
        try:
            fallback.put(job.settings.archive_fallback_directory, job.message, reason)
        except StoreFailed as fallback_error:
            raise type(error)(
                f"{error}; fallback directory: {fallback_error}"
            ) from fallback_error
        return _fallback_line(job, reason)


def _fallback_line(job: ArchiveJob, reason: str) -> str:
    """Return the line for Postfix's log; log the whole reason, which pipe(8) cuts."""
    from postfix_archive.system import failure_log  # rarely needed

    head = job.message.head(limit=capsule.FIELDS_LIMIT)
    fields = {
        "id": capsule.unseal(head, job.keys).envelope.archive_id,
        "alarm": "fallback",
        "reason": reason,
    }
    failure_log.record(
        fields,
        config_directory=job.settings.config_directory,
        spool_directory=job.settings.archive_spool_directory,
    )
    return log_fields.build(fields)


def known_outcomes(job: ArchiveJob, envelope: Envelope) -> KnownOutcomes:
    """Return the outcomes of the message. Raises OutcomePending until all are known."""
    # Imported here: slow, and few archives wait for outcomes.
    from postfix_archive.outcomes import wait_for_outcome

    return wait_for_outcome.find_outcomes(job.settings, envelope, job.now)


def archive_message(job: ArchiveJob) -> str:
    """Archive the message of one capsule for all its requests; return the log line.

    Durable on return. Raises StoreFailed and JournalFailed if the store fails, and
    CapsuleBroken if the capsule was cut short.
    """
    opened_capsule = capsule.unseal(
        job.message.head(limit=capsule.FIELDS_LIMIT), job.keys
    )
    opened_capsule.require_whole(job.message.size)
    start = opened_capsule.original_offset
    sha256 = job.message.digests([start])[start].hex()
    result = archive_captured(
        CapturedMessage(job, opened_capsule, sha256, job.message.shape(start))
    )
    if sha256 != opened_capsule.envelope.sha256:
        result.alarms.insert(0, "altered")
    return result.log_line(opened_capsule.envelope.archive_id)


# Failures of one archive: of its store, or of the mail to its address.
ARCHIVE_FAILURES = (
    StoreFailed,
    JournalFailed,
    RecordDamaged,
    PostfixUnreachable,
    PostfixRefused,
)


class ArchiveResult:
    """What was done with one message, for all its requests together.

    ``actions`` are of ACTIONS, ``alarms`` codes of docs/log-format.md, ``mailed_as``
    the queue ids of the mailed copies.
    """

    __slots__ = ("actions", "alarms", "mailed_as")

    ACTIONS = ("stored", "mailed", "supplement")

    def __init__(self) -> None:
        self.actions: set[str] = set()
        self.alarms: list[str] = []
        self.mailed_as: list[str] = []

    def log_line(self, archive_id: str, *, forged_count: int = 0) -> str:
        """Return the line for Postfix's log."""
        actions = [each for each in self.ACTIONS if each in self.actions]
        return log_fields.build(
            {
                "id": archive_id,
                "alarm": ",".join(self.alarms),
                "forged": str(forged_count or ""),
                "result": "+".join(actions) or "none",
                "mailed_as": ",".join(self.mailed_as),
            }
        )


def archive_captured(captured: CapturedMessage) -> ArchiveResult:
    """Archive a message for all its requests; return what was done.

    Durable on return. An archive that fails keeps no other from its copy: the first
    of ARCHIVE_FAILURES is raised at the end, and a retry does what is not done.
    """
    result = ArchiveResult()
    failures = []
    for each in captured.opened_capsule.envelope.requests:
        try:
            _archive_for_request(captured, each, result)
        except ARCHIVE_FAILURES as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return result


def _archive_for_request(
    captured: CapturedMessage, request: Request, result: ArchiveResult
) -> None:
    """Store, mail, or both, for one request, as archive_delivery says."""
    report_data = copy_plan.build_report(
        captured.opened_capsule,
        request,
        captured.head,
        captured.shape,
        sha256=captured.sha256,
        size=captured.size,
    )
    if captured.job.known_outcomes is not None and captured.job.known_outcomes.fields:
        report_data.outcome_fields = captured.job.known_outcomes.fields
        report_data.remarks.append(captured.job.known_outcomes.summary)
    settings = captured.job.settings
    if not settings.has_store:
        _mail_only(captured, request, report_data, result)
        return
    if not settings.has_mail_delivery:
        _store_and_mail(captured, request, report_data, result)
        return
    lock_name = (
        f"{request.address} {copy_plan.record_id(captured.opened_capsule, request)}"
    )
    with RecordLock(settings.archive_fallback_directory, lock_name):
        _store_and_mail(captured, request, report_data, result)


def _store_and_mail(
    captured: CapturedMessage,
    request: Request,
    report_data: EnvelopeReport,
    result: ArchiveResult,
) -> None:
    """Store the copy, and mail it if that is configured and not done yet."""
    sealed_envelope = captured.opened_capsule.envelope
    settings = captured.job.settings
    archive = of_settings(settings, request.address)
    events: set[str] = set()
    if request.verdict == stamp.VALID and archive.has_copy(request.stamp_id):
        piece = captured.piece(request, request.stamp_id)
        events = archive.add_supplement(piece, captured.job.timestamp)
    if not events:
        record_id = copy_plan.record_id(captured.opened_capsule, request)
        piece = captured.piece(request, record_id)
        events = _store_copy(captured, archive, piece, report_data)
    if journal.ARCHIVED not in events and request.verdict == stamp.VALID:
        result.actions.add("supplement")
        return
    result.actions.add("stored")
    is_mailed = copy_plan.is_mailed(sealed_envelope, request, captured.head, settings)
    if not is_mailed or journal.MAILED in events:
        return
    queue_ids = _mail_copies(captured, request, report_data)
    archive.record_mailed(piece, captured.job.timestamp, " ".join(queue_ids))
    result.actions.add("mailed")
    result.mailed_as += queue_ids


def _store_copy(
    captured: CapturedMessage,
    archive: Archive,
    piece: copy_file.Capture,
    report_data: EnvelopeReport,
) -> set[str]:
    """Store the copy; return the events that the journal has for this capsule."""
    boundary = archive_copy.make_boundary(
        piece.record_id, captured.sha256, captured.job.keys
    )
    sender = captured.job.settings.archive_from
    copy = archive_copy.build(report_data, "hybrid", sender=sender, boundary=boundary)
    return archive.store_copy(piece, captured.content(copy), captured.job.timestamp)


def _mail_only(
    captured: CapturedMessage,
    request: Request,
    report_data: EnvelopeReport,
    result: ArchiveResult,
) -> None:
    """Mail the copy, or a supplement, in a configuration without a store."""
    if request.is_stamp_trusted and request.generation:
        return  # an archive copy came back: there is nothing to add
    if not copy_plan.is_mailed(
        captured.opened_capsule.envelope, request, captured.head, captured.job.settings
    ):
        result.alarms.append("not-mailed")  # a copy of a copy, or its bounce
        return
    if request.is_stamp_trusted:
        result.actions.add("supplement")
    result.actions.add("mailed")
    result.mailed_as += _mail_copies(captured, request, report_data)


def _mail_copies(
    captured: CapturedMessage, request: Request, report_data: EnvelopeReport
) -> list[str]:
    """Mail the copy to the archive address; return Postfix's queue ids."""
    if captured.has_forged_marker and not request.is_stamp_trusted:
        copy_plan.note_forged_marker(report_data, captured.sha256)
    recipients_per_copy = captured.job.settings.archive_journal_recipients_per_copy
    copies = copy_plan.split_report(report_data, recipients_per_copy)
    return [_mail_copy(captured, request, each) for each in copies]


def _mail_copy(
    captured: CapturedMessage, request: Request, report_data: EnvelopeReport
) -> str:
    settings = captured.job.settings
    copy = archive_copy.build(
        report_data,
        "supplement" if request.is_stamp_trusted else settings.archive_report_format,
        sender=settings.archive_from,
        boundary=archive_copy.make_boundary(
            captured.opened_capsule.envelope.archive_id,
            captured.sha256,
            captured.job.keys,
        ),
    )
    copy_stamp = stamp.make_copy_stamp(
        copy_plan.record_id(captured.opened_capsule, request),
        request,
        digest.sha256_of(captured.content(copy, is_mailed=True)).digest(),
        captured.job.keys,
        now=captured.job.now,
    )
    return smtp_client.submit(
        settings.copy_port,
        settings.archive_sender,
        (Recipient(request.address.encode()),),
        smtp_data.chain((copy_stamp,), captured.content(copy, is_mailed=True)),
        eightbit=not (copy.preamble.isascii() and captured.shape.is_ascii),
    )


LOCK_FILE = "mailing"  # an empty file in archive_fallback_directory
LOCK_FILE_MODE = 0o600
# Byte range to lock in, one byte a record. Two records with the same byte are rare and
# only wait for each other.
LOCK_RANGE = 1 << 30


class RecordLock:
    """Holds the lock of one record until the context ends.

    Waits for another holder, at most until archive_time_limit. Goes on without a lock
    if the directory cannot be used: a copy mailed twice is better than one not mailed.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, directory: str, record_id: str) -> None:
        offset = int(digest.sha256_hex(record_id.encode())[:8], 16) % LOCK_RANGE
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = -1
        try:
            self._descriptor = os.open(
                f"{directory}/{LOCK_FILE}", flags, LOCK_FILE_MODE
            )
            lockf(self._descriptor, LOCK_EX, 1, offset)
        except OSError:
            pass

    def __enter__(self) -> RecordLock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
