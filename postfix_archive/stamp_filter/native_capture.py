"""Native mode (transport archive-capture): archives a message, reinjects nothing.

Called by intake/pipe and intake/lmtp_worker. Postfix delivers the message to its
recipients and, as the same queue file, to the capture recipients that cleanup(8) has
added (message/request). So nobody's mail waits here, and the queue file stays until the
message is in the archive: every failure defers the capture recipients alone. Mail gets
no stamp: what comes back is recognised by its content (recent_captures).
"""

from __future__ import annotations

from postfix_archive import errors
from postfix_archive.archive_transport import archive_job, transport
from postfix_archive.config import archive_cf
from postfix_archive.errors import (
    ArchiveError,
    ArgumentsInvalid,
    StoreFailed,
    WriteThroughFailed,
    WriteThroughSkipped,
    WriteThroughTimeout,
)
from postfix_archive.message import capsule, log_fields, request
from postfix_archive.stamp_filter import capture_plan, write_through
from postfix_archive.system import deadline, spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.archive_transport.recent_captures import RecentCaptures
    from postfix_archive.message.envelope import Envelope
    from postfix_archive.stamp_filter.transaction import Transaction


STORE_TIME = 20  # seconds, as lmtp_data_done_timeout in 50-archive-capture.cf


def archive_in_time(transaction: Transaction) -> str:
    """Archive one message as archive_message() does, within STORE_TIME.

    For pipe(8), which waits for a process as long as it takes, while captures fill the
    active queue: with that full, live mail would wait for a store that hangs. Raises
    StoreFailed if it hangs; whatever the child process still does, the retry finds. A
    large message takes its time.
    """
    settings = transaction.settings

    def archive_in_child(_: bytes) -> str:
        deadline.set_deadline(settings.archive_time_limit)
        return archive_message(transaction)

    calls = write_through.TimeLimitedCalls(archive_in_child, settings, STORE_TIME)
    try:
        calls.require_fast_store(transaction.now)
        if transaction.message.size > spool.MEMORY_LIMIT:
            return archive_message(transaction)
        return calls.call(b"message")
    except (WriteThroughSkipped, WriteThroughTimeout) as error:
        path = settings.archive_store_directory
        raise StoreFailed(f"{path}: {error}; the message is tried again") from error
    except WriteThroughFailed as error:
        raise _error_of_child(str(error)) from error


def _error_of_child(text: str) -> ArchiveError:
    """Return the error of which child_process has sent the name and the text."""
    name, _, reason = text.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ArchiveError):
        return kind(reason)
    return WriteThroughFailed(text)


def archive_message(transaction: Transaction) -> str:
    """Archive one message; return the line for Postfix's log. Durable on return.

    Raises ArgumentsInvalid, and what archive_transport/transport raises.
    """
    delivery = capture_plan.delivery_request(transaction)
    if delivery.recipients:
        raise ArgumentsInvalid(
            "archive-capture got a recipient that is no capture recipient, and delivers"
            " to nobody; check transport_maps and FILTER actions"
        )
    settings, keys, message = (
        transaction.settings,
        transaction.keys,
        transaction.message,
    )
    head = message.head()
    scan = capture_plan.HeaderScan(
        head, delivery, settings, keys, user_id=archive_cf.mail_owner_uid
    )
    if scan.origin.is_new:  # a local user has sent to capture recipients
        delivery.forged_count += delivery.claimed_count
    elif request.is_capsule(transaction.recipients):  # left by a content filter
        return transport.archive_capsule(
            archive_job.ArchiveJob(message, settings, keys, transaction.now)
        )
    digests = message.digests(scan.offsets)
    if capture_plan.is_requeued_copy(delivery, scan, digests, keys):
        return log_fields.build({"result": "none"})  # it is in the archive
    recent_captures, returned = None, {}
    if settings.has_store:
        recent_captures = transaction.recent_captures
        archives = delivery.request_sources
        returned = recent_captures.find(message, head, archives, transaction.now)
    plan = capture_plan.make(
        delivery,
        scan,
        digests,
        message.size,
        settings,
        keys,
        now=transaction.now,
        returned=returned,
        is_reinjected=False,
    )
    result, archive_id = transport.ArchiveResult(), ""
    if plan.envelope is not None:
        archive_id = plan.envelope.archive_id
        result = _archive(transaction, plan.envelope, recent_captures)
    result.alarms[:0] = capture_plan.alarms(delivery)
    return result.log_line(archive_id, forged_count=delivery.forged_count)


def _archive(
    transaction: Transaction,
    message_envelope: Envelope,
    recent_captures: RecentCaptures | None,
) -> transport.ArchiveResult:
    job = archive_job.ArchiveJob(
        transaction.message, transaction.settings, transaction.keys, transaction.now
    )
    job.recent_captures = recent_captures
    if job.settings.archive_wait_for_outcome:
        job.known_outcomes = transport.known_outcomes(job, message_envelope)
    captured = archive_job.CapturedMessage(
        job,
        capsule.from_envelope(message_envelope),
        message_envelope.sha256,
        transaction.message.shape(),
    )
    return transport.archive_captured(captured)
