"""Read the journal lines of a period without reading all earlier ones.

Used by reconcile/archive_lookup. A journal can have ten million lines, so a binary
search over the lines' times finds the first one. Times increase as long as the clock
does; CLOCK_SLACK allows for small steps, and for a process that ends after a later one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from postfix_archive.errors import JournalFailed
from postfix_archive.message import dates
from postfix_archive.system import files

CLOCK_SLACK = 3600.0  # seconds; archive_time_limit is 900 s
LINEAR_SEARCH_SIZE = 1 << 16  # bytes; the search stops here and reads line by line
LINE_START = b'{"seq":'
TIME_KEY = b',"time":"'


def lines_between(path: str, begin: float, end: float | None = None) -> Iterator[bytes]:
    """Yield the lines from begin to end (Unix time), with CLOCK_SLACK on both sides.

    end None means no limit. A missing journal has no lines. Raises JournalFailed.
    """
    first_time = _timestamp(begin - CLOCK_SLACK)
    last_time = b"~" if end is None else _timestamp(end + CLOCK_SLACK)
    try:
        with os.fdopen(files.open_regular(path), "rb") as file:
            file.seek(_find_start(file, first_time))
            for line in file:
                time = _line_time(line)
                if time > last_time:
                    return
                if time >= first_time:
                    yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalFailed(f"{path}: {error.strerror}") from error


def _find_start(file: IO[bytes], first_time: bytes) -> int:
    """Return the offset of a line such that all lines before it are older."""
    low, high = 0, os.fstat(file.fileno()).st_size
    while high - low > LINEAR_SEARCH_SIZE:
        middle = (low + high) // 2
        offset, time = _next_dated_line(file, middle)
        if not time or time >= first_time:
            high = middle
        else:
            low = offset
    return low


def _next_dated_line(file: IO[bytes], offset: int) -> tuple[int, bytes]:
    """Return offset and time of the next line with a time; b"" at the end."""
    file.seek(offset)
    file.readline()
    while True:
        begin = file.tell()
        line = file.readline()
        time = _line_time(line)
        if time or not line:
            return begin, time


def _line_time(line: bytes) -> bytes:
    """Return the time as written in the line, b"" for a torn line."""
    if not line.startswith(LINE_START):
        return b""
    return line[:100].partition(TIME_KEY)[2].partition(b'"')[0]


def _timestamp(seconds: float) -> bytes:
    return dates.format_rfc3339(max(0.0, seconds)).encode()
