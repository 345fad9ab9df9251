"""Strike out the details of journal lines: overwrite them with spaces, in place.

Used by retention/removal, when the event that says why is durable. The size of the
lines and the chain stay as they are. Raises JournalFailed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import groupby

from postfix_archive.errors import JournalFailed
from postfix_archive.store import journal_format, journal_segment
from postfix_archive.store.journal_format import TAB

BLOCK_SIZE = 1 << 16  # bytes that are read at a time


def strike_out(path: str, offsets: Iterable[int]) -> None:
    """Strike out the details of the lines at these offsets, durably.

    path is that of the journal, which the caller has locked. A first space makes all
    of the details count as struck out, whatever a crash leaves of the rest: it is
    durable before more is overwritten. Can run twice.
    """
    try:
        with journal_format.Segments(path) as segments:
            places = map(segments.locate, sorted(offsets))
            for name, group in groupby(places, key=lambda place: place[0]):
                _strike_out(segments.directory, name, [start for _, start in group])
    except OSError as error:
        path = journal_format.error_path(path, error)
        raise JournalFailed(
            f"{path}: {error.strerror}; check its file system and its owner"
        ) from error


def _strike_out(directory: int, name: str, starts: list[int]) -> None:
    """Strike out lines of one segment."""
    descriptor = journal_segment.open_own(directory, name, os.O_RDWR)
    try:
        ranges = [_details_range(descriptor, name, each) for each in starts]
        for start, _ in ranges:
            os.pwrite(descriptor, b" ", start)
        os.fsync(descriptor)
        for start, stop in ranges:
            _overwrite(descriptor, start, stop)
        os.fsync(descriptor)
    finally:
        journal_format.close(descriptor)


def _details_range(descriptor: int, name: str, start: int) -> tuple[int, int]:
    """Return where the details of the line that begins at start begin and end.

    Also those of a line that a crash has torn in its details.
    """
    line = b""
    while b"\n" not in line:
        block = os.pread(descriptor, BLOCK_SIZE, start + len(line))
        line += block
        if not block:
            break
    line, line_end, _ = line.partition(b"\n")
    is_line = line.startswith(journal_format.LINE_START) and TAB in line
    if not line_end or not is_line:
        raise OSError(0, "not a journal line; run postfix-archive verify", name)
    return start + line.find(TAB) + len(TAB), start + len(line)


def _overwrite(descriptor: int, start: int, stop: int) -> None:
    while start < stop:
        start += os.pwrite(descriptor, b" " * min(BLOCK_SIZE, stop - start), start)
