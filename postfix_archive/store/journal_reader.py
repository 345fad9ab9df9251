"""Read the lines of a journal: all, from an offset on, or those of a period.

Used by everything that reads a journal, but for journal itself and verifier. Reads line
by line: memory does not grow with the journal, which can have ten million lines. A last
line without its line end is being written, or was torn by a crash: it is not read. An
offset counts bytes from the start of the first segment. Raises JournalFailed.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from postfix_archive.errors import JournalFailed
from postfix_archive.message import dates
from postfix_archive.store import journal_event, journal_format
from postfix_archive.store.journal_event import Event
from postfix_archive.store.journal_format import Segments

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Times increase as long as the clock does. This allows for small steps, and for a
# process that ends after a later one.
CLOCK_SLACK = 3600.0  # seconds; archive_time_limit is 900 s
TAIL_SIZE = 1 << 20  # bytes: some 1,500 lines
FIELD_LIMIT = 100  # bytes of an id
READERS = (
    "run this as root, as the archive's user or as a member of archive_reader_group"
)
LINEAR_SEARCH_SIZE = 1 << 16  # bytes; the search stops here and reads line by line
BUFFER_SIZE = 1 << 15  # bytes
BACKWARD_SIZE = 1 << 17  # bytes that are read at once from the end on


class Line(NamedTuple):
    """One line: its offset in bytes, and its content with the line end."""

    offset: int
    content: bytes

    @property
    def end(self) -> int:
        """The offset of the next line."""
        return self.offset + len(self.content)

    def event(self) -> Event | None:
        """Return the event, None for a torn line. Raises ValueError for a damaged one.

        See journal_event.parse().
        """
        return journal_event.parse(self.content)

    @property
    def kind(self) -> str:
        """The name of the event, "" if it is not found; the line is not checked."""
        return journal_format.string_field(self.content, "event")

    @property
    def time(self) -> str:
        """The time as written in the line, "" for a torn line."""
        is_line = self.content.startswith(journal_format.LINE_START)
        return journal_format.string_field(self.content, "time") if is_line else ""

    @property
    def is_complete(self) -> bool:
        """True if the line was written completely; its details may be struck out."""
        return journal_format.is_complete(self.content.removesuffix(b"\n"))

    @property
    def is_struck_out(self) -> bool:
        """True if the details of a complete line are overwritten with spaces."""
        return journal_format.is_struck_out(self.content)

    @property
    def is_wholly_struck_out(self) -> bool:
        """True if nothing of the details is left; a crash can leave some."""
        return not self.content.partition(journal_format.TAB)[2].strip(b" \n")

    @property
    def has_intact_details(self) -> bool:
        """True if the details have the SHA-256 in the first part of the line."""
        return journal_format.has_intact_details(self.content)

    def envelope_field(self, name: str) -> str:
        """Return a field of the envelope, "" if not found; the line is not checked."""
        _, _, rest = self.content.partition(f"\\r\\n{name}: ".encode())
        return rest[:FIELD_LIMIT].partition(b"\\r")[0].decode("ascii", "replace")

    def field(self, name: str) -> str:
        """Return a string of the event, "" if it has none or the line is torn.

        Does not parse a line that looks complete. Raises ValueError for a damaged one.
        """
        if self.is_complete:
            return journal_format.string_field(self.content, name)
        return str((self.event() or {}).get(name, ""))


def reason(error: OSError) -> str:
    """Return why a file of store or index cannot be read, and what to do about it."""
    is_denied = isinstance(error, PermissionError)
    return f"{error.strerror}; {READERS}" if is_denied else str(error.strerror)


def path_of(store_directory: str, archive: str, name: str = journal_format.NAME) -> str:
    """Return the path of an archive's journal, of the directory of its segments."""
    return f"{store_directory}/{archive}/{name}"


def lines(path: str, offset: int = 0) -> Iterator[Line]:
    """Yield the lines from an offset on. A missing journal has none.

    A journal that is shorter than offset has been replaced: it is read from the start.
    """
    with opened(path) as file:
        yield from _lines(file, offset if _size(file) >= offset else 0)


def lines_at(path: str, offsets: Iterable[int]) -> Iterator[Line]:
    """Yield the lines that begin at these offsets."""
    for lines_of_list in lists_of_lines_at(path, [offsets]):
        yield from lines_of_list


def lists_of_lines_at(
    path: str, lists: Iterable[Iterable[int]]
) -> Iterator[list[Line]]:
    """Yield for each list of offsets the lines that begin at them."""
    with opened(path) as file:
        for offsets in lists:
            yield [line for each in offsets for line in islice(_lines(file, each), 1)]


def lines_between(path: str, begin: float, end: float | None = None) -> Iterator[Line]:
    """Yield the lines from begin to end (Unix time), torn ones left out.

    With CLOCK_SLACK on both sides; end None means no limit. A binary search over the
    times finds the first line.
    """
    first_time = _timestamp(begin - CLOCK_SLACK)
    last_time = "~" if end is None else _timestamp(end + CLOCK_SLACK)
    with opened(path) as file:
        for line in _lines(file, _find_start(file, first_time)):
            time = line.time
            if time > last_time:
                return
            if time >= first_time:
                yield line


def last_lines(path: str) -> Iterator[Line]:
    """Yield the whole lines in the last TAIL_SIZE bytes."""
    with opened(path) as file:
        start = max(0, _size(file) - TAIL_SIZE)
        file.seek(start)
        if start:
            start += len(file.readline())
        yield from _lines(file, start)


def events_after(path: str, offset: int = 0) -> Iterator[tuple[int, Event]]:
    """Yield the events from an offset on, each with the offset of the next line.

    Torn and damaged lines are left out, and those whose details are struck out. A
    journal that is shorter than offset has none: compare end_offset().
    """
    with opened(path) as file:
        for line in _lines(file, offset):
            event = valid_event(line)
            if event is not None:
                yield line.end, event


def age_of_next(path: str, offset: int, kinds: Collection[str] = ()) -> float:
    """Return the age in seconds of the first line from an offset on, 0 if none is left.

    With kinds, of the first event of these. Damaged lines are passed over.
    """
    with contextlib.suppress(JournalFailed):
        for line in lines(path, offset):
            if kinds and line.kind not in kinds:
                continue
            with contextlib.suppress(ValueError):
                written = datetime.datetime.fromisoformat(line.time)
                return max(0.0, time.time() - written.timestamp())
    return 0.0


def segments(path: str) -> list[tuple[str, int, int]]:
    """Return name, start and end of each segment, oldest first; [] for no journal."""
    try:
        with Segments(path) as opened:
            return opened.spans()
    except FileNotFoundError:
        return []
    except OSError as error:
        path = journal_format.error_path(path, error)
        raise JournalFailed(f"{path}: {reason(error)}") from error


def end_offset(path: str) -> int:
    """Return the offset at which a journal's last whole line ends; 0 for none."""
    with opened(path) as file:
        end = _size(file)
        step = 1
        while end:
            step = min(2 * step, end)
            file.seek(end - step)
            position = file.read(step).rfind(b"\n")
            if position >= 0:
                return end - step + position + 1
            if step == end:
                return 0
        return 0


def line_before(path: str, end: int) -> bytes:
    """Return the line that ends at an offset; b"" if none does."""
    with opened(path) as file:
        step = 1 << 13
        while True:
            start = max(0, end - step)
            file.seek(start)
            content = file.read(end - start)
            if len(content) < end - start or not content.endswith(b"\n"):
                return b""
            position = content.rfind(b"\n", 0, -1)
            if position >= 0 or not start:
                return content[position + 1 :]
            step *= 2


def lines_backwards(path: str, end: int | None = None) -> Iterator[Line]:
    """Yield the whole lines before an offset, the last one first; None: before the end.

    What is between the last line end and the offset is left out.
    """
    with opened(path) as file:
        start = _size(file) if end is None else min(end, _size(file))
        rest = b""  # the end of a line that begins in an earlier block
        while start > 0:
            size = min(start, BACKWARD_SIZE)
            start -= size
            file.seek(start)
            contents = (file.read(size) + rest).split(b"\n")
            rest = contents[0] if len(contents) == 1 else contents[0] + b"\n"
            offset = start + sum(len(each) + 1 for each in contents[:-1])
            for content in reversed(contents[1:-1]):
                offset -= len(content) + 1
                yield Line(offset, content + b"\n")
        if rest.endswith(b"\n"):
            yield Line(0, rest)


def require_format(path: str) -> None:
    """Raise JournalFailed for a journal of store format 1; read nothing."""
    if os.path.isfile(path):
        with opened(path):
            pass


def valid_event(line: Line) -> Event | None:
    """Return the event, None for a torn or damaged line, which verify reports.

    None also for a line whose details are struck out.
    """
    try:
        return None if line.is_struck_out else line.event()
    except ValueError:
        return None


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a journal, a missing one as an empty file; translate OSError."""
    try:
        with Segments(path) as segments:
            yield io.BufferedReader(_SegmentsFile(segments), BUFFER_SIZE)
    except FileNotFoundError:
        yield io.BytesIO()
    except OSError as error:
        path = journal_format.error_path(path, error)
        raise JournalFailed(f"{path}: {reason(error)}") from error


class _SegmentsFile(io.RawIOBase):
    """The segments of a journal as a file of the package io."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset}
        self._offset = offset + base.get(whence, self._segments.size)
        return self._offset

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        content = self._segments.read(self._offset, len(view))
        view[: len(content)] = content
        self._offset += len(content)
        return len(content)


def _lines(file: BinaryIO, offset: int) -> Iterator[Line]:
    file.seek(offset)
    for content in file:
        if not content.endswith(b"\n"):
            return
        yield Line(offset, content)
        offset += len(content)


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _find_start(file: BinaryIO, first_time: str) -> int:
    """Return the offset of a line such that all lines before it are older."""
    low, high = 0, _size(file)
    while high - low > LINEAR_SEARCH_SIZE:
        middle = (low + high) // 2
        offset, time = _next_dated_line(file, middle)
        if not time or time >= first_time:
            high = middle
        else:
            low = offset
    return low


def _next_dated_line(file: BinaryIO, offset: int) -> tuple[int, str]:
    """Return offset and time of the next line with a time; "" at the end."""
    file.seek(offset)
    for line in _lines(file, offset + len(file.readline())):
        time = line.time
        if time:
            return line.offset, time
    return offset, ""


def _timestamp(seconds: float) -> str:
    return dates.format_rfc3339(max(0.0, seconds))
