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

from postfix_archive.message import (
    address,
    dates,
    envelope,
    header,
    mime,
    received_header,
    stamp,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postfix_archive.message.envelope import Envelope, Recipient, Request
    from postfix_archive.message.keyring import Keyring
    from postfix_archive.message.smtp_data import ContentProperties

BOUNDARY_PURPOSE = b"boundary"
# Field of an outcome report: which outcomes it reports.
OUTCOMES_FIELD = b"Archive-Outcomes"
BOUNDARY_BYTES = 15
REPORT_TYPE = b"multipart/report; report-type=delivery-status"
# Of a message that was imported it is not known what was tried.
IMPORTED_FIELDS = (
    b"Action: delayed\r\n"
    b"Status: 4.0.0\r\n"
    b"Diagnostic-Code: X-Postfix-Archive; imported, its delivery is not known\r\n"
)
# At capture nothing has been tried; of the actions in RFC 3464 2.3.3 delayed fits best.
NOT_TRIED_FIELDS = (
    b"Action: delayed\r\n"
    b"Status: 4.0.0\r\n"
    b"Diagnostic-Code: X-Postfix-Archive; captured before any delivery attempt\r\n"
)


class EnvelopeReport:
    """The contents of an archive copy besides the original.

    ``recipients`` are those that this copy lists. ``outcome_fields`` has their
    outcomes, by final and original address. ``remarks`` (sentences) and
    ``extra_fields`` (for programs) state what was unusual. ``message_id_left`` differs
    in every copy: a mailbox may drop a second message with the same Message-Id.
    """

    __slots__ = (
        "archive",
        "outcome_fields",
        "envelope",
        "extra_fields",
        "head",
        "message_id_left",
        "recipients",
        "remarks",
        "properties",
    )

    def __init__(
        self,
        sealed_envelope: Envelope,
        archive: str,
        head: bytes,
        properties: ContentProperties,
    ) -> None:
        self.envelope = sealed_envelope
        self.archive = archive
        self.head = head
        self.properties = properties
        self.message_id_left = sealed_envelope.archive_id
        self.recipients: tuple[Recipient, ...] = sealed_envelope.recipients
        self.outcome_fields: dict[tuple[bytes, bytes], bytes] = {}
        self.remarks: list[str] = []
        self.extra_fields: list[tuple[bytes, bytes]] = []

    def for_recipients(
        self, recipients: tuple[Recipient, ...], number: int
    ) -> EnvelopeReport:
        """Return this report for these recipients only; number keeps ids distinct."""
        report = EnvelopeReport(self.envelope, self.archive, self.head, self.properties)
        report.message_id_left = (
            f"{self.message_id_left}.{number}" if number else self.message_id_left
        )
        report.recipients = recipients
        report.outcome_fields = self.outcome_fields
        report.remarks = self.remarks
        report.extra_fields = self.extra_fields
        return report


class ArchiveCopy:
    """The bytes before and after the original, and whether the original is sent."""

    __slots__ = ("preamble", "trailer", "has_original")

    def __init__(
        self, preamble: bytes, trailer: bytes = b"", *, has_original: bool = True
    ) -> None:
        self.preamble = preamble
        self.trailer = trailer
        self.has_original = has_original


def make_boundary(archive_id: str, sha256: str, keys: Keyring) -> bytes:
    """Return a MIME boundary that cannot occur in the enclosed message.

    sha256 (hexadecimal) is that of the message: a sender who knows the boundary of an
    earlier copy cannot put it into a message without changing that message's boundary.
    """
    mac_input = f"{archive_id} {sha256}".encode()
    mac = keys.current.mac(BOUNDARY_PURPOSE, mac_input)[:BOUNDARY_BYTES]
    return b"=_archive_" + mac.hex().encode()


def build(
    report: EnvelopeReport, report_format: str, *, sender: bytes, boundary: bytes
) -> ArchiveCopy:
    """Return the archive copy in this format; sender is the address in From:."""
    if report_format == "message":
        return ArchiveCopy(_envelope_lines(report))
    parts = [_text_part(report, is_journal=report_format in MARKED_FORMATS)]
    if report_format != "journal":
        parts.append(_status_part(report))
    parts.append(_last_part(report, report_format))
    is_marked = report_format in MARKED_FORMATS
    preamble = mime.multipart(
        [
            (b"From", sender),
            (b"To", report.archive.encode()),
            (b"Subject", mime.subject(report.head)),
            (b"Date", _date_value(report)),
            (
                b"Message-Id",
                b"<%s@%s>" % (report.message_id_left.encode(), report.envelope.host),
            ),
        ],
        parts,
        content_type=b"multipart/mixed" if report_format == "journal" else REPORT_TYPE,
        boundary=boundary,
        encoding=report.properties.encoding,
        last_line=MARKER + b":" if is_marked else b"",  # importers read what follows To
    )
    has_original = report_format != "supplement"
    return ArchiveCopy(preamble, mime.closing(boundary), has_original=has_original)


def original_offset(copy: bytes) -> int:
    """Return the offset of the original in a multipart copy with these first bytes.

    -1 if they do not reach that far. The boundary is taken from the copy's header, as
    mime.multipart() writes it.
    """
    header_end = copy.find(b"\r\n\r\n")
    content_type = copy.find(b"\r\nContent-Type: ", 0, max(0, header_end))
    if content_type < 0:
        return -1
    value = copy[content_type:header_end]
    boundary = value.partition(b'boundary="')[2].partition(b'"')[0]
    delimiter = b"\r\n--" + boundary + b"\r\n"
    offset = 0
    for _ in range(2 if b" multipart/mixed" in value else 3):
        offset = copy.find(delimiter, offset) + len(delimiter)
        if offset < len(delimiter):
            return -1
    end = copy.find(b"\r\n\r\n", offset)
    return end + 4 if end > 0 else -1


def envelope_fields(copy: bytes) -> bytes:
    """Return the envelope fields of a stored copy with these first bytes."""
    part_offset = copy.find(b"\r\nContent-Type: message/")
    start = copy.find(b"\r\n\r\n", part_offset) + 4
    end = copy.find(b"\r\n--=_archive_", start)
    return copy[start:end] if part_offset > 0 and start > 3 and end > 0 else b""


def _text_part(report: EnvelopeReport, *, is_journal: bool) -> bytes:
    is_captured = not report.envelope.imported
    lines = [
        b"This is the mail archive at host %s." % report.envelope.host,
        b"",
        (
            b"A message was captured for %s before it was delivered."
            if is_captured
            else b"A message was imported for %s; its envelope may be incomplete."
        )
        % report.archive.encode(),
        b"The envelope is below and in the next part. The message as it was received",
        b"is in the last part.",
        b"",
    ]
    for remark in report.remarks:
        lines += [b"* " + remark.encode(), b""]
    lines += _journal_lines(report) if is_journal else _prose_lines(report)
    return mime.text_part(lines)


def _journal_lines(report: EnvelopeReport) -> list[bytes]:
    """Return the lines of [MS-XJRNL] 2.1.

    All recipients are in Recipient: lines; RCPT TO has no To, Cc and Bcc.
    """
    message_id = mime.field_text(report.head, b"message-id")
    lines = [
        b"Sender: " + (mime.to_utf8(report.envelope.sender) or b"<>"),
        b"Subject: " + mime.to_utf8(mime.subject_text(report.head)),
        b"Message-ID: " + mime.to_utf8(mime.truncate(message_id)),
    ]
    for recipient in report.recipients:
        line = b"Recipient: " + mime.to_utf8(recipient.final)
        if recipient.is_mapped:
            line += b", Expanded: " + mime.to_utf8(recipient.original)
        lines.append(line)
    return lines


def _prose_lines(report: EnvelopeReport) -> list[bytes]:
    sender = mime.to_utf8(report.envelope.sender)
    lines = [b"Envelope sender: <%s>" % sender]
    return lines + [
        b"    <%s>" % mime.to_utf8(each.final) for each in report.recipients
    ]


def _status_part(report: EnvelopeReport) -> bytes:
    extra_fields = b"".join(b"%s: %s\r\n" % pair for pair in report.extra_fields)
    groups = [envelope.message_fields(report.envelope) + extra_fields]
    unknown = IMPORTED_FIELDS if report.envelope.imported else NOT_TRIED_FIELDS
    for recipient in report.recipients:
        outcome_fields = report.outcome_fields.get(
            (recipient.final, recipient.original or recipient.final)
        )
        groups.append(outcome_fields or envelope.recipient_fields(recipient) + unknown)
    return mime.status_part(groups)


def _envelope_lines(report: EnvelopeReport) -> bytes:
    lines = [b"X-Envelope-From: <%s>" % report.envelope.sender]
    lines += [b"X-Envelope-To: <%s>" % each.final for each in report.recipients]
    return b"".join(address.escape_controls(line) + b"\r\n" for line in lines)


def _last_part(report: EnvelopeReport, report_format: str) -> bytes:
    if report_format != "supplement":
        content_type = _original_type(report, report_format)
        return mime.part(
            content_type, b"Archived message", b"", report.properties.encoding
        )
    head = report.head[: header.end(report.head)]
    return mime.part(b"text/rfc822-headers", b"Header of the message", head)


def _original_type(report: EnvelopeReport, report_format: str) -> bytes:
    """Return the type: message/global (RFC 6532 3.7) breaks journal importers."""
    is_ascii = report.head[: header.end(report.head)].isascii()
    return (
        b"message/rfc822" if report_format != "dsn" or is_ascii else b"message/global"
    )


def _date_value(report: EnvelopeReport) -> bytes:
    """Return the original's Date: if it can be parsed, else the arrival, else empty."""
    value = mime.field_text(report.head, b"date")
    is_readable = value.isascii() and dates.parse_rfc5322(value) is not None
    return value if is_readable else dates.format_rfc5322(report.envelope.arrival)


MARKER = b"X-MS-Journal-Report"
MARKED_FORMATS = ("hybrid", "journal")  # values of archive_report_format
MARKER_LINE = b"\n" + MARKER


def has_marker(original: Iterable[bytes]) -> bool:
    """Return whether a line of the original begins like the marker."""
    buffer = b"\n"  # as if a line had ended before the first byte
    for piece in original:
        joined = buffer + piece
        if MARKER_LINE in joined:
            return True
        buffer = joined[-len(MARKER_LINE) + 1 :]
    return False


def lowercase_markers(original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the original with such lines in lower case; its size does not change."""
    is_first = True
    for piece in _replace_markers(original):
        if piece:
            yield piece[1:] if is_first else piece
            is_first = False


def _replace_markers(original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a line end and the original; buffer what may be the start of a marker."""
    buffer = b"\n"
    for piece in original:
        joined = (buffer + piece).replace(MARKER_LINE, MARKER_LINE.lower())
        safe_length = max(0, len(joined) - len(MARKER_LINE) + 1)
        yield joined[:safe_length]
        buffer = joined[safe_length:]
    yield buffer


CAPSULE_ID_DIGITS = 8  # enough to distinguish the pieces of a message


def message_id_left(archive_id: str, capsule_id: str) -> str:
    """Return the id-left (RFC 5322 3.6.4) of a copy's Message-Id."""
    return f"{archive_id}.{capsule_id[:CAPSULE_ID_DIGITS]}"


def could_loop(
    sealed_envelope: Envelope,
    request: Request,
    head: bytes,
    *,
    archive_from: bytes,
    archive_sender: bytes,
    has_store: bool,
) -> bool:
    """Return whether a copy of this message, sent as mail, could start a mail loop.

    head is the first bytes of the message. An archive copy that returns altered is
    archived, but causes no further copy (one, where there is no store). A bounce to
    archive_sender causes none, nor does a reply to a copy, which a responder on the
    archive mailbox sends to archive_from.
    """
    final = {each.final for each in sealed_envelope.recipients}
    if not sealed_envelope.sender and archive_sender and final == {archive_sender}:
        return True
    original = {
        (each.original or each.final).lower() for each in sealed_envelope.recipients
    }
    if original and original <= {archive_from.lower(), archive_sender.lower()}:
        if _is_reply_to_copy(head):
            return True
    return request.generation >= (1 if has_store else stamp.LAST_GENERATION)


def _is_reply_to_copy(head: bytes) -> bool:
    """Return whether the message refers to the Message-Id of a copy or report."""
    names = (b"in-reply-to", b"references")
    return any(
        received_header.is_archive_id(word.partition(b".")[0].decode("latin-1"))
        for field in header.fields(head)
        if field.name in names
        for word in field.value.split(b"<")[1:]
    )
