"""Reads one message for its page: header, parts and text, each with a limit.

Used by message_page. Parts have the numbers that the command show gives them; a nested
message is read by the number of its part. Raises RecordNotFound for a part that is not
there, and what VisibleMessage raises.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from postfix_archive.errors import RecordNotFound
from postfix_archive.message import digest
from postfix_archive.message.printable import safe_text
from postfix_archive.search import (
    charset,
    extraction_header,
    extraction_html,
    extraction_parts,
    mime_entity,
)
from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_limits import MESSAGE_LIMIT
from postfix_archive.search.extraction_parts import Part
from postfix_archive.search.extraction_process import read_original
from postfix_archive.search.mime_entity import Entity
from postfix_archive.web import extractors
from postfix_archive.web.visible.message import VisibleMessage

LARGE = 4 << 20  # bytes; of larger messages one is in memory at a time
TEXT_LIMIT = 200_000  # characters of text on a page
CHARACTER_SIZE = 8  # bytes at most: ISO-2022-JP, with an escape around each character
FIELD_LIMIT = 4_000  # bytes of one header field on a page
FIELD_COUNT_LIMIT = 200  # header fields on a page
PART_COUNT_LIMIT = 100  # parts that a page lists
DIGEST_LIMIT = 32 << 20  # bytes of parts whose SHA-256 a page has
NESTED_LIMIT = 1 << 20  # bytes; a longer nested message has neither size nor SHA-256
IMPORTANT = ("from", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id")
_large_message = threading.Lock()


class Field(NamedTuple):
    """A header field: name and decoded value, both on one line."""

    name: str
    value: str


class ListedPart(NamedTuple):
    """A part as a page lists it; ``size`` is -1 and ``sha256`` "" if not computed."""

    part: Part
    name: str
    size: int
    sha256: str

    @property
    def is_html(self) -> bool:
        """True for HTML."""
        return self.part.media_type in extraction_html.MEDIA_TYPES

    @property
    def is_image(self) -> bool:
        """True for an image that may be shown."""
        return self.part.media_type.startswith("image/")

    @property
    def is_text(self) -> bool:
        """True for text that is shown as it is."""
        return self.part.media_type.startswith(("text/", "message/delivery-status"))


class MessageReading:
    """What is read of a message, or of one that is nested in it.

    ``number`` is that of the nested message's part, 0 for the message itself;
    ``problems`` say what is not shown.
    """

    def __init__(
        self, message: Entity, parts: list[Part], number: int, is_cut: bool
    ) -> None:
        """is_cut: the message was longer, so its last part is not whole."""
        self.message = message
        self._is_cut = is_cut
        self.number = number
        self.problems: list[str] = []
        self._all_parts = parts
        self._parts = [each for each in parts if each.inside == number]

    @cached_property
    def content(self) -> MessageContent:
        """What the header says."""
        return extraction_header.read(self.message.fields)

    def fields(self) -> tuple[list[Field], list[Field]]:
        """Return the important header fields, and the others, in their order."""
        fields = list(self._fields())
        important = [
            each
            for name in IMPORTANT
            for each in fields
            if each.name.strip().lower() == name
        ]
        return important, [each for each in fields if each not in important]

    def _fields(self) -> Iterator[Field]:
        for count, (name, raw) in enumerate(self.message.fields):
            if count == FIELD_COUNT_LIMIT:
                self.problems.append(f"header: cut at {FIELD_COUNT_LIMIT} fields")
                return
            text = safe_text(extraction_header.text(raw[:FIELD_LIMIT]))
            is_cut = len(raw) > FIELD_LIMIT
            yield Field(safe_text(name)[:100], text + (" […]" if is_cut else ""))

    def part(self, number: int) -> Part:
        """Return a part, also of a nested message."""
        if not 1 <= number <= len(self._all_parts):
            raise RecordNotFound(
                f"the message has no part {number}; it has {len(self._all_parts)}"
            )
        return self._all_parts[number - 1]

    def nested(self, number: int) -> MessageReading:
        """Return the message in a part."""
        part = self.part(number)
        if part.nested is None:
            raise RecordNotFound(f"part {number} is no message")
        return MessageReading(part.nested, self._all_parts, number, self._is_cut)

    def listed_parts(self) -> list[ListedPart]:
        """Return the first parts of this message, with their sizes."""
        if len(self._parts) > PART_COUNT_LIMIT:
            self.problems.append(
                f"parts: {PART_COUNT_LIMIT} of {len(self._parts)} are listed"
            )
        remaining = DIGEST_LIMIT
        listed = []
        for part in self._parts[:PART_COUNT_LIMIT]:
            size, sha256 = -1, ""
            limit = min(remaining, NESTED_LIMIT if part.nested else remaining)
            is_whole = not self._is_cut or part.entity.end < len(part.entity.source)
            if is_whole and part.entity.length < limit:
                content = part.content()
                size, sha256 = len(content), digest.sha256_hex(content)
                remaining -= size
            elif is_whole and not part.nested:
                size = part.size()
            listed.append(ListedPart(part, safe_name(part.name), size, sha256))
        return listed

    @property
    def has_plain_text(self) -> bool:
        """True if the text is not taken from HTML."""
        return any(map(_is_plain_text, self._parts))

    def text(self) -> str:
        """Return the text that is shown: that of text/plain, else that of HTML."""
        texts = self._plain_texts() if self.has_plain_text else [self._text_of_html()]
        text = "\n\n".join(texts)
        if len(text) > TEXT_LIMIT:
            self.problems.append(f"text: cut at {TEXT_LIMIT} characters")
        return safe_lines(text[:TEXT_LIMIT])

    def _plain_texts(self) -> list[str]:
        """Return the texts up to one character above the limit."""
        remaining = TEXT_LIMIT + 1
        texts = []
        for part in filter(_is_plain_text, self._parts):
            start = part.start(CHARACTER_SIZE * remaining)
            texts.append(charset.decode(start, part.charset)[:remaining])
            remaining -= len(texts[-1])
            if remaining <= 0:
                break
        return texts

    @property
    def html_part(self) -> Part | None:
        """The HTML that is shown, None if there is none."""
        for part in self._parts:
            is_html = part.media_type in extraction_html.MEDIA_TYPES
            if is_html and not part.is_attachment:
                return part
        return None

    def _text_of_html(self) -> str:
        """Return the text of the HTML part; the child process reads it."""
        part = self.html_part
        if part is None:
            return ""
        start = part.start(extraction_html.SOURCE_LIMIT)
        source = extraction_html.source(start, part.charset)
        header = b"Content-Type: text/html; charset=utf-8\r\n\r\n"
        try:
            content = extractors.extract(header + source.encode("utf-8", "replace"))
        except OSError as error:
            self.problems.append(f"text of the HTML: {error.strerror}")
            return ""
        self.problems += content.problems
        return content.text

    def images(self, inside: int) -> dict[str, Part]:
        """Return the parts of a message that its HTML may show, by Content-ID."""
        return {
            content_id.decode("ascii", "replace").strip().strip("<>"): each
            for each in self._all_parts
            if each.inside == inside and (content_id := each.entity.first("content-id"))
        }


@contextlib.contextmanager
def reading(visible: VisibleMessage) -> Iterator[MessageReading]:
    """Read a message; large ones one after the other, since they need much memory."""
    lock = _large_message if visible.size > LARGE else contextlib.nullcontext()
    with lock:
        original = read_original(visible.original_chunks())
        is_cut = len(original) > MESSAGE_LIMIT
        message = mime_entity.parse(original)  # a byte too much, but no copy of 32 MB
        del original
        problems: list[str] = []
        parts = list(extraction_parts.parts(message, problems))
        result = MessageReading(message, parts, 0, is_cut)
        result.problems += problems
        if is_cut:
            result.problems.append(f"message: cut at {MESSAGE_LIMIT >> 20} MB")
        yield result


def _is_plain_text(part: Part) -> bool:
    return part.media_type == "text/plain" and not part.is_attachment


def text_of(part: Part) -> str:
    """Return a part of text as text."""
    return charset.decode(part.content(), part.charset)


def safe_lines(text: str) -> str:
    """Return text of several lines without what could hide or reorder some of it."""
    return "\n".join(map(safe_text, text.splitlines()))


def safe_name(name: str) -> str:
    """Return a file name without path, control and reordering characters."""
    last = safe_text(name.replace("\\", "/").rpartition("/")[2])
    kept = "".join(
        each for each in last if each.isprintable() and each not in '"<>:|?*'
    )
    return kept.strip(" .")[-150:]
