"""One segment of a journal as a writer needs it: open it, find the end of the lines.

Used by journal and strike_out. The caller has locked the journal. Raises OSError, and
JournalFailed for a directory of segments that has no line.
"""

from __future__ import annotations

import posix as os

from postfix_archive.errors import JournalFailed
from postfix_archive.store import journal_format

TAIL_SIZE = 1 << 13  # bytes; usually they contain the last line
FIRST_PREV = "0" * journal_format.SHA256_DIGITS  # "prev" of the first line
FIRST_LINE_START = b'{"seq":1,"time":"'


class End:
    """The end of a journal: its newest segment, hash and number of its last line.

    ``has_first_line`` is false for a segment without a complete line.
    """

    __slots__ = ("has_first_line", "is_torn", "number", "segment", "sha256")

    def __init__(self) -> None:
        self.segment = self.sha256 = ""
        self.number = 0
        self.has_first_line = self.is_torn = False


def open_own(directory: int, name: str, flags: int = os.O_RDONLY) -> int:
    """Open a segment that has no second name; return the descriptor.

    directory is the descriptor of the journal's directory.
    """
    descriptor = journal_format.open_segment(directory, name, flags)
    if os.fstat(descriptor).st_nlink != 1:
        journal_format.close(descriptor)
        text = "link count is not 1 (a hard link, or a deleted file)"
        raise OSError(0, text, name)
    return descriptor


def read_end(directory: int, path: str) -> End:
    """Return the end of a journal, given the descriptor of its directory, its path."""
    end = End()
    is_begun = True  # nothing but first lines that crashes have torn
    for name in reversed(journal_format.segment_names(directory)):
        tail, number = _read_tail(directory, name)
        end.segment = end.segment or name
        if tail and not end.sha256:
            end.is_torn = not tail.endswith(b"\n")
            last_line = tail.rstrip(b"\n").rpartition(b"\n")[2]
            end.sha256 = journal_format.line_sha256(last_line)
        if number is not None:
            end.number = number
            end.has_first_line = name == end.segment
            return end
        is_begun = is_begun and all(map(_is_torn_first_line, tail.splitlines()))
    if not is_begun:
        raise JournalFailed(
            f"{path}: no valid line, so it is not a journal; restore it from a backup,"
            " or move it away and document that"
        )
    end.sha256 = end.sha256 or FIRST_PREV
    return end


def _read_tail(directory: int, name: str) -> tuple[bytes, int | None]:
    """Return the end of a segment and the number of the last complete line in it.

    The number is None if no line is complete; then it is the whole segment.
    """
    descriptor = open_own(directory, name)
    try:
        tail = b""
        offset = os.fstat(descriptor).st_size
        while offset:
            # Doubled: a line can have 20 MB.
            step = min(max(TAIL_SIZE, len(tail)), offset)
            offset -= step
            tail = read_range(descriptor, offset, offset + step) + tail
            number = journal_format.last_number(tail, is_whole_file=offset == 0)
            if number is not None:
                return tail, number
        return tail, None
    finally:
        journal_format.close(descriptor)


def _is_torn_first_line(line: bytes) -> bool:
    return FIRST_LINE_START.startswith(line[: len(FIRST_LINE_START)])


def read_range(descriptor: int, start: int, stop: int) -> bytes:
    """Return the bytes from start to stop, fewer at the end of the file."""
    chunks = []
    while start < stop and (chunk := os.pread(descriptor, stop - start, start)):
        chunks.append(chunk)
        start += len(chunk)
    return b"".join(chunks)
