"""What one message may cost when its text is extracted, and the clock for it.

Used by the other extraction modules. A message bomb costs its limit and no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

MIB = 1 << 20
# Bytes of the original that are read, three times Postfix's default message_size_limit.
MESSAGE_LIMIT = 32 * MIB
TEXT_LIMIT = 4_000_000  # characters kept of a message: twice War and Peace
FIELD_LIMIT = MIB // 4  # bytes of one header field: some 8,000 addresses
FIELD_COUNT_LIMIT = 100  # header fields of one name
NAME_LIMIT = 1000  # characters of a file name or media type
HEADER_FIELD_LIMIT = 20_000  # header fields of a message or part; Postfix took those
PARAMETERS_LIMIT = 1 << 12  # bytes of a field with parameters; takes quadratic time
PART_LIMIT = 2000  # MIME parts
NESTING_LIMIT = 200  # messages and multiparts in one another
PROBLEM_LIMIT = 50  # problems that are named
HTML_LIMIT = 4_000_000  # characters of one HTML part, markup included
DECOMPRESSED_LIMIT = 64 * MIB  # bytes of all files in zip archives
ZIP_NAME_LIMIT = 1000  # names of files in one zip archive
PAGE_LIMIT = 2000  # pages of one PDF document
# First byte of a request: how the message is read.
WITH_LIBRARIES, WITHOUT_LIBRARIES = b"+", b"-"
LENGTH_SIZE = 8  # bytes of the length before each request and reply, big-endian
REPLY_LIMIT = 64 * MIB  # bytes of a reply from the child process
# Problems of a message, not of one part.
TIME_LIMIT = "extraction: time limit"
MEMORY_LIMIT = "memory limit"  # after the name of the kind


class ProcessLimits(NamedTuple):
    """Limits of the child process: CPU seconds, seconds, bytes of address space.

    At cpu the part at hand is left out; at killed_cpu and at wall the process is
    killed, for code that cannot be interrupted. MESSAGE_LIMIT bytes of text took 310 MB
    of memory.
    """

    cpu: float = 10.0
    killed_cpu: int = 20
    wall: float = 60.0
    memory: int = 512 * MIB


class TimeUsedUp(BaseException):
    """The CPU time is used up. No Exception: libraries catch those."""


class LimitReached(Exception):
    """A part has more of something than its limit. The text says of what."""


class Timer:
    """Interrupts the extraction of a part when the time for the message is used up."""

    def __init__(self) -> None:
        self.is_late = False
        self._can_interrupt = False

    def expire(self, *_: object) -> None:
        """Take the signal of the timer."""
        self.is_late = True
        if self._can_interrupt:
            raise TimeUsedUp

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise TimeUsedUp in this block, at once if it is late already."""
        if self.is_late:
            raise TimeUsedUp
        self._can_interrupt = True
        try:
            yield
        finally:
            self._can_interrupt = False
