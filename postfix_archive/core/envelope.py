"""The envelope of a message and its one serialised form.

Used by every package that handles mail. The same fields are in the capsule, in the
machine-readable part of the archive copy and in the journal: RFC 3464 style, one group
for the message and one for each recipient, an empty line between groups. An unknown
value is left out, never invented. docs/store-format.md lists every field. Parsing
raises CapsuleBroken.
"""

from __future__ import annotations

from postfix_archive.core import address, trace
from postfix_archive.core.errors import CapsuleBroken

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
    def expanded(self) -> bool:
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

    def __init__(self, **known: bytes) -> None:
        for name, _ in CLIENT_FIELDS:
            setattr(self, name, known.get(name, b""))


class Request:
    """A request to archive this message to ``address``, and the stamp for that archive.

    ``source`` is ``nexthop`` (archive = …, -o archive=…) or ``recipient`` (a table).
    ``verdict`` is stamp.VALID, ALTERED, FORGED or ABSENT. ``stamp_id`` is the archive
    id in a stamp of ours, ``stamp_offset`` the number of bytes above a valid one, else
    None. ``generation`` is above 0 for a stamp that an archive copy got when it was
    sent as mail (stamp.GENERATIONS). ``is_stamp_trusted``: there is no store, and the
    valid stamp is recent enough to be trusted.
    """

    __slots__ = ("above", "address", "copy", "source", "spared", "stamp_id", "verdict")

    def __init__(self, address: str, source: str, verdict: str = "absent") -> None:
        self.address = address
        self.source = source
        self.verdict = verdict
        self.stamp_id = ""
        self.above: int | None = None
        self.copy = 0
        self.spared = False


class Envelope:
    """Everything Postfix knows about one message, or about one piece of it.

    ``arrival`` is Unix time, None where unknown. ``sha256`` (hexadecimal) and ``size``
    (bytes) are those of the original as received. ``is_incomplete`` is true when some
    recipients are known to be missing (docs/how-it-works.md, FILTER actions). ``ret``
    is the DSN parameter RET, empty where the transport cannot see it.
    """

    __slots__ = (
        "archive_id",
        "arrival",
        "client",
        "digest",
        "envid",
        "host",
        "incomplete",
        "queue_id",
        "recipients",
        "requests",
        "ret",
        "sender",
        "size",
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
        digest: str = "",
        size: int = 0,
        incomplete: bool = False,
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
        self.digest = digest
        self.size = size
        self.incomplete = incomplete


def message_fields(envelope: Envelope) -> bytes:
    """Return the per-message fields (RFC 3464 2.2) with CRLF line ends."""
    lines = [
        (b"Reporting-MTA", b"dns; " + envelope.host),
        (b"Original-Envelope-Id", envelope.envid),
        (b"X-Postfix-Queue-ID", envelope.queue_id),
        (b"X-Postfix-Sender", envelope.sender and address.typed(envelope.sender)),
        (b"Arrival-Date", date(envelope.arrival)),
        (b"Archive-Format", FORMAT),
        (b"Archive-Id", envelope.archive_id.encode()),
    ]
    lines += [(field, getattr(envelope.client, name)) for name, field in CLIENT_FIELDS]
    lines += [(b"Archive-Request", _request(each)) for each in envelope.requests]
    lines += [
        (b"Archive-Original-SHA256", envelope.digest.encode()),
        (b"Archive-Original-Size", b"%d" % envelope.size),
        (b"Archive-Envelope", b"incomplete" if envelope.incomplete else b""),
        (b"Archive-DSN-Ret", envelope.ret),
    ]
    return _written(lines)


def recipient_fields(recipient: Recipient) -> bytes:
    """Return the per-recipient fields (RFC 3464 2.3) with CRLF line ends."""
    original = recipient.original and address.typed(recipient.original)
    return _written(
        [
            (b"Final-Recipient", address.typed(recipient.final)),
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
    message = _pairs(groups[0])
    known = dict(reversed(message))
    try:
        return Envelope(
            archive_id=known[b"archive-id"].decode("ascii"),
            host=address.untyped(known[b"reporting-mta"]),
            queue_id=known.get(b"x-postfix-queue-id", b""),
            sender=address.untyped(known.get(b"x-postfix-sender", b"")),
            recipients=tuple(_recipients(groups[1:])),
            requests=tuple(
                _asked(value) for name, value in message if name == b"archive-request"
            ),
            client=Client(
                **{name: known.get(field.lower(), b"") for name, field in CLIENT_FIELDS}
            ),
            arrival=trace.read_date(known.get(b"arrival-date", b"")),
            envid=known.get(b"original-envelope-id", b""),
            ret=known.get(b"archive-dsn-ret", b""),
            digest=known[b"archive-original-sha256"].decode("ascii"),
            size=int(known[b"archive-original-size"]),
            incomplete=known.get(b"archive-envelope") == b"incomplete",
        )
    except (KeyError, ValueError) as problem:
        raise CapsuleBroken(f"cannot parse the envelope fields: {problem!r}") from None


def date(seconds: int | None) -> bytes:
    """Return a Unix time as an RFC 5322 3.3 date in UTC; empty for None."""
    if seconds is None:
        return b""
    return trace.written_date(seconds)


def _written(lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(
        b"%s: %s\r\n" % (name, address.one_line(value))
        for name, value in lines
        if value
    )


def _request(request: Request) -> bytes:
    value = f"rfc822; {request.address}; source={request.source}"
    value += f"; stamp={request.verdict}"
    if request.stamp_id:
        value += f"; id={request.stamp_id}"
    if request.above is not None:
        value += f"; above={request.above}"
    if request.copy:
        value += f"; copy={request.copy}"
    if request.spared:
        value += "; spared=yes"
    return value.encode()


def _asked(value: bytes) -> Request:
    _, address_, *rest = (part.strip() for part in value.decode("ascii").split(";"))
    known = dict(part.split("=", 1) for part in rest)
    request = Request(address_, known["source"], known["stamp"])
    request.stamp_id = known.get("id", "")
    request.above = int(known["above"]) if "above" in known else None
    request.copy = int(known.get("copy", "0"))
    request.spared = known.get("spared") == "yes"
    return request


def _recipients(groups: list[bytes]) -> Iterable[Recipient]:
    for group in groups:
        known = dict(_pairs(group))
        if b"final-recipient" in known:
            yield Recipient(
                address.untyped(known[b"final-recipient"]),
                address.untyped(known.get(b"original-recipient", b"")),
                notify=known.get(b"archive-dsn-notify", b""),
                orcpt=known.get(b"archive-dsn-orcpt", b""),
            )


def _pairs(group: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    for line in group.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            found.append((name.lower(), value.strip()))
    return found
