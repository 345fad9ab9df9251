"""The stamp filter (transport archive-stamp): captures a message and reinjects it.

Called by intake/pipe and intake/lmtp_worker, as the first content filter. The order of
the steps keeps mail safe: first Postfix accepts the envelope on the reinjection port;
then the store gets the archive copy (stamp_filter/write_through), or Postfix's queue
the capsule; last Postfix gets the original with its stamps. Any failure defers, and a
retry repeats the steps that are not done.
"""

from __future__ import annotations

from postfix_archive.config import archive_cf
from postfix_archive.errors import (
    CapsuleBroken,
    PostfixRefused,
    PostfixUnreachable,
    SealInvalid,
    WriteThroughFailed,
    WriteThroughSkipped,
)
from postfix_archive.message import address, capsule, log_fields, request, smtp_data
from postfix_archive.message.envelope import Recipient
from postfix_archive.postfix import smtp_client
from postfix_archive.stamp_filter import capture_plan
from postfix_archive.stamp_filter.transaction import is_completed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.message.envelope import Envelope
    from postfix_archive.stamp_filter.capture_plan import (
        DeliveryRequest,
        HeaderScan,
        Plan,
    )
    from postfix_archive.stamp_filter.transaction import Transaction


def filter_message(transaction: Transaction) -> str:
    """Capture one message and reinject it; return the line for Postfix's log.

    The sender may get that line in a DSN.
    """
    head = transaction.message.head()
    delivery = capture_plan.delivery_request(transaction)
    user_id = archive_cf.mail_owner_uid
    scan = capture_plan.HeaderScan(
        head, delivery, transaction.settings, transaction.keys, user_id=user_id
    )
    if scan.origin.is_new:  # a local user has sent to capture recipients
        delivery.forged_count += delivery.claimed_count + delivery.added_count
    if request.is_capsule(transaction.recipients):
        try:
            return _requeue_capsule(transaction)
        except (CapsuleBroken, SealInvalid):
            # Only postsuper -r brings capsules here. One that a local user sends is no
            # capsule with a lost key, and must not wait for it.
            if not scan.origin.is_new:
                raise
    digests = transaction.message.digests(scan.offsets)
    if capture_plan.is_requeued_copy(delivery, scan, digests, transaction.keys):
        return _requeue_archive_copy(transaction, delivery)
    plan = capture_plan.make(
        delivery,
        scan,
        digests,
        transaction.message.size,
        transaction.settings,
        transaction.keys,
        now=transaction.now,
    )
    if not delivery.recipients:
        capture_result = _capture(transaction, plan)
        return _log_line(delivery, plan, capture_result, reinjected_as="")
    session = _open_session(transaction, delivery, scan, head)
    capture_result = _capture(transaction, plan)
    queue_id = _reinject(session, transaction, delivery, plan)
    return _log_line(delivery, plan, capture_result, reinjected_as=queue_id)


def _log_line(
    delivery: DeliveryRequest,
    plan: Plan,
    capture_result: CaptureResult,
    *,
    reinjected_as: str,
) -> str:
    alarms = [*capture_plan.alarms(delivery), *capture_result.alarms]
    return log_fields.build(
        {
            "id": plan.envelope.archive_id if plan.envelope is not None else "",
            "as": reinjected_as,
            "alarm": ",".join(alarms),
            "forged": str(delivery.forged_count or ""),
            "result": capture_result.result,
        }
    )


def _open_session(
    transaction: Transaction, delivery: DeliveryRequest, scan: HeaderScan, head: bytes
) -> smtp_client.Session | None:
    """Send MAIL and every RCPT; return the session, None if SMTP cannot carry them.

    In that case the session is closed: it would occupy a cleanup(8) process that QMQP
    may need.
    """
    port = transaction.service_address(b"handback-address")
    session = transaction.connection_cache.take(port)
    try:
        can_carry = _send_envelope(session, transaction, delivery, scan, head)
    except (PostfixUnreachable, PostfixRefused):
        session.close()
        if session.is_fresh:
            raise
        session = smtp_client.Session(
            port
        )  # Postfix has just closed the cached connection
        can_carry = _send_envelope(session, transaction, delivery, scan, head)
    if can_carry:
        return session
    session.close()
    return None


def _send_envelope(
    session: smtp_client.Session,
    transaction: Transaction,
    delivery: DeliveryRequest,
    scan: HeaderScan,
    head: bytes,
) -> bool:
    is_local = delivery.is_local
    if is_local is None:
        is_local = capture_plan.is_local_client(
            delivery.client, transaction.settings.archive_local_clients
        )
    session.prepare_xforward(delivery.client, delivery.queue_id, local=is_local)
    return session.send_envelope(
        delivery.sender,
        tuple(map(_as_submitted, delivery.recipients)),
        smtputf8=capture_plan.needs_smtputf8(delivery, scan, head),
        eightbit=capture_plan.needs_8bitmime(delivery, transaction.message.shape()),
        envid=delivery.envid,
        ret=delivery.ret,
    )


def _as_submitted(recipient: Recipient) -> Recipient:
    """Return a recipient without the domain that Postfix has added, if it has.

    The last hop adds it again, so X-Original-To: is what it was without the archive.
    Only pipe(8) tells: lmtp(8) sends as ORCPT what cleanup(8) has made of the name.
    """
    name = recipient.original
    if not name or b"@" in name or not is_completed(name, recipient.final):
        return recipient
    orcpt = address.orcpt(address.unquote(recipient.final))
    return Recipient(name, notify=recipient.notify, orcpt=orcpt)


class CaptureResult:
    """What became of the archive copy: ``result`` and alarms for the log line."""

    __slots__ = ("alarms", "result")

    def __init__(self, result: str, alarms: Iterable[str] = ()) -> None:
        self.result = result
        self.alarms = alarms


def _capture(transaction: Transaction, plan: Plan) -> CaptureResult:
    """Store the archive copy, or queue the capsule, if there are requests.

    Durable on return.
    """
    if plan.envelope is None:
        return CaptureResult("none")
    if transaction.settings.has_write_through:
        try:
            alarms = transaction.write_through.archive(
                transaction.message, plan.envelope, transaction.now
            )
            return CaptureResult("done", alarms)
        except WriteThroughSkipped:
            pass
        except WriteThroughFailed as error:  # the archive transport will try again
            _log_write_through_failure(transaction, plan.envelope, error)
    preamble = capsule.make_preamble(
        plan.envelope,
        transaction.keys,
        sender=transaction.settings.archive_from,
        now=transaction.now,
    )
    _queue_capsule(transaction, capsule.pack(preamble, transaction.message.chunks()))
    return CaptureResult("queued")


def _log_write_through_failure(
    transaction: Transaction, envelope: Envelope, error: WriteThroughFailed
) -> None:
    from postfix_archive.system import failure_log  # rarely needed

    fields = {
        "queue_id": transaction.macros[b"queue-id"].decode("utf-8", "replace"),
        "id": envelope.archive_id,
        "result": "queued",
        "reason": str(error),
    }
    failure_log.record(
        fields,
        config_directory=transaction.settings.config_directory,
        spool_directory=transaction.settings.archive_spool_directory,
    )


def _reinject(
    session: smtp_client.Session | None,
    transaction: Transaction,
    delivery: DeliveryRequest,
    plan: Plan,
) -> str:
    """Reinject the original with its stamps; return the new queue id."""

    def stamped_message() -> Iterable[bytes]:
        return smtp_data.chain((plan.stamps,), transaction.message.chunks())

    if session is not None:
        queue_id = session.send_message(stamped_message())
        transaction.connection_cache.put_back(session)
        return queue_id
    from postfix_archive.postfix import qmqp_client  # rarely needed

    port = transaction.service_address(b"refused-address")
    return qmqp_client.send_message(
        port, delivery.sender, delivery.recipients, stamped_message
    )


def _requeue_capsule(transaction: Transaction) -> str:
    """Queue a capsule again for the archive transport, after postsuper -r."""
    message = transaction.message
    head = message.head(limit=2 * capsule.FIELDS_LIMIT)
    plain_head, plain_size = head, message.size
    if capsule.is_packed(head):
        plain_head = b"".join(capsule.unpack((head,)))
        rest = message.chunks(len(head))
        plain_size = sum(map(len, capsule.unpack(smtp_data.chain((head,), rest))))
    opened_capsule = capsule.unseal(plain_head, transaction.keys)
    opened_capsule.require_whole(plain_size)
    queue_id = _queue_capsule(transaction, message.chunks())
    return log_fields.build(
        {
            "capsule": opened_capsule.envelope.archive_id,
            "as": queue_id,
            "result": "requeued",
        }
    )


def _requeue_archive_copy(transaction: Transaction, delivery: DeliveryRequest) -> str:
    """Send an archive copy to its archive address again, after postsuper -r."""
    queue_id = smtp_client.submit(
        transaction.settings.copy_port,
        delivery.sender,
        delivery.recipients,
        transaction.message.chunks(),
        eightbit=not transaction.message.shape().is_ascii,
    )
    return log_fields.build({"as": queue_id, "result": "requeued"})


def _queue_capsule(transaction: Transaction, content: Iterable[bytes]) -> str:
    """Queue a capsule for the archive transport; return the queue id."""
    port = transaction.settings.archive_capsule_address
    recipients = (Recipient(request.CAPSULE_RECIPIENT),)
    helo = archive_cf.load_capsule_helo(transaction.settings)
    return smtp_client.submit(
        port, b"", recipients, content, eightbit=True, notify=b"NEVER", helo=helo
    )
