"""The archive transport: opens a capsule, stores the archive copy, mails it.

Called by intake/pipe and intake/lmtp_worker, by archive_transport/fallback_import for
capsules in the fallback directory, and by stamp_filter/write_through for messages that
need no capsule. The store comes before the mail, so a mailed copy that bounces is not
lost. If the store fails, the capsule goes into the fallback directory. Every other
failure defers the capsule in Postfix's queue; a retry does the steps that are not done.
"""

from __future__ import annotations

from postfix_archive.back import fallback, handback, spool, store, stored, turns
from postfix_archive.core import (
    archiving,
    capsule,
    digest,
    marker,
    report,
    stamp,
    trace,
    wire,
)
from postfix_archive.core.envelope import Recipient
from postfix_archive.core.errors import ALARM, JournalFailed, StoreFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.back.spool import Spool
    from postfix_archive.core.capsule import Capsule
    from postfix_archive.core.envelope import Request
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.outcome_report import KnownOutcomes
    from postfix_archive.core.report import ArchiveCopy, EnvelopeReport
    from postfix_archive.core.settings import Settings
    from postfix_archive.core.wire import ContentProperties
    from postfix_archive.front.pipe import Transaction


class ArchiveJob:
    """One message to archive, with settings and keys; ``now`` is Unix time.

    ``message`` is a capsule, or for write-through the original itself.
    """

    __slots__ = ("known_outcomes", "keys", "message", "now", "settings")

    def __init__(
        self, message: Spool, settings: Settings, keys: Keyring, now: int
    ) -> None:
        self.message = message
        self.settings = settings
        self.keys = keys
        self.now = now
        self.known_outcomes: KnownOutcomes | None = (
            None  # outcomes that are known already
        )

    @property
    def timestamp(self) -> str:
        """``now`` as the journal writes it."""
        return trace.format_rfc3339(self.now)


class CapturedMessage:
    """A captured message: its envelope, and what was determined from the original."""

    __slots__ = (
        "sha256",
        "has_forged_marker",
        "head",
        "opened_capsule",
        "job",
        "shape",
    )

    def __init__(
        self,
        job: ArchiveJob,
        opened_capsule: Capsule,
        sha256: str,
        shape: ContentProperties,
    ) -> None:
        self.job = job
        self.opened_capsule = opened_capsule
        self.head = job.message.head(opened_capsule.original_offset)
        self.sha256 = sha256
        self.shape = shape
        report_format = job.settings.archive_report_format
        needs_marker_check = (
            job.settings.has_mail_delivery and report_format in marker.MARKED_FORMATS
        )
        self.has_forged_marker = needs_marker_check and marker.has_marker(
            self.original()
        )

    @property
    def size(self) -> int:
        """Size of the original in bytes."""
        return self.job.message.size - self.opened_capsule.original_offset

    def original(self) -> Iterable[bytes]:
        """Return the bytes of the original, in chunks."""
        return self.job.message.chunks(self.opened_capsule.original_offset)

    def content(self, copy: ArchiveCopy, *, is_mailed: bool = False) -> Iterable[bytes]:
        """Return the bytes of an archive copy.

        In a mailed copy, journal markers within the original are put in lower case, so
        that no importer takes them for ours.
        """
        original = self.original() if copy.has_original else ()
        if is_mailed and self.has_forged_marker:
            original = marker.lowercase_markers(original)
        return wire.chain((copy.preamble,), original, (copy.trailer,))

    def piece(self, request: Request) -> stored.Capture:
        """Return what the store needs to record this message in one archive."""
        return stored.Capture(
            record_id=archiving.record_id(self.opened_capsule, request),
            capsule_id=self.opened_capsule.capsule_id,
            envelope_fields=self.opened_capsule.fields,
            sha256=self.sha256,
            size=self.size,
            verdict=request.verdict,
            lines_above=archiving.header_above_stamp(self.head, request),
        )


def archive_capsule(transaction: Transaction) -> str:
    """Archive one capsule, else put it into the fallback directory.

    Returns the line for Postfix's log, alarms first: pipe(8) logs 100 characters.
    """
    transaction.message = spool.unpack(
        transaction.message, transaction.settings.archive_spool_directory
    )
    job = ArchiveJob(
        transaction.message, transaction.settings, transaction.keys, transaction.now
    )
    if transaction.settings.archive_wait_for_outcome:
        job.known_outcomes = _known_outcomes(transaction)
    try:
        return archive_message(job)
    except (StoreFailed, JournalFailed) as error:
        reason = f"{type(error).__name__}: {error}"
        try:
            fallback.put(
                transaction.settings.archive_fallback_directory,
                transaction.message,
                reason,
            )
        except StoreFailed as fallback_error:
            raise type(error)(
                f"{error}; fallback directory: {fallback_error}"
            ) from fallback_error
        return f"{ALARM} IN THE FALLBACK DIRECTORY, {reason}"


def _known_outcomes(transaction: Transaction) -> KnownOutcomes:
    """Return the outcomes of the message. Raises OutcomePending until all are known."""
    # Imported here: slow, and few archives wait for outcomes.
    from postfix_archive.back import awaiting

    head = transaction.message.head(limit=capsule.FIELDS_LIMIT)
    sealed_envelope = capsule.unseal(head, transaction.keys).envelope
    return awaiting.find_outcomes(
        transaction.settings, sealed_envelope, transaction.now
    )


def archive_message(job: ArchiveJob) -> str:
    """Archive the message of one capsule for all its requests; return the log line.

    Durable on return. Raises StoreFailed and JournalFailed if the store fails.
    """
    opened_capsule = capsule.unseal(
        job.message.head(limit=capsule.FIELDS_LIMIT), job.keys
    )
    start = opened_capsule.original_offset
    sha256 = job.message.digests([start])[start].hex()
    alarms, results = archive_captured(
        CapturedMessage(job, opened_capsule, sha256, job.message.shape(start))
    )
    if sha256 != opened_capsule.envelope.sha256:
        alarms.append(f"{ALARM} the message was altered in the queue after its capture")
    return "; ".join(
        [*alarms, f"archived as {opened_capsule.envelope.archive_id}", *results]
    )


def archive_captured(captured: CapturedMessage) -> tuple[list[str], list[str]]:
    """Archive a message for all its requests; return alarms and other results.

    Durable on return. Raises StoreFailed and JournalFailed if the store fails.
    """
    results = [
        _archive_for_request(captured, each)
        for each in captured.opened_capsule.envelope.requests
    ]
    alarms = [each for each in results if each.startswith(ALARM)]
    return alarms, [each for each in results if not each.startswith(ALARM)]


def _archive_for_request(captured: CapturedMessage, request: Request) -> str:
    """Store, mail, or both, for one request, as archive_delivery says."""
    report_data = archiving.build_report(
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
        return _mail_only(captured, request, report_data)
    if not settings.has_mail_delivery:
        return _store_and_mail(captured, request, report_data)
    lock_name = (
        f"{request.address} {archiving.record_id(captured.opened_capsule, request)}"
    )
    with turns.RecordLock(settings.archive_fallback_directory, lock_name):
        return _store_and_mail(captured, request, report_data)


def _store_and_mail(
    captured: CapturedMessage, request: Request, report_data: EnvelopeReport
) -> str:
    """Store the copy, and mail it if that is configured and not done yet."""
    sealed_envelope = captured.opened_capsule.envelope
    settings = captured.job.settings
    archive = store.Archive(
        settings.archive_store_directory,
        request.address,
        marker_directory=settings.archive_fallback_directory,
    )
    piece = captured.piece(request)
    if request.verdict == stamp.VALID and archive.has_copy(piece.record_id):
        events = archive.add_supplement(piece, captured.job.timestamp)
    else:
        events = _store_copy(captured, archive, piece, report_data)
    if store.ARCHIVED not in events and request.verdict == stamp.VALID:
        return f"{request.address}: supplement to {piece.record_id}"
    is_mailed = archiving.is_mailed(sealed_envelope, request, settings)
    if not is_mailed or store.MAILED in events:
        return f"{request.address}: stored"
    queue_ids = _mail_copies(captured, request, report_data)
    archive.record_mailed(piece, captured.job.timestamp, queue_ids)
    return f"{request.address}: stored and mailed, queued as {queue_ids}"


def _store_copy(
    captured: CapturedMessage,
    archive: store.Archive,
    piece: stored.Capture,
    report_data: EnvelopeReport,
) -> set[str]:
    """Store the copy; return the events that the journal has for this capsule."""
    boundary = report.make_boundary(piece.record_id, captured.sha256, captured.job.keys)
    sender = captured.job.settings.archive_from
    copy = report.build(report_data, "hybrid", sender=sender, boundary=boundary)
    return archive.store_copy(piece, captured.content(copy), captured.job.timestamp)


def _mail_only(
    captured: CapturedMessage, request: Request, report_data: EnvelopeReport
) -> str:
    """Mail the copy, or a supplement, in a configuration without a store."""
    if request.is_stamp_trusted and request.generation:
        return f"{request.address}: an archive copy came back, nothing to add"
    if not archiving.is_mailed(
        captured.opened_capsule.envelope, request, captured.job.settings
    ):
        return (
            f"{ALARM} NOT MAILED to {request.address}: a copy of a copy, or its bounce"
        )
    kind = "supplement" if request.is_stamp_trusted else "copy"
    queue_ids = _mail_copies(captured, request, report_data)
    return f"{request.address}: {kind} mailed, queued as {queue_ids}"


def _mail_copies(
    captured: CapturedMessage, request: Request, report_data: EnvelopeReport
) -> str:
    """Mail the copy to the archive address; return Postfix's queue ids."""
    if captured.has_forged_marker and not request.is_stamp_trusted:
        archiving.note_forged_marker(report_data, captured.sha256)
    recipients_per_copy = captured.job.settings.archive_journal_recipients_per_copy
    copies = archiving.split_report(report_data, recipients_per_copy)
    return " ".join(_mail_copy(captured, request, each) for each in copies)


def _mail_copy(
    captured: CapturedMessage, request: Request, report_data: EnvelopeReport
) -> str:
    settings = captured.job.settings
    copy = report.build(
        report_data,
        "supplement" if request.is_stamp_trusted else settings.archive_report_format,
        sender=settings.archive_from,
        boundary=report.make_boundary(
            captured.opened_capsule.envelope.archive_id,
            captured.sha256,
            captured.job.keys,
        ),
    )
    copy_stamp = archiving.make_copy_stamp(
        archiving.record_id(captured.opened_capsule, request),
        request,
        digest.sha256_of(captured.content(copy, is_mailed=True)).digest(),
        captured.job.keys,
        now=captured.job.now,
    )
    return handback.submit(
        settings.copy_port,
        settings.archive_sender,
        (Recipient(request.address.encode()),),
        wire.chain((copy_stamp,), captured.content(copy, is_mailed=True)),
        eightbit=not (copy.preamble.isascii() and captured.shape.is_ascii),
    )
