"""Takes a message out of what other archives put around it, with its envelope.

Used by mail_import/run, for each message of a source: our archive copies, journal
reports of Exchange ([MS-XJRNL] 2.1), and the lines that Piler and we (format "message")
put on top. Bytes are cut out, never parsed and printed: the original stays as it was.

Anybody can send a message that looks like a copy or a report. It must not hide itself
behind what it encloses: a copy is taken apart if a key of this site made it, a report
and other copies only on demand.
"""

from __future__ import annotations

import binascii
import email
import re
from collections.abc import Iterator
from dataclasses import replace

from postfix_archive.errors import CapsuleBroken
from postfix_archive.mail_import import source_message
from postfix_archive.mail_import.source_message import SourceMessage
from postfix_archive.message import archive_copy, digest, envelope, header
from postfix_archive.message.envelope import Envelope, Recipient
from postfix_archive.message.keyring import Keyring
from postfix_archive.system import spool
from postfix_archive.system.spool import Spool

PREAMBLE_LIMIT = 16 << 20  # bytes before the original: copy_file.PREAMBLE_LIMIT
JOURNAL_MARKER = archive_copy.MARKER.lower()
# Lines on top that are not the message's: envelope recipients of Piler's smtpd, and
# envelope lines of our format "message".
TOP_FIELDS = (source_message.PILER_FIELD.lower(), b"x-envelope-to", b"x-envelope-from")
RECORD_ID = re.compile(rb"(?m)^Archive-Record-Id: ([!-~]+)\r?$")
JOURNAL_LINE = re.compile(
    rb"(?im)^(sender|on-behalf-of|to|cc|bcc|recipient|subject|message-id):"
    rb"[ \t]*(.*?)\r?$"
)
JOURNAL_RECIPIENTS = (b"to", b"cc", b"bcc", b"recipient")
EXPANSION = re.compile(rb",[ \t]*(expanded|forwarded):[ \t]*", re.IGNORECASE)


def unwrap(
    message: SourceMessage, spool_directory: str, keys: Keyring, *, has_reports: bool
) -> list[SourceMessage]:
    """Return the messages in this one: itself, unless it is a wrapper.

    has_reports: journal reports are taken apart, and copies that none of keys made.
    A wrapper's content is closed. Raises SpoolFailed.
    """
    head = message.content.head()
    unwrapped = _own_copy(message, head, spool_directory, None if has_reports else keys)
    if not unwrapped and has_reports:
        unwrapped = _journal_report(message, head, spool_directory)
    if not unwrapped:
        unwrapped = _without_top_lines(message, head, spool_directory)
    if not unwrapped:
        return [message]
    message.content.close()
    return unwrapped


def _own_copy(
    message: SourceMessage, head: bytes, spool_directory: str, keys: Keyring | None
) -> list[SourceMessage]:
    """Return the original of an archive copy with the envelope in it.

    Only of one that has a boundary of these keys and the original that it names; None:
    of any.
    """
    field = header.first(head, b"content-type")
    if field is None or b'boundary="=_archive_' not in field.value:
        return []
    start = archive_copy.original_offset(head)
    if start < 0:
        head = message.content.head(limit=PREAMBLE_LIMIT)
        start = archive_copy.original_offset(head)
    fields = archive_copy.envelope_fields(head)
    if start < 0 or not fields:
        return []
    try:
        original = envelope.parse(fields)
    except CapsuleBroken:
        return []
    boundary = field.value.rpartition(b'boundary="')[2].rstrip(b'"')
    stop = _last_delimiter(message.content, b"\r\n--" + boundary + b"--")
    if stop < start:
        return []
    content = source_message.part_of(message.content, start, stop, spool_directory)
    if keys is not None and not _is_ours(fields, original, boundary, content, keys):
        content.close()
        return []
    return [
        replace(
            message,
            content=content,
            how=f"copy {original.archive_id} in {message.how}",
            sender=original.sender,
            recipients=original.recipients,
            arrival=original.arrival,
            client=original.client,
            queue_id=original.queue_id,
        )
    ]


def _is_ours(
    fields: bytes, original: Envelope, boundary: bytes, content: Spool, keys: Keyring
) -> bool:
    """Tell whether a key of ours made the boundary, for this id and these bytes."""
    if content.digests([0])[0].hex() != original.sha256:
        return False
    record_id = RECORD_ID.search(fields)
    ids = {original.archive_id, record_id[1].decode() if record_id else ""}
    return any(
        digest.equal(
            archive_copy.make_boundary(each, original.sha256, Keyring((key,))), boundary
        )
        for each in ids
        for key in keys.keys
    )


def _last_delimiter(content: Spool, delimiter: bytes) -> int:
    """Return the offset of the delimiter near the end, -1 without one."""
    start = max(0, content.size - (1 << 16))
    position = content.head(start).rfind(delimiter)
    return start + position if position >= 0 else -1


def _journal_report(
    message: SourceMessage, head: bytes, spool_directory: str
) -> list[SourceMessage]:
    """Return the messages in a journal report of Exchange; [] if it is none."""
    names = {each.name for each in header.fields(head)}
    field = header.first(head, b"content-type")
    if JOURNAL_MARKER not in names or field is None:
        return []
    parts = list(_parts(message.content, header.body_start(head), field.value))
    if len(parts) < 2:
        return []
    first_start, first_stop = parts[0]
    text = message.content.head(first_start, first_stop - first_start)
    sender, recipients = _journal_envelope(_decoded(text))
    if sender is None:
        return []
    unwrapped = []
    for start, stop in parts[1:]:
        content = _attached_message(message.content, start, stop, spool_directory)
        if content is not None:
            unwrapped.append(
                replace(
                    message,
                    content=content,
                    how=f"journal report in {message.how}",
                    sender=sender,
                    recipients=recipients,
                    arrival=None,
                )
            )
    return unwrapped


def _parts(
    content: Spool, start: int, content_type: bytes
) -> Iterator[tuple[int, int]]:
    """Yield start and end of each part of a multipart (RFC 2046 5.1.1)."""
    parsed = email.message_from_bytes(b"Content-Type: " + content_type + b"\n\n")
    boundary = parsed.get_boundary()
    if not boundary or start < 0:
        return
    delimiter = re.compile(
        rb"(?:\A|\r\n)--"
        + re.escape(boundary.encode("latin-1", "replace"))
        + rb"(--)?[ \t]*(?:\r\n|\Z)"
    )
    body = content.head(start, content.size)
    begin = -1
    position = 0
    while match := delimiter.search(body, position):
        if begin >= 0:
            yield start + begin, start + match.start()
        if match[1]:
            return
        begin = match.end()
        position = match.end() - 2
    if begin >= 0:
        yield start + begin, start + len(body)


def _decoded(part: bytes) -> bytes:
    """Return the text of a text part, decoded from its transfer encoding."""
    text = email.message_from_bytes(part).get_payload(decode=True)
    return text if isinstance(text, bytes) else b""


def _journal_envelope(
    text: bytes,
) -> tuple[bytes | None, tuple[Recipient, ...]]:
    """Return sender and recipients of the lines of a report; the sender may be None."""
    sender = None
    recipients = []
    for match in JOURNAL_LINE.finditer(text):
        name, value = match[1].lower(), match[2].strip()
        if name == b"sender":
            sender = value.strip(b"<>")
        elif name in JOURNAL_RECIPIENTS and value:
            final, *originals = EXPANSION.split(value)[::2]
            original = originals[0].strip(b"<> ") if originals else b""
            recipients.append(Recipient(final.strip(b"<> "), original))
    return sender, tuple(recipients)


def _attached_message(
    content: Spool, start: int, stop: int, spool_directory: str
) -> Spool | None:
    """Return the message in a part of type message/rfc822, None for other parts."""
    head = content.head(start, min(stop - start, header.HEAD_LIMIT))
    content_type = header.first(head, b"content-type")
    if content_type is None or not content_type.value.lower().startswith(b"message/"):
        return None
    body = header.body_start(head)
    if body < 0:
        return None
    encoding = header.first(head, b"content-transfer-encoding")
    if encoding is not None and encoding.value.lower() == b"base64":
        try:
            decoded = binascii.a2b_base64(
                content.head(start + body, stop - start - body)
            )
        except binascii.Error:
            return None
        return source_message.read([decoded], spool_directory)
    part = source_message.part_of(content, start + body, stop, spool_directory)
    if not part.head(max(0, part.size - 2)).endswith(b"\r\n"):
        spool.append(part, b"\r\n", spool_directory)
    return part


def _without_top_lines(
    message: SourceMessage, head: bytes, spool_directory: str
) -> list[SourceMessage]:
    """Return the message without the envelope lines on top; [] if it has none."""
    sender = message.sender
    recipients = []
    end = 0
    how = message.how
    for each in header.fields(head):
        if each.name not in TOP_FIELDS:
            break
        end = each.end
        address = each.value.strip(b"<> ")
        if each.name == b"x-envelope-from":
            sender = address
        else:
            recipients.append(Recipient(address))
        if each.name.startswith(b"x-piler"):
            how = f"piler in {message.how}"
    if not end:
        return []
    size = message.content.size
    content = source_message.part_of(message.content, end, size, spool_directory)
    found = tuple(recipients)
    return [replace(message, content=content, how=how, sender=sender, recipients=found)]
