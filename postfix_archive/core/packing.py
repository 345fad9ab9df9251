"""The packed form of a capsule in Postfix's queue, which body_checks cannot read.

stamp_filter/capture packs, system/spool unpacks. After postsuper -r a queue file
passes through pickup(8) and cleanup(8) again, where body_checks could change, reject,
discard or redirect it. They inspect only the beginning of a body
(body_checks_size_limit in postconf(5)). Therefore that beginning is in base64 (RFC 2045
6.8). After an empty line the rest is plain, since a capsule must not be much larger
than its message: cleanup(8) bounces mail from pickup(8) above message_size_limit.
Capsules of earlier versions, plain or in base64 to the end, are read too.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64

from postfix_archive.core import capsule, header
from postfix_archive.core.errors import CapsuleBroken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIELD = b"\r\nContent-Transfer-Encoding: "
PLAIN, PACKED = FIELD + b"8bit\r\n", FIELD + b"base64\r\n"  # base64: earlier versions
EMPTY_LINE = b"\r\n\r\n"  # with the end of the line above
LINE = 76  # characters: RFC 2045 6.8, and what attachments have
STEP = LINE * 3 // 4  # bytes a line
# Bytes of fields and original to pack (all, if there are fewer). They make 131,072
# bytes of base64, over twice the default of body_checks_size_limit (51200).
BEGINNING_SIZE = 96 << 10
MAGIC = b2a_base64(capsule.MAGIC[: len(capsule.MAGIC) // 3 * 3], newline=False)


def packed(preamble: bytes, original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a capsule of this preamble and original in its packed form."""
    start = header.body_start(preamble)
    yield preamble[:start]
    held, size = preamble[start:], 0
    left = iter(original)
    for piece in left:
        held += piece
        if size + len(held) > BEGINNING_SIZE:
            end = _cut(held, BEGINNING_SIZE - size)
            yield _lines(held[:end]) + b"\r\n"
            yield held[end:]
            yield from left
            return
        whole = len(held) // STEP * STEP
        if whole:
            yield _lines(held[:whole])
            held, size = held[whole:], size + whole
    if held:
        yield _lines(held)


def is_packed(head: bytes) -> bool:
    """Return whether a message with these first bytes is a packed capsule."""
    start = header.body_start(head)
    return start >= 0 and head.startswith(MAGIC, start)


def unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a packed capsule in its plain form: header, fields, original.

    The whole header must be in the first piece. Incomplete base64 at the end is
    dropped. Raises CapsuleBroken when the beginning of the body is not base64.
    """
    left = iter(pieces)
    head = next(left, b"")
    start = max(0, header.body_start(head))
    yield head[:start].replace(PACKED, PLAIN, 1)
    held, text = head[start:], b""
    while True:
        end = held.find(EMPTY_LINE)
        known = max(0, len(held) - len(EMPTY_LINE) + 1) if end < 0 else end
        text += held[:known].translate(None, b"\r\n")
        whole = len(text) // 4 * 4
        yield _bytes(text[:whole])
        held, text = held[known:], text[whole:]
        if end >= 0:
            break
        piece = next(left, None)
        if piece is None:
            text += held.translate(None, b"\r\n")
            yield _bytes(text[: len(text) // 4 * 4])
            return
        held += piece
    yield held[len(EMPTY_LINE) :]
    yield from left


def _cut(content: bytes, end: int) -> int:
    """Return the last offset up to end that does not split a CRLF."""
    end = max(0, end)
    while content[:end].endswith(b"\r"):
        end -= 1
    return end


def _lines(content: bytes) -> bytes:
    text = b2a_base64(content, newline=False)
    lines = [text[at : at + LINE] for at in range(0, len(text), LINE)]
    return b"\r\n".join(lines) + b"\r\n"


def _bytes(text: bytes) -> bytes:
    try:
        return a2b_base64(text)
    except Error as problem:
        raise CapsuleBroken(
            f"capsule body is not base64 ({problem}): altered in the queue"
        ) from None
