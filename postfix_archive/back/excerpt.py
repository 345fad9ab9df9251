"""Read the journal lines of a period without reading all earlier ones.

Used by reconcile/archive_lookup. A journal can have ten million lines, so a binary
search over the lines' times finds the first one. Times increase as long as the clock
does; CLOCK_SLACK allows for small steps, and for a process that ends after a later one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from postfix_archive.back import files
from postfix_archive.core import trace
from postfix_archive.core.errors import JournalFailed

SLACK = 3600.0  # seconds; archive_time_limit is 900 s
NEAR = 1 << 16  # bytes; the search stops here and reads line by line
BEGINNING = b'{"seq":'
TIME = b',"time":"'


def lines(path: str, begin: float, end: float | None = None) -> Iterator[bytes]:
    """Yield the lines from begin to end (Unix time), with CLOCK_SLACK on both sides.

    end None means no limit. A missing journal has no lines. Raises JournalFailed.
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
    """Return the offset of a line such that all lines before it are older."""
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
    """Return offset and time of the next line with a time; b"" at the end."""
    journal.seek(offset)
    journal.readline()
    while True:
        begin = journal.tell()
        line = journal.readline()
        time = _time(line)
        if time or not line:
            return begin, time


def _time(line: bytes) -> bytes:
    """Return the time as written in the line, b"" for a torn line."""
    if not line.startswith(BEGINNING):
        return b""
    return line[:100].partition(TIME)[2].partition(b'"')[0]


def _stamp(seconds: float) -> bytes:
    return trace.timestamp(max(0.0, seconds)).encode()
