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
    from postfix_archive.core.capsule import Opened
    from postfix_archive.core.envelope import Request
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.outcome_report import Became
    from postfix_archive.core.report import Copy, Told
    from postfix_archive.core.settings import Settings
    from postfix_archive.core.wire import Shape
    from postfix_archive.front.pipe import Run


class Case:
    """One message to archive, with settings and keys; ``now`` is Unix time.

    ``message`` is a capsule, or for write-through the original itself.
    """

    __slots__ = ("became", "keys", "message", "now", "settings")

    def __init__(
        self, message: Spool, settings: Settings, keys: Keyring, now: int
    ) -> None:
        self.message = message
        self.settings = settings
        self.keys = keys
        self.now = now
        self.became: Became | None = None  # outcomes that are known already

    @property
    def time(self) -> str:
        """``now`` as the journal writes it."""
        return trace.timestamp(self.now)


class Work:
    """A captured message: its envelope, and what was determined from the original."""

    __slots__ = ("digest", "forged_marker", "head", "opened", "run", "shape")

    def __init__(self, run: Case, opened: Opened, digest: str, shape: Shape) -> None:
        self.run = run
        self.opened = opened
        self.head = run.message.head(opened.start)
        self.digest = digest
        self.shape = shape
        form = run.settings.archive_report_format
        marked = run.settings.mails and form in marker.FORMS
        self.forged_marker = marked and marker.is_in(self.original())

    @property
    def size(self) -> int:
        """Size of the original in bytes."""
        return self.run.message.size - self.opened.start

    def original(self) -> Iterable[bytes]:
        """Return the bytes of the original, in chunks."""
        return self.run.message.pieces(self.opened.start)

    def content(self, copy: Copy, *, mailed: bool = False) -> Iterable[bytes]:
        """Return the bytes of an archive copy.

        In a mailed copy, journal markers within the original are put in lower case, so
        that no importer takes them for ours.
        """
        original = self.original() if copy.with_original else ()
        if mailed and self.forged_marker:
            original = marker.lowered(original)
        return wire.chained((copy.preamble,), original, (copy.trailer,))

    def piece(self, request: Request) -> stored.Piece:
        """Return what the store needs to record this message in one archive."""
        return stored.Piece(
            record_id=archiving.record_id(self.opened, request),
            key=self.opened.key,
            fields=self.opened.fields,
            digest_=self.digest,
            size=self.size,
            verdict=request.verdict,
            above=archiving.lines_above(self.head, request),
        )


def door(run: Run) -> str:
    """Archive one capsule, else put it into the fallback directory.

    Returns the line for Postfix's log, alarms first: pipe(8) logs 100 characters.
    """
    run.message = spool.unpacked(run.message, run.settings.archive_spool_directory)
    case = Case(run.message, run.settings, run.keys, run.now)
    if run.settings.archive_wait_for_outcome:
        case.became = _awaited(run)
    try:
        return archived(case)
    except (StoreFailed, JournalFailed) as error:
        why = f"{type(error).__name__}: {error}"
        try:
            fallback.put(run.settings.archive_fallback_directory, run.message, why)
        except StoreFailed as second:
            raise type(error)(f"{error}; fallback directory: {second}") from second
        return f"{ALARM} IN THE FALLBACK DIRECTORY, {why}"


def _awaited(run: Run) -> Became:
    """Return the outcomes of the message. Raises OutcomePending until all are known."""
    # Imported here: slow, and few archives wait for outcomes.
    from postfix_archive.back import awaiting

    head = run.message.head(limit=capsule.FIELDS_LIMIT)
    sealed = capsule.opened(head, run.keys).envelope
    return awaiting.known(run.settings, sealed, run.now)


def archived(case: Case) -> str:
    """Archive the message of one capsule for all its requests; return the log line.

    Durable on return. Raises StoreFailed and JournalFailed if the store fails.
    """
    opened = capsule.opened(case.message.head(limit=capsule.FIELDS_LIMIT), case.keys)
    start = opened.start
    came = case.message.digests([start])[start].hex()
    loud, quiet = kept(Work(case, opened, came, case.message.shape(start)))
    if came != opened.envelope.digest:
        loud.append(f"{ALARM} the message was altered in the queue after its capture")
    return "; ".join([*loud, f"archived as {opened.envelope.archive_id}", *quiet])


def kept(work: Work) -> tuple[list[str], list[str]]:
    """Archive a message for all its requests; return alarms and other results.

    Durable on return. Raises StoreFailed and JournalFailed if the store fails.
    """
    done = [_kept_in(work, each) for each in work.opened.envelope.requests]
    loud = [each for each in done if each.startswith(ALARM)]
    return loud, [each for each in done if not each.startswith(ALARM)]


def _kept_in(work: Work, request: Request) -> str:
    """Store, mail, or both, for one request, as archive_delivery says."""
    found = archiving.told(
        work.opened,
        request,
        work.head,
        work.shape,
        digest=work.digest,
        size=work.size,
    )
    if work.run.became is not None and work.run.became.fields:
        found.became = work.run.became.fields
        found.remarks.append(work.run.became.summary)
    settings = work.run.settings
    if not settings.stores:
        return _sent_only(work, request, found)
    if not settings.mails:
        return _stored(work, request, found)
    name = f"{request.address} {archiving.record_id(work.opened, request)}"
    with turns.Turn(settings.archive_fallback_directory, name):
        return _stored(work, request, found)


def _stored(work: Work, request: Request, found: Told) -> str:
    """Store the copy, and mail it if that is configured and not done yet."""
    sealed = work.opened.envelope
    settings = work.run.settings
    archive = store.Archive(
        settings.archive_store_directory,
        request.address,
        witness=settings.archive_fallback_directory,
    )
    piece = work.piece(request)
    if request.verdict == stamp.VALID and archive.has(piece.record_id):
        done = archive.supplement(piece, work.run.time)
    else:
        done = _kept(work, archive, piece, found)
    if store.ARCHIVED not in done and request.verdict == stamp.VALID:
        return f"{request.address}: supplement to {piece.record_id}"
    mailed = archiving.is_mailed(sealed, request, settings)
    if not mailed or store.MAILED in done:
        return f"{request.address}: stored"
    queued = _mailed(work, request, found)
    archive.mailed(piece, work.run.time, queued)
    return f"{request.address}: stored and mailed, queued as {queued}"


def _kept(
    work: Work, archive: store.Archive, piece: stored.Piece, found: Told
) -> set[str]:
    """Store the copy; return the events that the journal has for this capsule."""
    boundary = report.boundary(piece.record_id, work.digest, work.run.keys)
    sender = work.run.settings.archive_from
    copy = report.written(found, "hybrid", sender=sender, boundary_=boundary)
    return archive.keep(piece, work.content(copy), work.run.time)


def _sent_only(work: Work, request: Request, found: Told) -> str:
    """Mail the copy, or a supplement, in a configuration without a store."""
    if request.spared and request.copy:
        return f"{request.address}: an archive copy came back, nothing to add"
    if not archiving.is_mailed(work.opened.envelope, request, work.run.settings):
        return (
            f"{ALARM} NOT MAILED to {request.address}: a copy of a copy, or its bounce"
        )
    what = "supplement" if request.spared else "copy"
    queued = _mailed(work, request, found)
    return f"{request.address}: {what} mailed, queued as {queued}"


def _mailed(work: Work, request: Request, found: Told) -> str:
    """Mail the copy to the archive address; return Postfix's queue ids."""
    if work.forged_marker and not request.spared:
        archiving.with_forged_marker(found, work.digest)
    count = work.run.settings.archive_journal_recipients_per_copy
    copies = archiving.dealt_out(found, count)
    return " ".join(_sent(work, request, each) for each in copies)


def _sent(work: Work, request: Request, found: Told) -> str:
    settings = work.run.settings
    copy = report.written(
        found,
        "supplement" if request.spared else settings.archive_report_format,
        sender=settings.archive_from,
        boundary_=report.boundary(
            work.opened.envelope.archive_id, work.digest, work.run.keys
        ),
    )
    mark = archiving.copy_stamp(
        archiving.record_id(work.opened, request),
        request,
        digest.of(work.content(copy, mailed=True)).digest(),
        work.run.keys,
        now=work.run.now,
    )
    return handback.submit(
        settings.copy_port,
        settings.archive_sender,
        (Recipient(request.address.encode()),),
        wire.chained((mark,), work.content(copy, mailed=True)),
        eightbit=not (copy.preamble.isascii() and work.shape.ascii),
    )
