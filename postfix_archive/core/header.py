"""Reads the header fields of a message where they stand, without changing a byte.

Used by trace, stamp, capsule and report. Works on the first bytes of a canonical
message (CRLF lines) and never raises: what is not a header field ends the header.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Of a longer header the rest is not looked into. Postfix took 20,000 lines and
# cuts none but lines over header_size_limit (102400); a stamp further down than
# this counts as absent, and the message is archived in full.
HEAD_LIMIT = 1 << 20


class Field:
    """One header field: its name in lower case and where it stands in the head."""

    __slots__ = ("end", "head", "name", "start")

    def __init__(self, head: bytes, name: bytes, start: int, end: int) -> None:
        self.head = head
        self.name = name
        self.start = start
        self.end = end

    @property
    def raw(self) -> bytes:
        """The field's exact bytes, with folds and the last CRLF."""
        return self.head[self.start : self.end]

    @property
    def value(self) -> bytes:
        """What stands after the colon, unfolded (RFC 5322 2.2.3) and stripped."""
        return self.raw.split(b":", 1)[1].replace(b"\r\n", b"").strip()


def fields(head: bytes, start: int = 0) -> Iterator[Field]:
    """Give the header fields from start on; stop at the first line that is none."""
    while start < len(head):
        behind = _end_of_field(head, start)
        colon = head.find(b":", start, behind)
        name = head[start:colon].rstrip() if colon > 0 else b""
        if not name or behind < 0 or not _is_name(name):
            return
        yield Field(head, name.lower(), start, behind)
        start = behind


def first(head: bytes, name: bytes, start: int = 0) -> Field | None:
    """Return the first field of that (lower case) name, None if there is none."""
    for field in fields(head, start):
        if field.name == name:
            return field
    return None


def end(head: bytes) -> int:
    """Return the offset behind the last header field."""
    behind = 0
    for field in fields(head):
        behind = field.end
    return behind


def body_start(head: bytes) -> int:
    """Return the offset behind the empty line that ends the header.

    -1 if no header ends in these bytes with an empty line.
    """
    behind = end(head)
    return behind + 2 if head.startswith(b"\r\n", behind) else -1


def _end_of_field(head: bytes, start: int) -> int:
    end = head.find(b"\r\n", start) + 2
    while end > 1 and head[end : end + 1] in (b" ", b"\t"):
        end = head.find(b"\r\n", end) + 2
    return end if end > 1 else -1


def _is_name(name: bytes) -> bool:
    """RFC 5322 2.2: printable ASCII without the colon."""
    return name.isascii() and min(name) > 32 and max(name) < 127
