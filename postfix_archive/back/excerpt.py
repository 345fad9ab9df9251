"""The lines of a journal from a time on, without reading what stands before.

Used by holdings. A journal may have ten million lines: the first that matters is found
by halving the file, by the time that each line begins with. That holds while the clock
only goes forward; SLACK allows for runs that end after later ones, and small steps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from postfix_archive.back import files
from postfix_archive.core import trace
from postfix_archive.core.errors import JournalFailed

SLACK = 3600.0  # seconds; archive_time_limit is 900 s
NEAR = 1 << 16  # bytes: from here on line by line
BEGINNING = b'{"seq":'
TIME = b',"time":"'


def lines(path: str, begin: float, end: float | None = None) -> Iterator[bytes]:
    """Give the lines from about begin to about end (seconds since 1970), None: to all.

    Nothing where there is no journal. Raises JournalFailed.
    """
    first = _stamp(begin - SLACK)
    last = b"~" if end is None else _stamp(end + SLACK)
    try:
        with os.fdopen(files.opened(path), "rb") as journal:
            journal.seek(_start(journal, first))
            for line in journal:
                time = _time(line)
                if time > last:
                    return
                if time >= first:
                    yield line
    except FileNotFoundError:
        return
    except OSError as problem:
        raise JournalFailed(f"{path}: {problem.strerror}") from problem


def _start(journal: IO[bytes], first: bytes) -> int:
    """Return an offset, the beginning of a line, before which all lines are older."""
    low, high = 0, os.fstat(journal.fileno()).st_size
    while high - low > NEAR:
        middle = (low + high) // 2
        offset, time = _next(journal, middle)
        if not time or time >= first:
            high = middle
        else:
            low = offset
    return low


def _next(journal: IO[bytes], offset: int) -> tuple[int, bytes]:
    """Return where the first line behind an offset begins, and its time, if any."""
    journal.seek(offset)
    journal.readline()
    while True:
        begin = journal.tell()
        line = journal.readline()
        time = _time(line)
        if time or not line:
            return begin, time


def _time(line: bytes) -> bytes:
    """Return a line's time as it stands there, b"" for a line that is torn."""
    if not line.startswith(BEGINNING):
        return b""
    return line[:100].partition(TIME)[2].partition(b'"')[0]


def _stamp(seconds: float) -> bytes:
    return trace.timestamp(max(0.0, seconds)).encode()
