"""How large a message is in Postfix's queue file.

Used by intake/end_of_file. pipe(8)'s ``${size}`` is the length of the content segment
of the queue file: each line, or piece of a long line, is a record of a type byte, one
to three length bytes and the text without its line end (cleanup_out(), rec_put() in
Postfix's sources; the same in all releases since 2.4). Mail filters (Milters) make the
segment longer or shorter than the message.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RECORD_OVERHEAD = 2  # bytes: the type, and a length below 128
LONG_LINE = 128  # bytes: from here on a record's length takes two bytes
SMALLEST_LINE_LIMIT = 512  # the smallest line_length_limit: longer lines are split
# With a Milter each header field is padded to the size of a pointer record, and one
# follows the header: a type, a length and 15 bytes (REC_TYPE_PTR_PAYL_SIZE).
POINTER_RECORD = 17


def content_size(pieces: Iterable[bytes]) -> tuple[int, int]:
    """Return the smallest and largest possible size of a message's content segment.

    pieces are the message in canonical form. Bytes, without a Milter's changes.
    """
    smallest = largest = open_length = 0
    for piece in pieces:
        lengths = [len(line) for line in piece.split(b"\n")]
        lengths[0] += open_length
        open_length = lengths.pop()
        for length in lengths:
            length -= 1  # without the CR
            smallest += length + RECORD_OVERHEAD
            largest += length + RECORD_OVERHEAD
            if length >= LONG_LINE:
                smallest += 1
                largest += 1
                if length >= SMALLEST_LINE_LIMIT:
                    largest += 3 * (length // SMALLEST_LINE_LIMIT + 1)
    return smallest, largest


def milter_reserve(header: bytes) -> int:
    """Return how many bytes cleanup(8) reserves at most for the changes of Milters.

    header is the header of the message in canonical form.
    """
    short_lines = [line for line in header.split(b"\r\n") if len(line) < POINTER_RECORD]
    return POINTER_RECORD * (1 + len(short_lines))
