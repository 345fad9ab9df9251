"""The MIME structure of a message: its entities, their header fields, their bytes.

Used by extraction_parts. Reads a message once from its start to its end, and copies
header fields only: hostile structure costs time in proportion to its length. Takes what
Python's email takes: lines that end with LF, a delimiter that is missing, an mbox line.
Pure; never raises.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import NamedTuple

from postfix_archive.search import charset
from postfix_archive.search.extraction_limits import (
    HEADER_FIELD_LIMIT,
    NESTING_LIMIT,
    PARAMETERS_LIMIT,
    PART_LIMIT,
)

MULTIPART = "multipart/"
DIGEST = "multipart/digest"
TEXT, MESSAGE = "text/plain", "message/rfc822"
MESSAGE_TYPES = (MESSAGE, "message/global", "message/news")
# RFC 5322 2.2, also with white space before the colon (4.5). No name starts like a
# delimiter (RFC 2046 5.1.1), which may have a colon in it.
FIELD_NAME = re.compile(rb"(?!--)([!-9;-~]*)[ \t]*:[ \t]*")
FIELD_END = re.compile(rb"\n(?![ \t])")
# A parameter that needs no decoding (RFC 2045 5.1), and the semicolon before it.
PARAMETER = re.compile(
    r""";\s*([a-z0-9-]+)=(?:"([^"\\<>]*)"|([^\s"\\()<>@,;:?=%'*]+))\s*(?=;|\Z)""",
    re.ASCII | re.IGNORECASE,
)
# What Python's email raises over parameters that are none.
EMAIL_ERRORS = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
Fields = list[tuple[str, bytes]]  # names, and values without line breaks


class ContentField(NamedTuple):
    """Content-Type or Content-Disposition: value in lower case, and parameters.

    ``boundary`` has the bytes of that parameter, b"" if there is none.
    """

    value: str
    parameters: dict[str, str]
    boundary: bytes


NO_FIELD = ContentField("", {}, b"")


class Entity:
    """A message or a part (RFC 2045 2.4): bytes ``start`` to ``end`` of a source.

    ``children`` are the parts of a multipart, or the one message in a message part.
    ``fields`` are those of the header, ``media_type`` is in lower case.
    """

    __slots__ = (
        "_values",
        "body_start",
        "children",
        "content_type",
        "end",
        "epilogue_start",
        "fields",
        "media_type",
        "preamble_end",
        "source",
        "start",
    )

    def __init__(self, source: bytes, start: int, default_type: str) -> None:
        self.source = source
        self.start = start
        self.end = len(source)
        self.fields, self.body_start = read_fields(source, start)
        self.children: list[Entity] = []
        self.preamble_end = self.epilogue_start = 0  # for a multipart that has them
        self._values = {name.lower(): value for name, value in reversed(self.fields)}
        self.content_type = self.content_field("content-type")
        self.media_type = self.content_type.value or default_type
        if self.media_type.count("/") != 1:
            self.media_type = TEXT  # RFC 2045 5.2

    def first(self, name: str) -> bytes:
        """Return the value of the first field with a lower-case name, b"" if none."""
        return self._values.get(name, b"")

    def content_field(self, name: str) -> ContentField:
        """Return a field with parameters."""
        value = self._values.get(name)
        return _content_field(value[:PARAMETERS_LIMIT]) if value else NO_FIELD

    @property
    def length(self) -> int:
        """The number of bytes of the body, as it was sent."""
        return self.end - self.body_start

    def body(self, size: int = sys.maxsize) -> bytes:
        """Return the body as it was sent, or its first bytes."""
        return self.source[self.body_start : min(self.end, self.body_start + size)]

    def raw(self) -> bytes:
        """Return header and body as they were sent."""
        return self.source[self.start : self.end]

    def preamble(self) -> bytes:
        """Return what a multipart has before its first part."""
        return self.source[self.body_start : self.preamble_end]

    def epilogue(self) -> bytes:
        """Return what a multipart has after its last part."""
        return self.source[self.epilogue_start or self.end : self.end]


def read_fields(source: bytes, start: int) -> tuple[Fields, int]:
    """Return the fields of a header, and the offset of the body after it."""
    fields: Fields = []
    position = start
    # Python's email passes over these, too: a line of an mbox, and the end of a field.
    if source.startswith((b"From ", b" ", b"\t"), position):
        position = _field_end(source, position)
    while match := FIELD_NAME.match(source, position):
        position = _field_end(source, match.end())
        if match[1] and len(fields) < HEADER_FIELD_LIMIT:
            value = source[match.end() : position]
            unfolded = value.replace(b"\r", b"").replace(b"\n", b"")
            fields.append((match[1].decode("ascii"), unfolded))
    for line_end in (b"\r\n", b"\n"):
        if source.startswith(line_end, position):
            return fields, position + len(line_end)
    return fields, position


def _field_end(source: bytes, position: int) -> int:
    match = FIELD_END.search(source, position)
    return match.end() if match else len(source)


@functools.lru_cache(maxsize=256)
def _content_field(raw: bytes) -> ContentField:
    """Return a field with parameters (RFC 2045 5.1, RFC 2183, RFC 2231)."""
    text = charset.decode_undeclared(raw)
    value, semicolon, rest = text.partition(";")
    pairs = _simple_parameters(semicolon + rest)
    if pairs is None or "=" in value:
        pairs = _parameters(text)
    parameters = {name.lower(): parameter for name, parameter in reversed(pairs)}
    boundary = parameters.get("boundary", "").rstrip().encode("utf-8", "replace")
    return ContentField(value.strip().lower(), parameters, boundary)


def _simple_parameters(text: str) -> list[tuple[str, str]] | None:
    """Return the parameters, each after a semicolon; None if one is not simple."""
    pairs = []
    position = 0
    while position < len(text):
        match = PARAMETER.match(text, position)
        if match is None:
            return None
        name, quoted, token = match.groups()
        pairs.append((name, token or quoted or ""))
        position = match.end()
    return pairs


def _parameters(text: str) -> list[tuple[str, str]]:
    """Return the parameters of a field, [] if they are none."""
    from email.message import Message  # takes 7 ms, which most messages do not need
    from email.utils import collapse_rfc2231_value

    message = Message()
    message["content-type"] = text
    try:
        pairs = message.get_params() or []
        return [(name, collapse_rfc2231_value(each)) for name, each in pairs]
    except EMAIL_ERRORS:
        return []


def parse(source: bytes) -> Entity:
    """Return the message, with all entities in it.

    Those nested deeper than NESTING_LIMIT, and those after PART_LIMIT, are part of the
    one before them.
    """
    return _Parser(source).parse()


class _Parser:
    """Reads the lines that may be delimiters, one after the other.

    ``_open`` are the entities at whose end it is not yet, each inside the one before.
    A line ends all that is inside the outermost multipart of which it is a delimiter.
    """

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._open: list[Entity] = []
        # For each delimiter: the multipart's place in _open, and if it is the last one.
        self._delimiters: dict[bytes, tuple[int, bool]] = {}
        self._leaf_count = 0

    def parse(self) -> Entity:
        root = Entity(self._source, 0, TEXT)
        position = self._enter(root)
        while self._delimiters and self._leaf_count <= PART_LIMIT:
            if not self._source.startswith(b"--", position):
                position = self._source.find(b"\n--", position) + 1
                if not position:
                    break
            line_end = self._source.find(b"\n", position) + 1 or len(self._source)
            line = self._source[position:line_end].rstrip(b" \t\r\n")
            place = self._delimiters.get(line)
            if place:
                position = self._delimiter(*place, position, line_end)
            else:
                position = line_end
        return root

    def _enter(self, entity: Entity) -> int:
        """Go into an entity, and the message in it; return where its body starts."""
        while True:
            self._open.append(entity)
            self._leaf_count += 1
            if len(self._open) > NESTING_LIMIT + 1:
                return entity.body_start
            delimiter = b"--" + entity.content_type.boundary
            if entity.media_type.startswith(MULTIPART) and len(delimiter) > 2:
                place = len(self._open) - 1
                self._delimiters.setdefault(delimiter, (place, False))
                self._delimiters.setdefault(delimiter + b"--", (place, True))
            if entity.media_type not in MESSAGE_TYPES:
                return entity.body_start
            inner = Entity(self._source, entity.body_start, TEXT)
            entity.children.append(inner)
            entity = inner

    def _delimiter(self, place: int, is_last: bool, start: int, end: int) -> int:
        """Take a line that is a delimiter of an entity; return where to go on."""
        multipart = self._open[place]
        self._leave(place + 1, start)
        if is_last:
            multipart.epilogue_start = end
            self._forget(place)
            return end
        if not multipart.preamble_end:
            multipart.preamble_end = self._end_before(start)
            self._leaf_count -= 1
        default_type = MESSAGE if multipart.media_type == DIGEST else TEXT
        child = Entity(self._source, end, default_type)
        multipart.children.append(child)
        return self._enter(child)

    def _leave(self, place: int, delimiter_start: int) -> None:
        """End the entities from this place on, before a delimiter."""
        self._forget(place)
        end = self._end_before(delimiter_start)
        for entity in self._open[place:]:
            entity.end = max(entity.body_start, end)
            entity.epilogue_start = min(entity.epilogue_start, entity.end)
        if place < len(self._open) and self._open[place].start == delimiter_start:
            self._open[place - 1].children.pop()  # two delimiters without a part
        del self._open[place:]

    def _end_before(self, delimiter_start: int) -> int:
        """Return where the line break before a delimiter starts, which is of it."""
        end = delimiter_start
        for byte in (b"\n", b"\r"):
            if self._source.endswith(byte, 0, end):
                end -= 1
        return end

    def _forget(self, place: int) -> None:
        """Forget the delimiters of the multiparts from this place on, the last ones."""
        while self._delimiters:
            delimiter, value = self._delimiters.popitem()
            if value[0] < place:
                self._delimiters[delimiter] = value
                return
