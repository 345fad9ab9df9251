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

ENCODING_FIELD = b"\r\nContent-Transfer-Encoding: "
PLAIN_ENCODING, PACKED_ENCODING = (
    ENCODING_FIELD + b"8bit\r\n",
    ENCODING_FIELD + b"base64\r\n",
)  # base64: earlier versions
EMPTY_LINE = b"\r\n\r\n"  # with the end of the line above
LINE_LENGTH = 76  # characters: RFC 2045 6.8, and what attachments have
LINE_BYTES = LINE_LENGTH * 3 // 4  # bytes a line
# Bytes of fields and original to pack (all, if there are fewer). They make 131,072
# bytes of base64, over twice the default of body_checks_size_limit (51200).
PACKED_SIZE = 96 << 10
PACKED_MAGIC = b2a_base64(capsule.MAGIC[: len(capsule.MAGIC) // 3 * 3], newline=False)


def pack(preamble: bytes, original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a capsule of this preamble and original in its packed form."""
    start = header.body_start(preamble)
    yield preamble[:start]
    buffer, packed_size = preamble[start:], 0
    remaining = iter(original)
    for piece in remaining:
        buffer += piece
        if packed_size + len(buffer) > PACKED_SIZE:
            end = _split_offset(buffer, PACKED_SIZE - packed_size)
            yield _encode_base64(buffer[:end]) + b"\r\n"
            yield buffer[end:]
            yield from remaining
            return
        length = len(buffer) // LINE_BYTES * LINE_BYTES
        if length:
            yield _encode_base64(buffer[:length])
            buffer, packed_size = buffer[length:], packed_size + length
    if buffer:
        yield _encode_base64(buffer)


def is_packed(head: bytes) -> bool:
    """Return whether a message with these first bytes is a packed capsule."""
    start = header.body_start(head)
    return start >= 0 and head.startswith(PACKED_MAGIC, start)


def unpack(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a packed capsule in its plain form: header, fields, original.

    The whole header must be in the first piece. Incomplete base64 at the end is
    dropped. Raises CapsuleBroken when the beginning of the body is not base64.
    """
    remaining = iter(pieces)
    head = next(remaining, b"")
    start = max(0, header.body_start(head))
    yield head[:start].replace(PACKED_ENCODING, PLAIN_ENCODING, 1)
    buffer, encoded = head[start:], b""
    while True:
        end = buffer.find(EMPTY_LINE)
        safe_length = max(0, len(buffer) - len(EMPTY_LINE) + 1) if end < 0 else end
        encoded += buffer[:safe_length].translate(None, b"\r\n")
        length = len(encoded) // 4 * 4
        yield _decode_base64(encoded[:length])
        buffer, encoded = buffer[safe_length:], encoded[length:]
        if end >= 0:
            break
        piece = next(remaining, None)
        if piece is None:
            encoded += buffer.translate(None, b"\r\n")
            yield _decode_base64(encoded[: len(encoded) // 4 * 4])
            return
        buffer += piece
    yield buffer[len(EMPTY_LINE) :]
    yield from remaining


def _split_offset(content: bytes, end: int) -> int:
    """Return the last offset up to end that does not split a CRLF."""
    end = max(0, end)
    while content[:end].endswith(b"\r"):
        end -= 1
    return end


def _encode_base64(content: bytes) -> bytes:
    encoded = b2a_base64(content, newline=False)
    lines = [
        encoded[start : start + LINE_LENGTH]
        for start in range(0, len(encoded), LINE_LENGTH)
    ]
    return b"\r\n".join(lines) + b"\r\n"


def _decode_base64(text: bytes) -> bytes:
    try:
        return a2b_base64(text)
    except Error as error:
        raise CapsuleBroken(
            f"capsule body is not base64 ({error}): altered in the queue"
        ) from None
