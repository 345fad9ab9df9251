"""The envelope of a message and its one serialised form.

Used by every package that handles mail. The same fields are in the capsule, in the
machine-readable part of the archive copy and in the journal: RFC 3464 style, one group
for the message and one for each recipient, an empty line between groups. An unknown
value is left out, never invented. docs/store-format.md lists every field. Parsing
raises CapsuleBroken.
"""

from __future__ import annotations

from postfix_archive.errors import CapsuleBroken
from postfix_archive.message import address, dates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = b"1"

# What Postfix knows about the client, named as pipe(8)'s macros are.
CLIENT_FIELDS = (
    ("address", b"Archive-Client-Address"),
    ("hostname", b"Archive-Client-Hostname"),
    ("port", b"Archive-Client-Port"),
    ("protocol", b"Archive-Client-Protocol"),
    ("helo", b"Archive-Client-Helo"),
    ("sasl_method", b"Archive-SASL-Method"),
    ("sasl_username", b"Archive-SASL-Username"),
    ("sasl_sender", b"Archive-SASL-Sender"),
)
_CLIENT_KEYS = [(name, field.lower()) for name, field in CLIENT_FIELDS]


class Recipient:
    """One recipient: ``final`` address, and ``original`` before mapping by this host.

    ``notify`` and ``orcpt`` are the DSN parameters exactly as the client sent them (RFC
    3461 4), empty where the transport cannot see them. ORCPT is the client's claim, not
    a mapping of this host.
    """

    __slots__ = ("final", "notify", "orcpt", "original")

    def __init__(
        self,
        final: bytes,
        original: bytes = b"",
        *,
        notify: bytes = b"",
        orcpt: bytes = b"",
    ) -> None:
        self.final = final
        self.original = original
        self.notify = notify
        self.orcpt = orcpt

    @property
    def is_mapped(self) -> bool:
        """True if an address mapping of this host changed the address."""
        return bool(self.original) and self.original != self.final


class Client:
    """The client that sent the message to Postfix; empty bytes where unknown."""

    __slots__ = tuple(name for name, _ in CLIENT_FIELDS)

    address: bytes
    hostname: bytes
    port: bytes
    protocol: bytes
    helo: bytes
    sasl_method: bytes
    sasl_username: bytes
    sasl_sender: bytes

    def __init__(self, **values: bytes) -> None:
        for name, _ in CLIENT_FIELDS:
            setattr(self, name, values.get(name, b""))


class Request:
    """A request to archive this message to ``address``, and the stamp for that archive.

    ``source`` is ``nexthop`` (archive = …, -o archive=…) or ``recipient`` (a table).
    ``verdict`` is one of stamp.VERDICTS. ``stamp_id`` is the archive id in a stamp of
    ours, ``stamp_offset`` the number of bytes above a valid one, else None; of
    stamp.CONTENT the id of the message whose content it is, and the number of bytes
    above that. ``generation`` is above 0 if any of these archives has sent the message
    as an archive copy (stamp.GENERATIONS). ``is_stamp_trusted``: there is no store, and
    the valid stamp is recent enough to be trusted.
    """

    __slots__ = (
        "stamp_offset",
        "address",
        "generation",
        "source",
        "is_stamp_trusted",
        "stamp_id",
        "verdict",
    )

    def __init__(
        self,
        address: str,
        source: str,
        verdict: str = "absent",
        *,
        stamp_id: str = "",
        stamp_offset: int | None = None,
        generation: int = 0,
        is_stamp_trusted: bool = False,
    ) -> None:
        self.address = address
        self.source = source
        self.verdict = verdict
        self.stamp_id = stamp_id
        self.stamp_offset = stamp_offset
        self.generation = generation
        self.is_stamp_trusted = is_stamp_trusted


class Envelope:
    """Everything Postfix knows about one message, or about one piece of it.

    ``arrival`` is Unix time, None where unknown. ``sha256`` (hexadecimal) and ``size``
    (bytes) are those of the original as received. ``is_incomplete`` is true when some
    recipients are known to be missing (docs/how-it-works.md, FILTER actions). ``ret``
    is the DSN parameter RET, empty where the transport cannot see it. ``verp_sender``
    is the sender of which Postfix may have made ``sender`` for the one recipient, with
    ``verp_delimiters`` (message/verp); else both are empty.
    """

    __slots__ = (
        "archive_id",
        "arrival",
        "client",
        "sha256",
        "envid",
        "host",
        "imported",
        "is_incomplete",
        "queue_id",
        "recipients",
        "requests",
        "ret",
        "sender",
        "size",
        "verp_delimiters",
        "verp_sender",
    )

    def __init__(
        self,
        *,
        archive_id: str,
        host: bytes,
        queue_id: bytes,
        sender: bytes,
        recipients: tuple[Recipient, ...],
        requests: tuple[Request, ...] = (),
        client: Client | None = None,
        arrival: int | None = None,
        envid: bytes = b"",
        ret: bytes = b"",
        sha256: str = "",
        size: int = 0,
        is_incomplete: bool = False,
        verp_sender: bytes = b"",
        verp_delimiters: bytes = b"",
        imported: bytes = b"",
    ) -> None:
        self.archive_id = archive_id
        self.host = host
        self.queue_id = queue_id
        self.sender = sender
        self.recipients = recipients
        self.requests = requests
        self.client = client or Client()
        self.arrival = arrival
        self.envid = envid
        self.ret = ret
        self.sha256 = sha256
        self.size = size
        self.is_incomplete = is_incomplete
        self.verp_sender = verp_sender
        self.verp_delimiters = verp_delimiters
        self.imported = imported


def message_fields(envelope: Envelope) -> bytes:
    """Return the per-message fields (RFC 3464 2.2) with CRLF line ends."""
    fields = [
        (b"Reporting-MTA", b"dns; " + envelope.host),
        (b"Original-Envelope-Id", envelope.envid),
        (b"X-Postfix-Queue-ID", envelope.queue_id),
        (b"X-Postfix-Sender", envelope.sender and address.add_type(envelope.sender)),
        (b"Arrival-Date", dates.format_rfc5322(envelope.arrival)),
        (b"Archive-Format", FORMAT),
        (b"Archive-Id", envelope.archive_id.encode()),
    ]
    fields += [(field, getattr(envelope.client, name)) for name, field in CLIENT_FIELDS]
    fields += [
        (b"Archive-Request", _format_request(each)) for each in envelope.requests
    ]
    fields += [
        (b"Archive-Original-SHA256", envelope.sha256.encode()),
        (b"Archive-Original-Size", b"%d" % envelope.size),
        (b"Archive-Envelope", b"incomplete" if envelope.is_incomplete else b""),
        (b"Archive-DSN-Ret", envelope.ret),
        (
            b"Archive-VERP-Sender",
            envelope.verp_sender and address.add_type(envelope.verp_sender),
        ),
        (b"Archive-VERP-Delimiters", envelope.verp_delimiters),
        (b"Archive-Imported", envelope.imported),
    ]
    return _format_fields(fields)


def recipient_fields(recipient: Recipient) -> bytes:
    """Return the per-recipient fields (RFC 3464 2.3) with CRLF line ends."""
    original = recipient.original and address.add_type(recipient.original)
    return _format_fields(
        [
            (b"Final-Recipient", address.add_type(recipient.final)),
            (b"Original-Recipient", original),
            (b"Archive-DSN-Notify", recipient.notify),
            (b"Archive-DSN-Orcpt", recipient.orcpt),
        ]
    )


def serialise(envelope: Envelope) -> bytes:
    """Return the envelope as groups of fields, an empty line before each recipient."""
    groups = [message_fields(envelope)]
    groups += [recipient_fields(each) for each in envelope.recipients]
    return b"\r\n".join(groups)


def parse(text: bytes) -> Envelope:
    """Return the envelope from the output of serialise() or from an archive copy.

    Unknown fields are ignored. Raises CapsuleBroken.
    """
    groups = text.split(b"\r\n\r\n")
    pairs = _parse_fields(groups[0])
    fields = dict(reversed(pairs))
    try:
        return Envelope(
            archive_id=fields[b"archive-id"].decode("ascii"),
            host=address.strip_type(fields[b"reporting-mta"]),
            queue_id=fields.get(b"x-postfix-queue-id", b""),
            sender=address.strip_type(fields.get(b"x-postfix-sender", b"")),
            recipients=tuple(_parse_recipients(groups[1:])),
            requests=tuple(
                _parse_request(value)
                for name, value in pairs
                if name == b"archive-request"
            ),
            client=Client(**{name: fields.get(key, b"") for name, key in _CLIENT_KEYS}),
            arrival=dates.parse_rfc5322(fields.get(b"arrival-date", b"")),
            envid=fields.get(b"original-envelope-id", b""),
            ret=fields.get(b"archive-dsn-ret", b""),
            sha256=fields[b"archive-original-sha256"].decode("ascii"),
            size=int(fields[b"archive-original-size"]),
            is_incomplete=fields.get(b"archive-envelope") == b"incomplete",
            verp_sender=address.strip_type(fields.get(b"archive-verp-sender", b"")),
            verp_delimiters=fields.get(b"archive-verp-delimiters", b""),
            imported=fields.get(b"archive-imported", b""),
        )
    except (KeyError, ValueError) as error:
        raise CapsuleBroken(f"cannot parse the envelope fields: {error!r}") from None


def _format_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(
        b"%s: %s\r\n" % (name, address.escape_controls(value))
        for name, value in fields
        if value
    )


def _format_request(request: Request) -> bytes:
    value = f"rfc822; {request.address}; source={request.source}"
    value += f"; stamp={request.verdict}"
    if request.stamp_id:
        value += f"; id={request.stamp_id}"
    if request.stamp_offset is not None:
        value += f"; above={request.stamp_offset}"
    if request.generation:
        value += f"; copy={request.generation}"
    if request.is_stamp_trusted:
        value += "; spared=yes"
    return value.encode()


def _parse_request(value: bytes) -> Request:
    _, archive, *rest = (part.strip() for part in value.decode("ascii").split(";"))
    parameters = dict(part.split("=", 1) for part in rest)
    return Request(
        archive,
        parameters["source"],
        parameters["stamp"],
        stamp_id=parameters.get("id", ""),
        stamp_offset=int(parameters["above"]) if "above" in parameters else None,
        generation=int(parameters.get("copy", "0")),
        is_stamp_trusted=parameters.get("spared") == "yes",
    )


def _parse_recipients(groups: list[bytes]) -> Iterable[Recipient]:
    for group in groups:
        fields = dict(_parse_fields(group))
        if b"final-recipient" in fields:
            yield Recipient(
                address.strip_type(fields[b"final-recipient"]),
                address.strip_type(fields.get(b"original-recipient", b"")),
                notify=fields.get(b"archive-dsn-notify", b""),
                orcpt=fields.get(b"archive-dsn-orcpt", b""),
            )


def _parse_fields(group: bytes) -> list[tuple[bytes, bytes]]:
    parts = [line.partition(b":") for line in group.split(b"\r\n")]
    return [(name.lower(), value.strip()) for name, colon, value in parts if colon]
