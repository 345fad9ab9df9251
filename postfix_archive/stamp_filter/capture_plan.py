"""Plans the work of the stamp filter for one message: what to archive, what to stamp.

Used by stamp_filter/capture. Pure: values in, values out.

    DeliveryRequest (archive requests, recipients) -> HeaderScan (origin, stamps)
    -> digests -> verdict on each stamp -> Plan (envelope to archive, new stamps)
"""

from __future__ import annotations

from postfix_archive.message import (
    address,
    header,
    received_header,
    request,
    stamp,
    verp,
)
from postfix_archive.message.envelope import Envelope, Recipient, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postfix_archive.config.settings import Settings
    from postfix_archive.message.envelope import Client
    from postfix_archive.message.keyring import Keyring
    from postfix_archive.message.smtp_data import ContentProperties
    from postfix_archive.stamp_filter.transaction import Transaction

# Protocols with EHLO or LHLO, as Postfix names them.
ESMTP_PROTOCOLS = (b"ESMTP", b"UTF8SMTP", b"LMTP")


class DeliveryRequest:
    """A delivery request from Postfix, its recipients separated from archive requests.

    ``recipients`` are those to reinject, ``captured`` those of capture recipients, and
    ``added_count`` is the number of these that a content filter does not deliver to.
    ``request_sources`` maps each archive address to the source of its request. Only
    lmtp(8) sends ``ret``, ``smtputf8``, ``is_8bitmime`` (BODY=8BITMIME declared) and
    ``is_local`` (the client is local). The last two are None if unknown.
    """

    __slots__ = (
        "added_count",
        "request_sources",
        "captured",
        "claimed_count",
        "client",
        "envid",
        "forged_count",
        "is_8bitmime",
        "is_incomplete",
        "is_local",
        "recipients",
        "queue_id",
        "ret",
        "sender",
        "smtputf8",
    )

    def __init__(
        self,
        *,
        nexthop: str,
        queue_id: bytes,
        sender: bytes,
        recipients: tuple[Recipient, ...],
        client: Client,
        envid: bytes,
        keys: Keyring,
        ret: bytes = b"",
        smtputf8: bool = False,
        is_8bitmime: bool | None = None,
        is_local: bool | None = None,
    ) -> None:
        self.queue_id = queue_id
        self.sender = sender
        self.client = client
        self.envid = envid
        self.ret = ret
        self.smtputf8 = smtputf8
        self.is_8bitmime = is_8bitmime
        self.is_local = is_local
        split = request.SplitRecipients(recipients, keys)
        self.recipients = tuple(split.recipients)
        self.captured = tuple(map(Recipient, split.captured))
        self.forged_count = split.forged_count
        self.claimed_count = split.claimed_count
        self.added_count = 0
        if nexthop not in (request.CAPTURE_NEXTHOP, request.ON_REQUEST):
            known = {each.final for each in self.recipients}
            self.added_count = len([e for e in self.captured if e.final not in known])
        self.request_sources = dict.fromkeys(split.table_archives, "recipient")
        archives = split.capture_archives
        if nexthop != request.CAPTURE_NEXTHOP:
            archives = dict.fromkeys((*archives, *request.from_nexthop(nexthop)))
        self.request_sources.update(dict.fromkeys(archives, "nexthop"))
        if not self.recipients:
            self.sender = verp.true_sender(sender, recipients)
        # The other recipients, if any, went past us: by a FILTER action, or because
        # no capture recipients were added.
        only_requests = not self.recipients and not split.has_capture
        is_by_requests = nexthop in (request.ON_REQUEST, request.CAPTURE_NEXTHOP)
        self.is_incomplete = split.has_unmapped or (is_by_requests and only_requests)

    @property
    def envelope_recipients(self) -> tuple[Recipient, ...]:
        """The recipients to record."""
        known = {each.final for each in self.recipients}
        return self.recipients + tuple(
            each for each in self.captured if each.final not in known
        )


def delivery_request(transaction: Transaction) -> DeliveryRequest:
    """Return the delivery request of a transaction. Raises RequestInvalid."""
    return DeliveryRequest(
        nexthop=transaction.macros[b"nexthop"].decode("utf-8", "replace"),
        queue_id=transaction.macros[b"queue-id"],
        sender=transaction.macros[b"sender"],
        recipients=transaction.recipients,
        client=transaction.client,
        envid=transaction.macros[b"envid"],
        keys=transaction.keys,
        ret=transaction.ret,
        smtputf8=transaction.smtputf8,
        is_8bitmime=transaction.is_8bitmime,
        is_local=transaction.is_local,
    )


class HeaderScan:
    """What the header of a message tells: its origin and its stamps."""

    __slots__ = ("stamps", "origin")

    def __init__(
        self,
        head: bytes,
        delivery: DeliveryRequest,
        settings: Settings,
        keys: Keyring,
        *,
        user_id: Callable[[Settings], int],
    ) -> None:
        self.origin = received_header.find_origin(
            head,
            current_queue_id=delivery.queue_id,
            host=settings.myhostname,
            mail_owner=lambda: user_id(settings),
        )
        self.stamps = stamp.find(head, keys)

    @property
    def offsets(self) -> list[int]:
        """Offsets from which on the SHA-256 of the message is needed."""
        return sorted({0, self.origin.offset, *self.stamps.content_offsets})


class Plan:
    """The envelope to archive (None: archive nothing) and the new stamps."""

    __slots__ = ("envelope", "stamps")

    def __init__(self, envelope: Envelope | None, stamps: bytes) -> None:
        self.envelope = envelope
        self.stamps = stamps


def make(
    delivery: DeliveryRequest,
    scan: HeaderScan,
    digests: dict[int, bytes],
    size: int,
    settings: Settings,
    keys: Keyring,
    *,
    now: int,
    returned: Mapping[str, tuple[str, int]] | None = None,
    is_reinjected: bool = True,
) -> Plan:
    """Return the plan for a message of size bytes; now is Unix time.

    Only a message that is reinjected gets stamps.

    digests has the SHA-256 of the message from each of ``scan.offsets`` on. returned
    has, by archive, the id of the archived message whose content this one has below
    an offset (archive_transport/recent_captures).
    """
    origin = scan.origin
    verp_sender = verp.decode(delivery.sender, delivery.recipients)
    archive_id = received_header.archive_id(
        origin,
        sender=verp_sender.sender or delivery.sender,  # one id for all recipients
        sha256=digests[origin.offset],
        now=now,
    )
    verdicts = {
        archive: stamp.verify(scan.stamps, archive, digests, keys)
        for archive in sorted(delivery.request_sources)
    }
    # A copy for one archive must not be mailed to another: both could come back.
    generation = max((each.generation for each in verdicts.values()), default=0)
    requests = []
    stamps = b""
    for archive, verdict in verdicts.items():
        source = delivery.request_sources[archive]
        is_spared = _is_spared(verdict, settings, now)
        archive_request = _archive_request(
            archive, source, verdict, generation, is_spared=is_spared
        )
        if returned and archive in returned and verdict.result != stamp.VALID:
            archive_request.verdict = stamp.CONTENT
            archive_request.stamp_id, archive_request.stamp_offset = returned[archive]
        requests.append(archive_request)
        if is_reinjected and verdict.result != stamp.VALID:
            tag = stamp.archive_tag(archive, keys.current)
            stamps += stamp.make(archive_id, tag, digests[0], now, keys.current)
    if not requests:
        return Plan(None, stamps)
    envelope = Envelope(
        archive_id=archive_id,
        host=origin.host,
        queue_id=origin.queue_id,
        sender=delivery.sender,
        # Sorted: a retry may have them in another order, and must be the same capsule.
        recipients=tuple(sorted(delivery.envelope_recipients, key=_recipient_key)),
        requests=tuple(requests),
        client=delivery.client,
        arrival=origin.arrival,
        envid=delivery.envid,
        ret=delivery.ret,
        sha256=digests[0].hex(),
        size=size,
        is_incomplete=delivery.is_incomplete,
        verp_sender=verp_sender.sender,
        verp_delimiters=verp_sender.delimiters,
    )
    return Plan(envelope, stamps)


def is_requeued_copy(
    delivery: DeliveryRequest,
    scan: HeaderScan,
    digests: dict[int, bytes],
    keys: Keyring,
) -> bool:
    """Tell whether the message is an outgoing archive copy, requeued by postsuper -r.

    It must be sent as it is: no bcc map and no content filter may see its content.
    """
    is_requeued = scan.origin.offset > 0
    if not is_requeued or len(delivery.envelope_recipients) != 1:
        return False
    [recipient] = delivery.envelope_recipients
    for recipient_address in (recipient.final, recipient.original):
        archive = recipient_address.decode("utf-8", "replace").lower()
        verdict = stamp.verify(scan.stamps, archive, digests, keys)
        if verdict.result == stamp.VALID:
            return verdict.generation > 0
    return False


def needs_smtputf8(delivery: DeliveryRequest, scan: HeaderScan, head: bytes) -> bool:
    """Tell whether reinjection needs SMTPUTF8 (RFC 6531 3.4).

    pipe(8) has no macro for it. For mail from SMTP, Postfix's Received: line shows it.
    For mail from sendmail(1), it is needed if an address or the header is not ASCII, as
    with smtputf8_autodetect_classes (postconf(5)).
    """
    if delivery.smtputf8 or scan.origin.is_smtputf8:
        return True
    addresses = [delivery.sender, *(each.final for each in delivery.recipients)]
    if not all(each.isascii() for each in addresses):
        return all(map(address.is_utf8, addresses))
    return not delivery.client.protocol and not head[: header.end(head)].isascii()


def needs_8bitmime(delivery: DeliveryRequest, shape: ContentProperties) -> bool:
    """Tell whether to declare BODY=8BITMIME (RFC 6152).

    lmtp(8) does if the queue file says so; pipe(8) has no macro for it. SMTP clients
    declare it for content that is not ASCII. sendmail(1) declares nothing; then
    cleanup(8) reads Content-Transfer-Encoding, as it has done for the first queue file.
    """
    if delivery.is_8bitmime is not None:
        return delivery.is_8bitmime
    return not shape.is_ascii and delivery.client.protocol.startswith(ESMTP_PROTOCOLS)


def is_local_client(client: Client, networks: tuple[str, ...]) -> bool:
    """Tell whether Postfix rewrites the headers of this client's mail.

    True for sendmail(1) and for clients in networks: archive_local_clients, the
    equivalent of local_header_rewrite_clients (postconf(5)), with IP addresses, IPv4
    networks and permit_sasl_authenticated.
    """
    if not client.address:
        return True
    if client.sasl_username and "permit_sasl_authenticated" in networks:
        return True
    return any(address.is_in_network(client.address, each) for each in networks)


def alarms(delivery: DeliveryRequest) -> list[str]:
    """Return the alarms about this message for Postfix's log (docs/log-format.md)."""
    codes = []
    if delivery.forged_count:
        codes.append("forged")
    if delivery.is_incomplete:
        codes.append("incomplete")
    return codes


def _recipient_key(recipient: Recipient) -> tuple[bytes, ...]:
    return recipient.final, recipient.original, recipient.notify, recipient.orcpt


def _is_spared(verdict: stamp.Verdict, settings: Settings, now: int) -> bool:
    """Tell whether to send no second copy: no store, and a valid, recent stamp."""
    if settings.has_store or verdict.result != stamp.VALID or verdict.stamp is None:
        return False
    return abs(now - verdict.stamp.time) <= settings.archive_stamp_lifetime


def _archive_request(
    archive: str,
    source: str,
    verdict: stamp.Verdict,
    generation: int,
    *,
    is_spared: bool,
) -> Request:
    own_stamp = verdict.stamp
    return Request(
        archive,
        source,
        verdict.result,
        stamp_id=own_stamp.archive_id if own_stamp else "",
        stamp_offset=(
            own_stamp.start if own_stamp and verdict.result == stamp.VALID else None
        ),
        generation=generation,
        is_stamp_trusted=is_spared,
    )
