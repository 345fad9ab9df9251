"""The MIME parts of a message, in order: number, media type, name, content.

Used by extraction and by show, which name a part by the same number.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from postfix_archive.search import extraction_header, mime_entity
from postfix_archive.search.extraction_limits import (
    MESSAGE_LIMIT,
    NESTING_LIMIT,
    PART_LIMIT,
)
from postfix_archive.search.mime_entity import (
    EMAIL_ERRORS,
    MESSAGE_TYPES,
    MULTIPART,
    TEXT,
    Entity,
    Fields,
)

FIRST_BYTES = 1 << 10
ENCODED = ("base64", "quoted-printable")
UUENCODED = ("x-uuencode", "uuencode", "uue", "x-uue")


class Part(NamedTuple):
    """One part that is no multipart: its number from 1 on, media type, and itself.

    The media type is in lower case, and text/plain by default (RFC 2045 5.2).
    ``nested`` is the message in a part that is one, ``inside`` the number of the
    nested message that has the part, 0 for the message itself.
    """

    number: int
    media_type: str
    entity: Entity
    inside: int = 0
    nested: Entity | None = None

    @property
    def name(self) -> str:
        """The file name, "" if there is none.

        By RFC 2231, or as an encoded word (RFC 2047), or as 8-bit text.
        """
        disposition = self.entity.content_field("content-disposition").parameters
        name = disposition.get("filename") or ""
        name = name or self.entity.content_type.parameters.get("name", "")
        if "=?" in name:
            return extraction_header.text(name.encode("utf-8", "replace"))
        return " ".join(name.split())

    @property
    def charset(self) -> str:
        """The charset that is declared, "" if none is."""
        declared = self.entity.content_type.parameters.get("charset", "").lower()
        return declared if declared.isascii() and "\0" not in declared else ""

    @property
    def is_attachment(self) -> bool:
        """True for all but text that is shown as the message itself."""
        disposition = self.entity.content_field("content-disposition").value
        is_text = self.media_type.startswith("text/")
        return disposition == "attachment" or not is_text or bool(self.name)

    def content(self) -> bytes:
        """Return the decoded bytes; those of a nested message as it was sent."""
        return self.nested.raw() if self.nested else _decoded(self.entity)

    def start(self, size: int) -> bytes:
        """Return the first bytes of the content; mostly without reading the rest."""
        encoding = "" if self.nested else _encoding(self.entity)
        if encoding == "base64":  # twice as long at most, unless its lines are short
            start = _decoded_base64(self.entity.body(2 * size))
            if len(start) >= size:
                return start[:size]
        elif not self.nested and encoding not in (*ENCODED, *UUENCODED):
            return self.entity.body(size)
        return self.content()[:size]

    def first_bytes(self) -> bytes:
        """Return the start of the content."""
        if self.nested is None and _encoding(self.entity) == "base64":
            start = b"".join(self.entity.body()[:FIRST_BYTES].split())
            try:
                return binascii.a2b_base64(start[: len(start) // 4 * 4])
            except binascii.Error:
                return b""
        return self.content()[:FIRST_BYTES]

    def size(self) -> int:
        """Return the number of decoded bytes; of base64 without decoding it."""
        if self.nested is None and _encoding(self.entity) == "base64":
            end = self.entity.body().rstrip()
            digits = len(end) - end.count(b"\n") - end.count(b"\r") - end.count(b" ")
            padding = len(end) - len(end.rstrip(b"="))
            return (digits - padding) * 3 // 4
        return len(self.content())


def parts(message: Entity, problems: list[str]) -> Iterator[Part]:
    """Yield all parts that are no multiparts, in order.

    A nested message comes before its own parts. Appends to problems which limit is
    exceeded.
    """
    number = 0
    decodable = MESSAGE_LIMIT  # bytes of encoded messages in all, one inside the other
    pending = [(message, 0, 0)]
    while pending:
        entity, depth, inside = pending.pop()
        media_type, children = entity.media_type, entity.children
        if depth > NESTING_LIMIT:
            problems.append(f"nesting: deeper than {NESTING_LIMIT}")
            media_type, children = TEXT, []
        nested = None
        if children and media_type in MESSAGE_TYPES:
            nested = children[0]
            if _is_encoded(entity) and entity.length <= decodable:
                decodable -= entity.length
                nested = mime_entity.parse(_decoded(entity))
            children = [nested]
        if not (children and media_type.startswith(MULTIPART)):
            number += 1
            if number > PART_LIMIT:
                problems.append(f"parts: more than {PART_LIMIT}")
                return
            yield Part(number, media_type, entity, inside, nested)
            inside = number
        pending += [(each, depth + 1, inside) for each in reversed(children)]


def outside_text(message: Entity) -> Iterator[bytes]:
    """Yield what is before the first and after the last part of each multipart."""
    pending = [message]
    while pending:
        entity = pending.pop()
        if entity.children and entity.media_type.startswith(MULTIPART):
            yield from filter(None, (entity.preamble(), entity.epilogue()))
        pending += reversed(entity.children)


def field_groups(content: bytes) -> Iterator[Fields]:
    """Yield the groups of fields in a delivery report (RFC 3464)."""
    position = 0
    while position < len(content):
        fields, end = mime_entity.read_fields(content, position)
        if fields:
            yield fields
        # A line that is no field is passed over.
        position = end if end > position else content.find(b"\n", position) + 1
        if not position:
            return


def _is_encoded(entity: Entity) -> bool:
    """Tell whether the message in a part is encoded.

    RFC 2046 5.2.1 forbids it, and some do it all the same.
    """
    [message] = entity.children
    return not message.fields and _encoding(entity) in ENCODED


def _encoding(entity: Entity) -> str:
    """Return the Content-Transfer-Encoding in lower case."""
    value = entity.first("content-transfer-encoding")
    return value.decode("ascii", "replace").strip().lower()


def _decoded(entity: Entity) -> bytes:
    """Return the body without its transfer encoding; as it is if that is damaged."""
    body, encoding = entity.body(), _encoding(entity)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    if encoding == "base64":
        return _decoded_base64(body)
    return _decoded_by_email(body, encoding) if encoding in UUENCODED else body


def _decoded_base64(body: bytes) -> bytes:
    """Return a decoded body; if it was cut, up to there.

    It may lack the padding, or end after one digit of four.
    """
    for end, padding in ((None, b""), (None, b"=="), (-1, b"")):
        with contextlib.suppress(binascii.Error):
            return binascii.a2b_base64(body[:end] + padding)
    return _decoded_by_email(body, "base64")


def _decoded_by_email(body: bytes, encoding: str) -> bytes:
    """Return a body that is not quite in this encoding, as far as it can be read."""
    from email.message import Message  # takes 7 ms, and is seldom needed

    message = Message()
    message["Content-Transfer-Encoding"] = encoding
    message.set_payload(body.decode("ascii", "surrogateescape"))
    try:
        decoded = message.get_payload(decode=True)
    except EMAIL_ERRORS:
        return body
    return decoded if isinstance(decoded, bytes) else body
