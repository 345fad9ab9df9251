"""The journal of one archive: lines, chained by SHA-256, in monthly segments.

Used by archive and bypass/switch (write), by reader and outcomes (read). Append-only:
no function removes or changes a line. Lines are durable when append() returns. A write
that fails is truncated away. A line that a crash has torn stays, the next one starts
after a line end. journal_format has the segments, and the number of the last line in a
second file. Raises JournalFailed.

docs/store-format.md specifies the keys.
"""

from __future__ import annotations

import posix as os
from fcntl import LOCK_EX, LOCK_NB, flock
from time import monotonic, sleep

from postfix_archive.errors import JournalFailed
from postfix_archive.store import journal_format
from postfix_archive.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Event = tuple[str, dict[str, str | int]]  # the event's name, its other fields

# The events. CAPTURE_EVENTS have an envelope; BYPASS_EVENTS say that the bypass was
# turned on and off, so that mail passed unarchived; REMOVAL_EVENTS that a record's copy
# was removed and the details of its lines struck out; RETENTION until when a record is
# kept, by which rule; MOVED that its copy is in the object storage alone.
# DECISION_EVENTS are what people decide: that records are held or no longer, that one
# should be erased or not after all. SEGMENT begins each segment. SEALED names a seal of
# the whole store that covers the journal up to an earlier line.
CAPTURE_EVENTS = ARCHIVED, SUPPLEMENT = "archived", "supplement"
MAILED, OUTCOME = "mailed", "outcome"
REPORT_EVENTS = OUTCOME_REPORT, OUTCOME_MAILED = "outcome-report", "outcome-mailed"
BYPASS_EVENTS = BYPASS_STARTED, BYPASS_ENDED = "bypass-started", "bypass-ended"
REMOVAL_EVENTS = ERASED, PURGED = "erased", "purged"
RETENTION = "retention"
MOVED = "moved"
HOLD_EVENTS = HOLD_SET, HOLD_RELEASED = "hold-set", "hold-released"
REQUEST_EVENTS = ERASE_REQUESTED, ERASE_WITHDRAWN = "erase-requested", "erase-withdrawn"
DECISION_EVENTS = (*HOLD_EVENTS, *REQUEST_EVENTS, ERASED)
SEGMENT = "segment"
SEALED = "sealed"

LOCK_POLL_INTERVAL = 0.05  # seconds
FORMAT = 2  # of the store
NAME = journal_format.NAME
WRITE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND
TAIL_SIZE = 1 << 13  # bytes; usually they contain the last line
# Bytes that are read at a time, backwards, to find events of a capsule or outcomes: at
# 4 KB a line the last 2,000 events. An outcome or supplement that is not in them is
# recorded again, which is harmless: readers take the union.
RECENT_SIZE = 8 << 20
MIN_RECENT_SIZE = RECENT_SIZE // 2  # at the start of a month also of the one before
FIRST_PREV = "0" * journal_format.SHA256_DIGITS  # "prev" of the first line
FIRST_LINE_START = b'{"seq":1,"time":"'


class Journal:
    """A journal, open and exclusively locked (flock(2)). A context manager."""

    __slots__ = ("_archive_directory", "_directory", "_host", "_lock", "_path")

    def __init__(
        self,
        directory: str,
        *,
        name: str = NAME,
        host: str = "",
        lock_timeout: float | None = None,
    ) -> None:
        """Open or make the journal of this name in an archive's directory.

        host: the name for new segments, by default that of this host. Waits for the
        lock at most lock_timeout seconds; by default as long as it takes: the
        transports have their time limit.
        """
        self._archive_directory = directory
        self._host = host or os.uname().nodename
        self._path = f"{directory}/{name}"
        self._directory = self._lock = -1
        try:
            self._directory = self._open()
            self._lock = journal_format.open_lock(self._path)
            self._wait_for_lock(lock_timeout)
        except OSError as error:
            self._close()
            raise self._journal_error(error) from error
        except BaseException:  # the time limit, while another process has the lock
            self._close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self) -> int:
        try:
            return journal_format.open_directory(self._path)
        except FileNotFoundError:
            try:
                files.make_one_directory(self._path)
            except FileExistsError:
                pass  # another process has made it
            return journal_format.open_directory(self._path)

    def _close(self) -> None:
        for descriptor in (self._lock, self._directory):
            if descriptor >= 0:
                journal_format.close(descriptor)
        self._directory = self._lock = -1

    def _wait_for_lock(self, timeout: float | None) -> None:
        if timeout is None:
            flock(self._lock, LOCK_EX)
            return
        deadline = monotonic() + timeout
        while True:
            try:
                flock(self._lock, LOCK_EX | LOCK_NB)
                return
            except BlockingIOError:
                if monotonic() > deadline:
                    raise JournalFailed(
                        f"{self._path}: locked for {timeout:.0f} s by another process,"
                        " such as an archive transport; fuser -v shows which"
                    ) from None
            sleep(LOCK_POLL_INTERVAL)

    def append(self, event: str, time: str, **fields: str | int) -> None:
        """Append one event with its fields, durably; time is RFC 3339, UTC."""
        self.extend(time, [(event, fields)])

    def extend(self, time: str, events: list[Event]) -> None:
        """Append events, durably, with one fsync. After an error there is none of them.

        After a crash there may be the first few of them.
        """
        if not events:
            return
        try:
            end = self._read_end()
            segment = max(time[:7], end.segment)
            last_number = max(end.number, journal_format.read_last_number(self._path))
            new_lines = [b"\n"] if end.is_torn and segment == end.segment else []
            if segment != end.segment:
                self._finish(end)
            if segment != end.segment or not end.has_first_line:
                events = [(SEGMENT, self._segment_fields(segment)), *events]
            last_sha256 = end.sha256
            for number, (event, fields) in enumerate(events, last_number + 1):
                line = journal_format.format_line(
                    number, time, event, fields, prev=last_sha256
                )
                new_lines.append(line)
                last_sha256 = journal_format.line_sha256(line)
            self._write(segment, b"".join(new_lines))
            journal_format.write_last(
                self._path, last_number + len(events), last_sha256
            )
        except OSError as error:
            raise self._journal_error(error) from error

    def _segment_fields(self, segment: str) -> dict[str, str | int]:
        archive = self._archive_directory.rpartition("/")[2]
        host = self._host
        return {"format": FORMAT, "archive": archive, "host": host, "segment": segment}

    def _finish(self, end: _End) -> None:
        """Complete the newest segment, durably, before the next one begins."""
        if not end.segment:
            files.sync_directory(self._archive_directory, JournalFailed)
            return
        descriptor = self._open_segment(end.segment, WRITE_FLAGS)
        try:
            if end.is_torn:
                files.write_all(descriptor, b"\n")
            os.fsync(descriptor)
        finally:
            journal_format.close(descriptor)

    def _write(self, segment: str, content: bytes) -> None:
        """Append content durably; after an error truncate the segment to its size."""
        descriptor = self._open_segment(segment, WRITE_FLAGS)
        try:
            size = os.fstat(descriptor).st_size
            if not size:
                mode = files.shared_mode(self._directory, files.DRAFT_MODE)
                os.fchmod(descriptor, mode)
                os.fsync(self._directory)  # the name of the new segment
            try:
                files.write_all(descriptor, content)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            journal_format.close(descriptor)

    def _open_segment(self, name: str, flags: int = os.O_RDONLY) -> int:
        descriptor = journal_format.open_segment(self._directory, name, flags)
        if os.fstat(descriptor).st_nlink != 1:
            journal_format.close(descriptor)
            text = "link count is not 1 (a hard link, or a deleted file)"
            raise OSError(0, text, name)
        return descriptor

    def unrecorded(self, events: list[Event]) -> list[Event]:
        """Return the events that no recent line has with the same fields.

        All events have the same name. The events left out are durable on return.
        """
        kind = journal_format.json_string(events[0][0] if events else "")
        substring = f'"event":{kind},'.encode()
        recorded = {
            journal_format.event_fields(line)
            for line in self._lines_backwards(substring, MIN_RECENT_SIZE)
        }
        new_events = [
            event
            for event in events
            if journal_format.event_fields(
                journal_format.format_line(0, "", *event, prev="")[:-1]
            )
            not in recorded
        ]
        if len(new_events) < len(events):
            self._sync()
        return new_events

    def recent_events(self, capsule_id: str, *, since_file: str = "") -> set[str]:
        """Return the names of one capsule's recent events, which are durable.

        Those in the last MIN_RECENT_SIZE bytes, at least; with since_file all since the
        line that names this file, which no event of its record precedes.
        """
        substring = b'"capsule":"' + capsule_id.encode() + b'"'
        first_line = b'"file":' + journal_format.json_string(since_file).encode()
        events: set[str] = set()
        for block in self._blocks_backwards(None if since_file else MIN_RECENT_SIZE):
            events |= {
                journal_format.string_field(line, "event")
                for line in journal_format.matching_lines(block, substring)
                if journal_format.is_complete(line)
            }
            if since_file and (first_line in block or events & {*CAPTURE_EVENTS}):
                break
        if events:
            self._sync()
        return events

    def last_event(self, name: str, record_id: str) -> str:
        """Return the last event that names a file or removed its record, "" for none.

        Of the whole journal; it is durable on return.
        """
        file_field = b'"file":' + journal_format.json_string(name).encode()
        for line in self._lines_backwards(b'"id":"' + record_id.encode() + b'"'):
            event = journal_format.string_field(line, "event")
            if file_field in line or event in REMOVAL_EVENTS:
                self._sync()
                return event
        return ""

    def _lines_backwards(
        self, substring: bytes, min_size: int | None = None
    ) -> Iterator[bytes]:
        """Yield the complete lines that contain substring, last first."""
        for block in self._blocks_backwards(min_size):
            lines = [*journal_format.matching_lines(block, substring)]
            yield from filter(journal_format.is_complete, reversed(lines))

    def _blocks_backwards(self, min_size: int | None = None) -> Iterator[bytes]:
        """Yield the lines in blocks of RECENT_SIZE, or one longer line, last first.

        With min_size no more than hold that many bytes.
        """
        try:
            for name in reversed(journal_format.segment_names(self._directory)):
                for block in self._segment_blocks_backwards(name):
                    yield block
                    if min_size is not None:
                        min_size -= len(block)
                        if min_size <= 0:
                            return
        except OSError as error:
            raise self._journal_error(error) from error

    def _segment_blocks_backwards(self, name: str) -> Iterator[bytes]:
        descriptor = self._open_segment(name)
        try:
            end = os.fstat(descriptor).st_size
            size = RECENT_SIZE
            while end:
                start = max(0, end - size)
                block = _read_range(descriptor, start, end)
                cut = block.find(b"\n") + 1 if start else 0
                if start and cut in (0, len(block)):
                    size *= 2  # within one line
                    continue
                yield block[cut:]
                end, size = start + cut, RECENT_SIZE
        finally:
            journal_format.close(descriptor)

    def _sync(self) -> None:
        """Make lines durable whose writer may have died before its fsync.

        Those of an older segment are: _finish() has done that.
        """
        try:
            newest = journal_format.segment_names(self._directory)[-1]
            descriptor = self._open_segment(newest)
            try:
                os.fsync(descriptor)
            finally:
                journal_format.close(descriptor)
        except OSError as error:
            raise self._journal_error(error) from error

    def _read_end(self) -> _End:
        """Return the end of the journal. Raises OSError and JournalFailed."""
        end = _End()
        is_begun = True  # nothing but first lines that crashes have torn
        for name in reversed(journal_format.segment_names(self._directory)):
            tail, number = self._read_tail(name)
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
                f"{self._path}: no valid line, so it is not a journal; restore it from"
                " a backup, or move it away and document that"
            )
        end.sha256 = end.sha256 or FIRST_PREV
        return end

    def _read_tail(self, name: str) -> tuple[bytes, int | None]:
        """Return the end of a segment and the number of the last complete line in it.

        The number is None if no line is complete; then it is the whole segment.
        """
        descriptor = self._open_segment(name)
        try:
            tail = b""
            offset = os.fstat(descriptor).st_size
            while offset:
                # Doubled: a line can have 20 MB.
                step = min(max(TAIL_SIZE, len(tail)), offset)
                offset -= step
                tail = _read_range(descriptor, offset, offset + step) + tail
                number = journal_format.last_number(tail, is_whole_file=offset == 0)
                if number is not None:
                    return tail, number
            return tail, None
        finally:
            journal_format.close(descriptor)

    def _journal_error(self, error: OSError) -> JournalFailed:
        path = journal_format.error_path(self._path, error)
        return JournalFailed(
            f"{path}: {error.strerror}; check its file system and its owner"
        )


class _End:
    """The end of a journal: its newest segment, hash and number of its last line.

    ``has_first_line`` is false for a segment without a complete line.
    """

    __slots__ = ("has_first_line", "is_torn", "number", "segment", "sha256")

    def __init__(self) -> None:
        self.segment = self.sha256 = ""
        self.number = 0
        self.has_first_line = self.is_torn = False


def _is_torn_first_line(line: bytes) -> bool:
    return FIRST_LINE_START.startswith(line[: len(FIRST_LINE_START)])


def _read_range(descriptor: int, start: int, stop: int) -> bytes:
    content = b""
    while chunk := os.pread(descriptor, stop - start, start):
        content += chunk
        start += len(chunk)
    return content
