"""Builds the MIME messages that we write: multiparts, parts, Subject values, text.

Used by archive_copy and outcome_report.
"""

from __future__ import annotations

from binascii import b2a_base64

from postfix_archive.message import address, header

SUBJECT_LIMIT = 900  # bytes; with its name below the 998 of RFC 5322 2.1.1
ENCODED_SUBJECT_LIMIT = 1 << 14  # bytes of encoded words that are decoded
LINE_LIMIT = 76  # characters of a line with encoded words: RFC 2047 2
ENCODED_WORD_BYTES = 39  # bytes in one encoded word: fills a line with "Subject: "


def part(
    content_type: bytes, description: bytes, body: bytes, encoding: bytes = b""
) -> bytes:
    """Return one body part; its encoding is 7bit or 8bit unless given."""
    encoding = encoding or (b"7bit" if body.isascii() else b"8bit")
    return (
        b"Content-Description: %s\r\nContent-Type: %s\r\n"
        b"Content-Transfer-Encoding: %s\r\n\r\n%s"
        % (description, content_type, encoding, body)
    )


def text_part(lines: list[bytes]) -> bytes:
    """Return the part for people: these lines, in UTF-8."""
    body = b"\r\n".join(lines) + b"\r\n"
    charset = b"us-ascii" if body.isascii() else b"utf-8"
    return part(b"text/plain; charset=" + charset, b"Notification", body)


def status_part(groups: list[bytes]) -> bytes:
    """Return the part for programs (RFC 3464, RFC 6533): these groups of fields."""
    body = b"\r\n".join(groups)
    type_prefix = b"" if body.isascii() else b"global-"
    return part(b"message/%sdelivery-status" % type_prefix, b"Delivery report", body)


def multipart(
    fields: list[tuple[bytes, bytes]],
    parts: list[bytes],
    *,
    content_type: bytes,
    boundary: bytes,
    encoding: bytes,
    last_line: bytes = b"",
) -> bytes:
    """Return a multipart up to the end of its last part; closing() ends it.

    fields without a value are left out. encoding is the widest of the parts that are
    not ASCII only (RFC 2045 6.4). last_line ends the header.
    """
    delimiter = b"--" + boundary + b"\r\n"
    body = b"\r\n".join(delimiter + each for each in parts)
    if encoding == b"7bit" and not body.isascii():
        encoding = b"8bit"
    lines = [b"%s: %s" % field for field in fields if field[1]]
    lines += [
        b"Auto-Submitted: auto-generated",
        b"Precedence: bulk",  # for responders that do not know RFC 3834
        b"X-Auto-Response-Suppress: All",  # [MS-OXCMAIL] 2.1.3.2.14, Exchange
        b"MIME-Version: 1.0",
        b'Content-Type: %s;\r\n\tboundary="%s"' % (content_type, boundary),
        b"Content-Transfer-Encoding: " + encoding,
        *([last_line] if last_line else []),
        b"\r\nThis is a MIME-encapsulated message.\r\n\r\n",
    ]
    return b"\r\n".join(lines) + body


def closing(boundary: bytes) -> bytes:
    """Return what comes after the last part of a multipart."""
    return b"\r\n--" + boundary + b"--\r\n"


def field_text(head: bytes, name: bytes) -> bytes:
    """Return the value of a header field on one line, empty if there is none."""
    field = header.first(head, name)
    return b"" if field is None else address.escape_controls(field.value)


def subject(head: bytes, prefix: bytes = b"") -> bytes:
    """Return prefix and the original's Subject as a folded field value, in ASCII.

    Raw 8-bit text becomes encoded words (RFC 2047).
    """
    value = prefix + (subject_text(head) or b"(no subject)")
    if value.isascii():
        return _fold(value)
    text = value.decode("utf-8", "replace")
    encoded_words = []
    while text:
        size = ENCODED_WORD_BYTES
        while len(text[:size].encode()) > ENCODED_WORD_BYTES:
            size -= 1
        encoded = b2a_base64(text[:size].encode(), newline=False)
        encoded_words.append(b"=?utf-8?B?" + encoded + b"?=")
        text = text[size:]
    return b"\r\n ".join(encoded_words)


def subject_text(head: bytes) -> bytes:
    """Return the original's Subject on one line, at most SUBJECT_LIMIT bytes of it.

    Encoded words stay as they are, but are decoded in a Subject that is cut or also
    has raw 8-bit text: neither a word nor a character in it is ever cut.
    """
    value = field_text(head, b"subject")
    if b"=?" in value and (len(value) > SUBJECT_LIMIT or not value.isascii()):
        from postfix_archive.message import encoded_words  # seldom needed, imports re

        text = encoded_words.decode(value[:ENCODED_SUBJECT_LIMIT])
        value = address.escape_controls(text.encode("utf-8", "replace")).strip()
    return truncate(value)


def _fold(value: bytes) -> bytes:
    """Return a Subject's value, folded where white space allows (RFC 5322 2.2.3)."""
    lines = []
    limit = LINE_LIMIT - len(b"Subject: ")
    while len(value) > limit:
        end = _line_end(value, limit)
        lines.append(value[:end])
        value = value[end:]
        limit = LINE_LIMIT
    return b"\r\n".join([*lines, value] if value else lines)


def _line_end(value: bytes, limit: int) -> int:
    """Return the offset of white space before a word: the last up to limit, or next."""
    last = len(value) - 1
    for offsets in (range(min(limit, last - 1), 0, -1), range(limit + 1, last)):
        for end in offsets:
            if value[end] in b" \t" and value[end + 1] not in b" \t":
                return end
    return len(value)


def truncate(text: bytes) -> bytes:
    """Return text cut to SUBJECT_LIMIT bytes, never inside a UTF-8 character."""
    end = min(len(text), SUBJECT_LIMIT)
    while 0 < end < len(text) and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]


def to_utf8(value: bytes) -> bytes:
    """Return value on one line, in UTF-8; invalid bytes become U+FFFD."""
    text = address.escape_controls(value)
    return text if text.isascii() else text.decode("utf-8", "replace").encode()
