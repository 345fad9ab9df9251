"""The one canonical form of message bytes, and its form on an SMTP connection.

Used by the doors (in) and by handback (out). Canonical: what follows DATA on the
wire with dots unstuffed, every line ended by CRLF (RFC 5321 2.3.8). Works on pieces
of any size, so that a large message never stands in memory as a whole.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK = 1 << 16
LINE_LIMIT = 998  # RFC 5322 section 2.1.1, without the CRLF


def canonical(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give pieces with LF line ends, as pipe(8) hands them over, CRLF line ends.

    A missing last line end is added; an empty message stays empty.
    """
    last = b""
    for piece in pieces:
        if piece:
            last = piece
            yield piece.replace(b"\n", b"\r\n")
    if last and not last.endswith(b"\n"):
        yield b"\r\n"


def stuffed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Double each dot that begins a line (RFC 5321 4.5.2); input is canonical."""
    held = b"\r\n"  # as if a line had ended just before the first byte
    for piece in pieces:
        if not piece:
            continue
        joined = held + piece
        doubled = joined.replace(b"\r\n.", b"\r\n..")
        yield doubled[len(held) :]
        held = joined[-2:]


def with_lf(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give canonical pieces the line ends that QMQP wants: LF."""
    held = b""
    for piece in pieces:
        joined = held + piece
        held = b"\r" if joined.endswith(b"\r") else b""
        yield joined[: len(joined) - len(held)].replace(b"\r\n", b"\n")
    if held:
        yield held


def blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces, so that one message is a few packets."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= BLOCK:
            yield b"".join(held)
            held, length = [], 0
    yield b"".join(held)


def chained(*parts: Iterable[bytes]) -> Iterator[bytes]:
    """Give the pieces of several parts, one part after the other."""
    for part in parts:
        yield from part


class Shape:
    """What a transport must be able to carry for these bytes to stay as they are."""

    __slots__ = ("_carriage_returns", "_line_feeds", "_open", "ascii", "longest", "nul")

    def __init__(self) -> None:
        self.ascii = True
        self.nul = False
        self.longest = 0  # bytes, without the CRLF
        self._open = 0
        self._carriage_returns = 0
        self._line_feeds = 0

    def take(self, piece: bytes) -> None:
        """Look at the next piece of a canonical message."""
        self.ascii = self.ascii and piece.isascii()
        self.nul = self.nul or b"\0" in piece
        self._carriage_returns += piece.count(b"\r")
        self._line_feeds += piece.count(b"\n")
        lengths = [len(line) for line in piece.split(b"\n")]
        lengths[0] += self._open
        self._open = lengths.pop()
        if lengths:
            self.longest = max(self.longest, max(lengths) - 1)  # the CR

    @property
    def bare_cr(self) -> bool:
        """True if a CR stands alone; in canonical form each LF has one of its own."""
        return self._carriage_returns != self._line_feeds

    @property
    def encoding(self) -> bytes:
        """The Content-Transfer-Encoding that is true of the bytes (RFC 2045 2.7)."""
        if self.nul or self.bare_cr or self.longest > LINE_LIMIT:
            return b"binary"
        return b"7bit" if self.ascii else b"8bit"
