"""Finds header fields by their offset in a message, without changing a byte.

Used by received, stamp, capsule and archive_copy. Works on the first bytes (``head``)
of a canonical message (CRLF line ends). Never raises: the first line that is not a
header field ends the header.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The rest of a longer header is not searched. Postfix accepted 20,000 header lines and
# cuts only fields above header_size_limit (102400). A stamp further down than this
# counts as absent: the message is archived in full.
HEAD_LIMIT = 1 << 20
NAME_CHARACTERS = bytes(range(33, 127))  # and no colon, at which a name ends


class Field:
    """One header field: lower-case name, and start and end offset in the head."""

    __slots__ = ("end", "head", "name", "start")

    def __init__(self, head: bytes, name: bytes, start: int, end: int) -> None:
        self.head = head
        self.name = name
        self.start = start
        self.end = end

    @property
    def raw(self) -> bytes:
        """The field's exact bytes, folded as received, with the final CRLF."""
        return self.head[self.start : self.end]

    @property
    def value(self) -> bytes:
        """The text after the colon, unfolded (RFC 5322 2.2.3) and stripped."""
        return self.raw.split(b":", 1)[1].replace(b"\r\n", b"").strip()


def fields(head: bytes) -> Sequence[Field]:
    """Return the header fields up to the first line that is none.

    Several questions about the head of one message parse it once.
    """
    global _last_parsed
    if _last_parsed[0] is not head:
        is_equal = _last_parsed[0] == head
        _last_parsed = head, _last_parsed[1] if is_equal else list(_parse(head))
    return _last_parsed[1]


_last_parsed: tuple[bytes, Sequence[Field]] = (b"", ())


def _parse(head: bytes, start: int = 0) -> Iterator[Field]:
    """Yield the header fields from offset start to the first line that is none."""
    while start < len(head):
        field_end = _end_of_field(head, start)
        colon = head.find(b":", start, field_end)
        name = head[start:colon].rstrip() if colon > 0 else b""
        if not name or field_end < 0 or not _is_name(name):
            return
        yield Field(head, name.lower(), start, field_end)
        start = field_end


def first(head: bytes, name: bytes, start: int = 0) -> Field | None:
    """Return the first field with this lower-case name, None if there is none."""
    for field in _parse(head, start) if start else fields(head):
        if field.name == name:
            return field
    return None


def end(head: bytes) -> int:
    """Return the offset after the last header field."""
    parsed = fields(head)
    return parsed[-1].end if parsed else 0


def body_start(head: bytes) -> int:
    """Return the offset after the empty line that ends the header.

    -1 if these bytes have no such empty line.
    """
    offset = end(head)
    return offset + 2 if head.startswith(b"\r\n", offset) else -1


def _end_of_field(head: bytes, start: int) -> int:
    end = head.find(b"\r\n", start) + 2
    while end > 1 and head.startswith((b" ", b"\t"), end):
        end = head.find(b"\r\n", end) + 2
    return end if end > 1 else -1


def _is_name(name: bytes) -> bool:
    """RFC 5322 2.2: printable ASCII without the colon."""
    return not name.translate(None, NAME_CHARACTERS)
