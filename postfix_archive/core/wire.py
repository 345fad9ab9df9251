"""Converts message bytes between pipe(8), SMTP, QMQP and our canonical form.

Used by intake and the SMTP and QMQP clients. Canonical form: the content after DATA,
not dot-stuffed, each line ended by CRLF (RFC 5321 2.3.8). Works on pieces of any size:
a large message is never in memory as a whole.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK = 1 << 16
LINE_LIMIT = 998  # RFC 5322 section 2.1.1, without the CRLF


def canonical(pieces: Iterable[bytes]) -> Iterator[bytes]:
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


def stuffed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield canonical pieces with each leading dot doubled (RFC 5321 4.5.2)."""
    held = b"\r\n"  # as if a line had ended just before the first byte
    for piece in pieces:
        if not piece:
            continue
        joined = held + piece
        doubled = joined.replace(b"\r\n.", b"\r\n..")
        yield doubled[len(held) :]
        held = joined[-2:]


def with_lf(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield canonical pieces with LF line ends, as QMQP requires."""
    held = b""
    for piece in pieces:
        joined = held + piece
        held = b"\r" if joined.endswith(b"\r") else b""
        yield joined[: len(joined) - len(held)].replace(b"\r\n", b"\n")
    if held:
        yield held


def blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces joined to blocks, so that a message needs few packets."""
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
    """Yield the pieces of several parts, one part after the other."""
    for part in parts:
        yield from part


class Shape:
    """The properties of a message that decide how SMTP can carry it unchanged."""

    __slots__ = ("_carriage_returns", "_line_feeds", "_open", "ascii", "longest", "nul")

    def __init__(self) -> None:
        self.ascii = True
        self.nul = False
        self.longest = 0  # bytes, without the CRLF
        self._open = 0
        self._carriage_returns = 0
        self._line_feeds = 0

    def take(self, piece: bytes) -> None:
        """Add the next piece of a canonical message."""
        self.ascii = self.ascii and piece.isascii()
        self.nul = self.nul or b"\0" in piece
        self._carriage_returns += piece.count(b"\r")
        self._line_feeds += piece.count(b"\n")
        lengths = [len(line) for line in piece.split(b"\n")]
        lengths[0] += self._open
        self._open = lengths.pop()
        if lengths:
            self.longest = max(self.longest, max(lengths) - 1)  # less the CR

    @property
    def bare_cr(self) -> bool:
        """True if there is a CR without LF; in canonical form each LF has a CR."""
        return self._carriage_returns != self._line_feeds

    @property
    def encoding(self) -> bytes:
        """The Content-Transfer-Encoding of these bytes (RFC 2045 2.7 to 2.9)."""
        if self.nul or self.bare_cr or self.longest > LINE_LIMIT:
            return b"binary"
        return b"7bit" if self.ascii else b"8bit"
