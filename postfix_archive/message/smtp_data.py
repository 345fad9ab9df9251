"""Converts message bytes between pipe(8), SMTP, QMQP and our canonical form.

Used by intake and the SMTP and QMQP clients. Canonical form: the content after DATA,
not dot-stuffed, each line ended by CRLF (RFC 5321 2.3.8). Works on pieces of any size:
a large message is never in memory as a whole.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK_BYTES = 1 << 16
LINE_LIMIT = 998  # RFC 5322 section 2.1.1, without the CRLF


def to_canonical(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces with LF line ends, as from pipe(8), in canonical form.

    A missing last line end is added; an empty message stays empty.
    """
    last = b""
    for piece in pieces:
        if piece:
            last = piece
            yield piece.replace(b"\n", b"\r\n")
    if last and not last.endswith(b"\n"):
        yield b"\r\n"


def dot_stuff(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield canonical pieces with each leading dot doubled (RFC 5321 4.5.2)."""
    buffer = b"\r\n"  # as if a line had ended just before the first byte
    for piece in pieces:
        if not piece:
            continue
        joined = buffer + piece
        doubled = joined.replace(b"\r\n.", b"\r\n..")
        yield doubled[len(buffer) :]
        buffer = joined[-2:]


def to_lf(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield canonical pieces with LF line ends, as QMQP requires."""
    buffer = b""
    for piece in pieces:
        joined = buffer + piece
        buffer = b"\r" if joined.endswith(b"\r") else b""
        yield joined[: len(joined) - len(buffer)].replace(b"\r\n", b"\n")
    if buffer:
        yield buffer


def join_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces joined to blocks, so that a message needs few packets."""
    buffered: list[bytes] = []
    length = 0
    for piece in pieces:
        buffered.append(piece)
        length += len(piece)
        if length >= BLOCK_BYTES:
            yield b"".join(buffered)
            buffered, length = [], 0
    yield b"".join(buffered)


def chain(*parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of several parts, one part after the other."""
    for part in parts:
        yield from part


class ContentProperties:
    """The properties of a message that decide how SMTP can carry it unchanged."""

    __slots__ = (
        "_carriage_returns",
        "_line_feeds",
        "_open_line_length",
        "is_ascii",
        "longest_line",
        "has_nul",
    )

    def __init__(self) -> None:
        self.is_ascii = True
        self.has_nul = False
        self.longest_line = 0  # bytes, without the CRLF
        self._open_line_length = 0
        self._carriage_returns = 0
        self._line_feeds = 0

    def update(self, piece: bytes) -> None:
        """Add the next piece of a canonical message."""
        self.is_ascii = self.is_ascii and piece.isascii()
        self.has_nul = self.has_nul or b"\0" in piece
        self._carriage_returns += piece.count(b"\r")
        self._line_feeds += piece.count(b"\n")
        lengths = [*map(len, piece.split(b"\n"))]
        lengths[0] += self._open_line_length
        self._open_line_length = lengths.pop()
        if lengths:
            self.longest_line = max(self.longest_line, max(lengths) - 1)  # less the CR

    @property
    def has_bare_cr(self) -> bool:
        """True if there is a CR without LF; in canonical form each LF has a CR."""
        return self._carriage_returns != self._line_feeds

    @property
    def encoding(self) -> bytes:
        """The Content-Transfer-Encoding of these bytes (RFC 2045 2.7 to 2.9)."""
        if self.has_nul or self.has_bare_cr or self.longest_line > LINE_LIMIT:
            return b"binary"
        return b"7bit" if self.is_ascii else b"8bit"


END_OF_DATA = b"\r\n.\r\n"  # RFC 5321 4.1.1.4: only this ends the data


class DataDecoder:
    """Decodes the content of one message.

    ``is_complete`` is true once the end of data was read; ``rest`` then has the bytes
    that the client sent after it. ``has_bare_lf`` is true if a line ended without CR:
    the next server may see a different end of data in such a message.
    """

    __slots__ = ("_buffer", "_virtual_bytes", "has_bare_lf", "is_complete", "rest")

    def __init__(self) -> None:
        self._buffer = b"\r\n"  # as if a line had ended just before the first byte
        self._virtual_bytes = 2  # bytes of the buffer that were never sent
        self.is_complete = False
        self.has_bare_lf = False
        self.rest = b""

    def decode(self, data: bytes) -> bytes:
        """Return the canonical bytes that are complete with this data, maybe none."""
        joined = self._buffer + data
        end = joined.find(END_OF_DATA)
        if end >= 0:
            self.is_complete = True
            self.rest = joined[end + len(END_OF_DATA) :]
            self._buffer = b""
            return self._unstuff(joined[: end + 2])
        length = _partial_end_length(joined)
        self._buffer = joined[len(joined) - length :]
        return self._unstuff(joined[: len(joined) - length])

    def _unstuff(self, data: bytes) -> bytes:
        """Return data without the first dot of each line (RFC 5321 4.5.2)."""
        if not data:
            return b""
        if data.count(b"\n") != data.count(b"\r\n"):
            self.has_bare_lf = True
        virtual_bytes, self._virtual_bytes = self._virtual_bytes, 0
        return data.replace(b"\r\n.", b"\r\n")[virtual_bytes:]


def _partial_end_length(text: bytes) -> int:
    """Return how many bytes at the end of text may be the start of END_OF_DATA."""
    for length in range(len(END_OF_DATA) - 1, 0, -1):
        if text.endswith(END_OF_DATA[:length]):
            return length
    return 0
