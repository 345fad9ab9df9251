"""The form in which a capsule travels through Postfix's queue: its body in base64.

Used by stamp_filter (packs) and back/spool (unpacks). A queue file that postsuper -r
sends through pickup(8) meets the postmaster's body_checks, which could change, refuse,
throw away or redirect what they find words in. In base64 (RFC 2045 6.8) they find none,
as in any attachment. Capsules that were queued by earlier versions have a plain body:
they are passed on as they are.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64

from postfix_archive.core import capsule, header
from postfix_archive.core.errors import CapsuleBroken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIELD = b"\r\nContent-Transfer-Encoding: "
PLAIN, PACKED = FIELD + b"8bit\r\n", FIELD + b"base64\r\n"
LINE = 76  # characters: RFC 2045 6.8, and what attachments have
STEP = LINE * 3 // 4  # bytes a line
BEGINNING = b2a_base64(capsule.MAGIC[: len(capsule.MAGIC) // 3 * 3], newline=False)


def packed(preamble: bytes, original: Iterable[bytes]) -> Iterator[bytes]:
    """Give a capsule of this preamble and original as it goes into the queue."""
    start = header.body_start(preamble)
    yield preamble[:start].replace(PLAIN, PACKED, 1)
    rest = preamble[start:]
    for piece in original:
        rest += piece
        whole = len(rest) // STEP * STEP
        if whole:
            yield _lines(rest[:whole])
            rest = rest[whole:]
    if rest:
        yield _lines(rest)


def is_packed(head: bytes) -> bool:
    """Tell whether a message with these first bytes is a capsule in that form."""
    start = header.body_start(head)
    return start >= 0 and head.startswith(BEGINNING, start)


def unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give a packed capsule with its plain body: header lines, fields, original.

    The header must stand in the first piece; an end that is cut off is left out. Raises
    CapsuleBroken when the body is no base64.
    """
    left = iter(pieces)
    head = next(left, b"")
    start = max(0, header.body_start(head))
    yield head[:start].replace(PACKED, PLAIN, 1)
    rest = head[start:].translate(None, b"\r\n")
    while True:
        whole = len(rest) // 4 * 4
        yield _bytes(rest[:whole])
        piece = next(left, None)
        if piece is None:
            return
        rest = rest[whole:] + piece.translate(None, b"\r\n")


def _lines(content: bytes) -> bytes:
    text = b2a_base64(content, newline=False)
    lines = [text[at : at + LINE] for at in range(0, len(text), LINE)]
    return b"\r\n".join(lines) + b"\r\n"


def _bytes(text: bytes) -> bytes:
    try:
        return a2b_base64(text)
    except Error as problem:
        raise CapsuleBroken(
            f"a capsule whose body is no base64 ({problem}): altered in the queue"
        ) from None
