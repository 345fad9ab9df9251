"""The MIME parts of a message, in order: number, media type, name, content.

Used by extraction and by show, which name a part by the same number. Reads with the
policy compat32 of Python's email, the default of its parsers: five times faster than
email.policy.default, and it never fails over a header.
"""

from __future__ import annotations

import binascii
import contextlib
import email.parser
from collections.abc import Iterator
from email.message import Message
from itertools import islice
from typing import NamedTuple

from postfix_archive.search import charset, extraction_header
from postfix_archive.search.extraction_limits import NESTING_LIMIT, PART_LIMIT

BLOCK_SIZE = 1 << 16  # bytes given to the parser at a time
FIRST_BYTES = 1 << 10
PARAMETER_FIELDS = ("content-type", "content-disposition")
MULTIPART = "multipart/"
MESSAGE_TYPES = ("message/rfc822", "message/global", "message/news")
ENCODED = ("base64", "quoted-printable")
# What Python's email raises over parameters that are none.
EMAIL_ERRORS = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Part(NamedTuple):
    """One part that is no multipart: its number from 1 on, media type, and itself.

    The media type is in lower case, and text/plain by default (RFC 2045 5.2).
    ``nested`` is the message in a part that is one, ``inside`` the number of the
    nested message that has the part, 0 for the message itself.
    """

    number: int
    media_type: str
    message: Message
    inside: int = 0
    nested: Message | None = None

    @property
    def name(self) -> str:
        """The file name, "" if there is none.

        By RFC 2231, or as an encoded word (RFC 2047), or as 8-bit text.
        """
        name = self.message.get_filename("") or ""
        if "=?" in name:
            raw = name.encode("utf-8", "surrogateescape")
            return extraction_header.text(raw)
        return " ".join(name.split())

    @property
    def charset(self) -> str:
        """The charset that is declared, "" if none is."""
        return self.message.get_content_charset("") or ""

    @property
    def is_attachment(self) -> bool:
        """True for all but text that is shown as the message itself."""
        disposition = self.message.get_content_disposition()
        is_text = self.media_type.startswith("text/")
        return disposition == "attachment" or not is_text or bool(self.name)

    @property
    def encoding(self) -> str:
        """The Content-Transfer-Encoding in lower case."""
        return str(self.message.get("content-transfer-encoding", "")).strip().lower()

    def content(self) -> bytes:
        """Return the decoded bytes; those of a nested message as it was sent."""
        payload = self.message.get_payload()
        if isinstance(payload, list):
            source = "".join(_source(each) for each in messages(self.message))
            return source.encode("utf-8", "surrogateescape")
        if isinstance(payload, str) and self.encoding == "base64":
            # With a fifth of the memory of get_payload(), which repairs the others.
            with contextlib.suppress(ValueError):
                return binascii.a2b_base64(payload)
        decoded = self.message.get_payload(decode=True)
        return decoded if isinstance(decoded, bytes) else b""

    def first_bytes(self) -> bytes:
        """Return the start of the content."""
        payload = self.message.get_payload()
        if isinstance(payload, str) and self.encoding == "base64":
            start = "".join(payload[:FIRST_BYTES].split())
            with_padding = start[: len(start) // 4 * 4]
            try:
                return binascii.a2b_base64(with_padding.encode("ascii", "replace"))
            except binascii.Error:
                return b""
        return self.content()[:FIRST_BYTES]

    def size(self) -> int:
        """Return the number of decoded bytes; of base64 without decoding it."""
        payload = self.message.get_payload()
        if isinstance(payload, str) and self.encoding == "base64":
            end = payload.rstrip()
            digits = len(end) - end.count("\n") - end.count("\r") - end.count(" ")
            padding = len(end) - len(end.rstrip("="))
            return (digits - padding) * 3 // 4
        return len(self.content())


def parse(original: bytes) -> Message:
    """Return the message; of one that is nested too deep, with its body as text."""
    parser = email.parser.BytesFeedParser()
    try:
        for start in range(0, len(original), BLOCK_SIZE):
            parser.feed(original[start : start + BLOCK_SIZE])
        return parser.close()
    except EMAIL_ERRORS:
        return email.parser.BytesHeaderParser().parsebytes(original)


def parts(message: Message, problems: list[str]) -> Iterator[Part]:
    """Yield all parts that are no multiparts, in order.

    A nested message comes before its own parts. Appends to problems which limit is
    exceeded.
    """
    number = 0
    pending = [(message, 0, 0)]
    while pending:
        part, depth, inside = pending.pop()
        if depth > NESTING_LIMIT:
            problems.append(f"nesting: deeper than {NESTING_LIMIT}")
            continue
        _decode_parameters(part)
        media_type = part.get_content_type()
        children = _children(part, media_type)
        if not (media_type.startswith(MULTIPART) and part.is_multipart()):
            number += 1
            if number > PART_LIMIT:
                problems.append(f"parts: more than {PART_LIMIT}")
                return
            yield Part(number, media_type, part, inside, next(iter(children), None))
            inside = number
        pending += [(each, depth + 1, inside) for each in reversed(children)]


def outside_text(message: Message) -> Iterator[bytes]:
    """Yield what is before the first and after the last part of each multipart."""
    for part in islice(message.walk(), PART_LIMIT):
        for text in (part.preamble, part.epilogue):
            if text:
                yield text.encode("utf-8", "surrogateescape")


def fields(message: Message) -> Iterator[tuple[str, bytes]]:
    """Yield name and unfolded value of each header field."""
    for name, value in message.raw_items():
        yield name, extraction_header.unfold(str(value))


def messages(part: Message) -> list[Message]:
    """Return what a multipart or a message part consists of, [] for all else."""
    payload = part.get_payload()
    if not isinstance(payload, list):
        return []
    return [each for each in payload if isinstance(each, Message)]


def _children(part: Message, media_type: str) -> list[Message]:
    """Return the parts of a multipart, or the message in a part."""
    children = messages(part)
    if media_type.startswith(MULTIPART):
        return children
    if media_type not in MESSAGE_TYPES:
        return []
    encoding = str(part.get("content-transfer-encoding", "")).strip().lower()
    # RFC 2046 5.2.1 forbids it, and some do it all the same.
    return [_decoded(each, encoding) for each in children]


def _decoded(message: Message, encoding: str) -> Message:
    if encoding not in ENCODED or message.keys():
        return message
    message["Content-Transfer-Encoding"] = encoding
    payload = message.get_payload(decode=True)
    return parse(payload) if isinstance(payload, bytes) else message


def _decode_parameters(part: Message) -> None:
    """Replace the fields with parameters whose bytes are not ASCII by decoded ones.

    Those over which email would fail lose their parameters.
    """
    for name, value in part.raw_items():
        if name.lower() in PARAMETER_FIELDS and not str(value).isascii():
            decoded = charset.decode_undeclared(extraction_header.unfold(str(value)))
            part.replace_header(name, decoded)
    try:
        part.get_filename()
        part.get_boundary()
        has_failed = "\0" in part.get_content_charset("")  # no codec takes it
    except EMAIL_ERRORS:
        has_failed = True
    for name in PARAMETER_FIELDS if has_failed else ():
        if name in part:
            # "=", since email takes charset=x for a parameter here too.
            value = str(part[name]).partition(";")[0].replace("=", "")
            part.replace_header(name, value)


def _source(message: Message) -> str:
    """Return a message as it was sent, but for white space after the names of fields.

    Message.as_bytes() folds header fields anew, and takes ten times as long.
    """
    fields = [f"{name}: {value}\r\n" for name, value in message.raw_items()]
    payload = message.get_payload()
    if isinstance(payload, str):
        return "".join([*fields, "\r\n", payload])
    sources = map(_source, messages(message))
    if message.get_content_maintype() != "multipart":
        return "".join([*fields, "\r\n", *sources])
    delimiter = f"--{message.get_boundary('')}"
    body = "".join(f"{delimiter}\r\n{each}\r\n" for each in sources)
    start = "" if message.preamble is None else f"{message.preamble}\r\n"
    end = f"{delimiter}--\r\n{message.epilogue or ''}"
    return "".join([*fields, "\r\n", start, body, end])
