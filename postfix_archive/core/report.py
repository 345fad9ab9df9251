"""Builds the archive copy: everything before and after the original.

Used by archive_transport. Four formats (archive_report_format), which bounce readers
and journal importers understand:

    hybrid   multipart/report (RFC 6522) whose text part has the journal lines of
             [MS-XJRNL] 2.1; used in the store, and the default for mail
    dsn      the same without journal lines and marker
    journal  multipart/mixed: journal lines and message
    message  the original with X-Envelope-From: and X-Envelope-To: lines on top

and supplement, for stamped mail where there is no store: as dsn, with only the header
of the original (text/rfc822-headers, RFC 6522 4).

The original is never changed; this module reads only its header.
"""

from __future__ import annotations

from postfix_archive.core import address, envelope, header, marker, mime, trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.envelope import Envelope, Recipient
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.wire import Shape

PURPOSE = b"boundary"
COVERS = b"Archive-Outcomes"  # field of an outcome report: which outcomes it reports
BOUNDARY_BYTES = 15
# At capture nothing has been tried; of the actions in RFC 3464 2.3.3 delayed fits best.
NOT_TRIED = (
    b"Action: delayed\r\n"
    b"Status: 4.0.0\r\n"
    b"Diagnostic-Code: X-Postfix-Archive; captured before any delivery attempt\r\n"
)


class Told:
    """The contents of an archive copy besides the original.

    ``recipients`` are those that this copy lists. ``outcome_fields`` has their
    outcomes, by final and original address. ``remarks`` (sentences) and
    ``extra_fields`` (for programs) state what was unusual. ``message_id_left`` differs
    in every copy: a mailbox may drop a second message with the same Message-Id.
    """

    __slots__ = (
        "archive",
        "became",
        "envelope",
        "extra",
        "head",
        "name",
        "recipients",
        "remarks",
        "shape",
    )

    def __init__(
        self, sealed: Envelope, archive: str, head: bytes, shape: Shape
    ) -> None:
        self.envelope = sealed
        self.archive = archive
        self.head = head
        self.shape = shape
        self.name = sealed.archive_id
        self.recipients: tuple[Recipient, ...] = sealed.recipients
        self.became: dict[tuple[bytes, bytes], bytes] = {}
        self.remarks: list[str] = []
        self.extra: list[tuple[bytes, bytes]] = []

    def for_recipients(self, some: tuple[Recipient, ...], number: int) -> Told:
        """Return this report for these recipients only; number keeps ids distinct."""
        other = Told(self.envelope, self.archive, self.head, self.shape)
        other.name = f"{self.name}.{number}" if number else self.name
        other.recipients = some
        other.became = self.became
        other.remarks = self.remarks
        other.extra = self.extra
        return other


class Copy:
    """The bytes before and after the original, and whether the original is sent."""

    __slots__ = ("preamble", "trailer", "with_original")

    def __init__(
        self, preamble: bytes, trailer: bytes = b"", *, with_original: bool = True
    ) -> None:
        self.preamble = preamble
        self.trailer = trailer
        self.with_original = with_original


def boundary(archive_id: str, content: str, keys: Keyring) -> bytes:
    """Return a MIME boundary that cannot occur in the enclosed message.

    sha256 (hexadecimal) is that of the message: a sender who knows the boundary of an
    earlier copy cannot put it into a message without changing that message's boundary.
    """
    named = f"{archive_id} {content}".encode()
    proof = keys.current.mac(PURPOSE, named)[:BOUNDARY_BYTES]
    return b"=_archive_" + proof.hex().encode()


def written(told: Told, form: str, *, sender: bytes, boundary_: bytes) -> Copy:
    """Return the archive copy in this format; sender is the address in From:."""
    if form == "message":
        return Copy(_envelope_lines(told))
    parts = [_text(told, journal=form in marker.FORMS)]
    if form != "journal":
        parts.append(_status(told))
    original = _last_part(told, form)
    delimiter = b"--" + boundary_ + b"\r\n"
    inside = b"".join(delimiter + part + b"\r\n" for part in parts)
    inside += delimiter + original
    outer = _outer(told, form, sender, boundary_, ascii_=inside.isascii())
    whole = form != "supplement"
    closing = b"\r\n--" + boundary_ + b"--\r\n"
    return Copy(outer + inside, closing, with_original=whole)


def original_start(copy: bytes) -> int:
    """Return the offset of the original in a multipart copy with these first bytes.

    -1 if they do not reach that far. The boundary is taken from the copy's header.
    """
    kind = header.first(copy, b"content-type")
    if kind is None:
        return -1
    named = kind.value.rpartition(b'boundary="')[2].rstrip(b'"')
    delimiter = b"\r\n--" + named + b"\r\n"
    at = 0
    for _ in range(2 if b"multipart/mixed" in kind.value else 3):
        at = copy.find(delimiter, at) + len(delimiter)
        if at < len(delimiter):
            return -1
    end = copy.find(b"\r\n\r\n", at)
    return end + 4 if end > 0 else -1


def status_part(copy: bytes) -> bytes:
    """Return the envelope fields of a stored copy with these first bytes."""
    begin = copy.find(b"\r\nContent-Type: message/")
    start = copy.find(b"\r\n\r\n", begin) + 4
    end = copy.find(b"\r\n--=_archive_", start)
    return copy[start:end] if begin > 0 and start > 3 and end > 0 else b""


def _outer(
    told: Told, form: str, sender: bytes, boundary_: bytes, *, ascii_: bool
) -> bytes:
    report = b'multipart/report; report-type=delivery-status;\r\n\tboundary="%s"'
    mixed = b'multipart/mixed;\r\n\tboundary="%s"'
    shape = mixed if form == "journal" else report
    date = _date(told)
    lines = [
        b"From: " + sender,
        b"To: " + told.archive.encode(),
        b"Subject: " + mime.subject(told.head),
        *([b"Date: " + date] if date else []),
        b"Message-Id: <%s@%s>" % (told.name.encode(), told.envelope.host),
        b"Auto-Submitted: auto-generated",
        b"MIME-Version: 1.0",
        b"Content-Type: " + shape % boundary_,
        b"Content-Transfer-Encoding: " + _outer_encoding(told, ascii_=ascii_),
    ]
    if form in marker.FORMS:
        lines.append(marker.NAME + b":")  # after To:, or importers read that too
    return b"\r\n".join(lines) + b"\r\n\r\nThis is a MIME-encapsulated message.\r\n\r\n"


def _text(told: Told, *, journal: bool) -> bytes:
    lines = [
        b"This is the mail archive at host %s." % told.envelope.host,
        b"",
        b"A message was captured for %s before it was delivered."
        % told.archive.encode(),
        b"The envelope is below and in the next part. The message as it was received",
        b"is in the last part.",
        b"",
    ]
    for remark in told.remarks:
        lines += [b"* " + remark.encode(), b""]
    lines += _journal(told) if journal else _prose(told)
    body = b"\r\n".join(lines) + b"\r\n"
    charset = b"us-ascii" if body.isascii() else b"utf-8"
    kind = b"text/plain; charset=" + charset
    return mime.part(kind, b"Notification", body)


def _journal(told: Told) -> list[bytes]:
    """Return the lines of [MS-XJRNL] 2.1.

    All recipients are in Recipient: lines; RCPT TO has no To, Cc and Bcc.
    """
    message_id = mime.field_text(told.head, b"message-id")
    lines = [
        b"Sender: " + (mime.shown(told.envelope.sender) or b"<>"),
        b"Subject: " + mime.shown(mime.cut(mime.field_text(told.head, b"subject"))),
        b"Message-ID: " + mime.shown(mime.cut(message_id)),
    ]
    for each in told.recipients:
        line = b"Recipient: " + mime.shown(each.final)
        if each.expanded:
            line += b", Expanded: " + mime.shown(each.original)
        lines.append(line)
    return lines


def _prose(told: Told) -> list[bytes]:
    sender = mime.shown(told.envelope.sender)
    lines = [b"Envelope sender: <%s>" % sender]
    return lines + [b"    <%s>" % mime.shown(each.final) for each in told.recipients]


def _status(told: Told) -> bytes:
    extra = b"".join(b"%s: %s\r\n" % pair for pair in told.extra)
    groups = [envelope.message_fields(told.envelope) + extra]
    for each in told.recipients:
        became = told.became.get((each.final, each.original or each.final))
        groups.append(became or envelope.recipient_fields(each) + NOT_TRIED)
    body = b"\r\n".join(groups)
    global_ = b"" if body.isascii() else b"global-"
    return mime.part(b"message/%sdelivery-status" % global_, b"Delivery report", body)


def _envelope_lines(told: Told) -> bytes:
    lines = [b"X-Envelope-From: <%s>" % told.envelope.sender]
    lines += [b"X-Envelope-To: <%s>" % each.final for each in told.recipients]
    return b"".join(address.one_line(line) + b"\r\n" for line in lines)


def _last_part(told: Told, form: str) -> bytes:
    if form != "supplement":
        kind = _inner_type(told, form)
        return mime.part(kind, b"Archived message", b"", told.shape.encoding)
    head = told.head[: header.end(told.head)]
    return mime.part(b"text/rfc822-headers", b"Header of the message", head)


def _inner_type(told: Told, form: str) -> bytes:
    """Return the type: message/global (RFC 6532 3.7) breaks journal importers."""
    ascii_ = told.head[: header.end(told.head)].isascii()
    return b"message/rfc822" if form != "dsn" or ascii_ else b"message/global"


def _outer_encoding(told: Told, *, ascii_: bool) -> bytes:
    """Return the encoding, at least as wide as that of each part (RFC 2045 6.4)."""
    if told.shape.encoding != b"7bit" or ascii_:
        return told.shape.encoding
    return b"8bit"


def _date(told: Told) -> bytes:
    """Return the original's Date: if it can be parsed, else the arrival, else empty."""
    shown = mime.field_text(told.head, b"date")
    readable = shown.isascii() and trace.read_date(shown) is not None
    return shown if readable else envelope.date(told.envelope.arrival)
