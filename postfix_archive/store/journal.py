"""The journal of one archive: lines, chained by SHA-256, in monthly segments.

Used by archive and bypass/switch (write), by reader and outcomes (read). Append-only:
no function removes or changes a line. Lines are durable when append() returns. A write
that fails is truncated away. A line that a crash has torn stays, the next one starts
after a line end. journal_segment finds the end, journal_format has the segments, and
the number of the last line in a second file. Raises JournalFailed.

docs/store-format.md specifies the keys.
"""

from __future__ import annotations

import posix as os
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from time import monotonic, sleep

from postfix_archive.errors import JournalFailed
from postfix_archive.store import journal_format, journal_segment
from postfix_archive.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from postfix_archive.store.journal_segment import End

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
# Bytes that are read at a time, backwards, to find events of a capsule or outcomes: at
# 4 KB a line the last 2,000 events. An outcome or supplement that is not in them is
# recorded again, which is harmless: readers take the union.
RECENT_SIZE = 8 << 20
MIN_RECENT_SIZE = RECENT_SIZE // 2  # at the start of a month also of the one before


class Journal:
    """A journal, open and exclusively locked (flock(2)). A context manager.

    With ``is_locked=False`` lock() locks it.
    """

    __slots__ = ("_archive_directory", "_directory", "_host", "_lock", "_path")

    def __init__(
        self,
        directory: str,
        *,
        name: str = NAME,
        host: str = "",
        lock_timeout: float | None = None,
        is_locked: bool = True,
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
            if is_locked:
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

    def lock(self) -> None:
        """Lock the journal, however long that takes."""
        try:
            self._wait_for_lock(None)
        except OSError as error:
            raise self._journal_error(error) from error

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
            lines = self._append_lines(time, events)
            try:
                os.fsync(lines.descriptor)
            except OSError:
                os.ftruncate(lines.descriptor, lines.start)
                raise
            finally:
                journal_format.close(lines.descriptor)
            journal_format.write_last(self._path, lines.number, lines.sha256)
        except OSError as error:
            raise self._journal_error(error) from error

    def append_unlocked(self, event: str, time: str, **fields: str | int) -> bytes:
        """Append one event, durably; the lock is released during the fsync.

        So one write to the disk makes the lines of several processes durable. Returns
        what others have appended meanwhile; the lock is held again. After an error the
        line stays, since others may follow it; whoever finds it makes it durable.
        """
        try:
            lines = self._append_lines(time, [(event, fields)])
            try:
                return self._sync_unlocked(lines)
            finally:
                journal_format.close(lines.descriptor)
        except OSError as error:
            raise self._journal_error(error) from error

    def _sync_unlocked(self, lines: _Lines) -> bytes:
        flock(self._lock, LOCK_UN)
        try:
            os.fsync(lines.descriptor)
        except OSError:
            flock(self._lock, LOCK_EX)
            self._write_again(lines)
            raise
        flock(self._lock, LOCK_EX)
        journal_format.write_last(self._path, lines.number, lines.sha256)
        size = os.fstat(lines.descriptor).st_size
        return journal_segment.read_range(lines.descriptor, lines.end, size)

    def _write_again(self, lines: _Lines) -> None:
        """Write the same bytes in place, after an fsync that failed.

        Else a later fsync would report success, for pages that were never written.
        """
        descriptor = journal_segment.open_own(self._directory, lines.segment, os.O_RDWR)
        try:
            # Read anew: details may have been struck out.
            content = journal_segment.read_range(descriptor, lines.start, lines.end)
            os.pwrite(descriptor, content, lines.start)
        finally:
            journal_format.close(descriptor)

    def _append_lines(self, time: str, events: list[Event]) -> _Lines:
        """Append events, not durably. After an error there is none of them."""
        end = journal_segment.read_end(self._directory, self._path)
        segment = max(time[:7], end.segment)
        number = max(end.number, journal_format.read_last_number(self._path))
        new_lines = [b"\n"] if end.is_torn and segment == end.segment else []
        if segment != end.segment:
            self._finish(end)
        if segment != end.segment or not end.has_first_line:
            events = [(SEGMENT, self._segment_fields(segment)), *events]
        sha256 = end.sha256
        for event, fields in events:
            number += 1
            line = journal_format.format_line(number, time, event, fields, prev=sha256)
            new_lines.append(line)
            sha256 = journal_format.line_sha256(line)
        lines = self._write(segment, b"".join(new_lines))
        lines.number, lines.sha256 = number, sha256
        return lines

    def _segment_fields(self, segment: str) -> dict[str, str | int]:
        archive = self._archive_directory.rpartition("/")[2]
        host = self._host
        return {"format": FORMAT, "archive": archive, "host": host, "segment": segment}

    def _finish(self, end: End) -> None:
        """Complete the newest segment, durably, before the next one begins."""
        if not end.segment:
            files.sync_directory(self._archive_directory, JournalFailed)
            return
        descriptor = journal_segment.open_own(self._directory, end.segment, WRITE_FLAGS)
        try:
            if end.is_torn:
                files.write_all(descriptor, b"\n")
            os.fsync(descriptor)
        finally:
            journal_format.close(descriptor)

    def _write(self, segment: str, content: bytes) -> _Lines:
        """Append content; after an error truncate the segment to its size."""
        descriptor = journal_segment.open_own(self._directory, segment, WRITE_FLAGS)
        try:
            lines = _Lines(segment, descriptor, len(content))
            if not lines.start:
                mode = files.shared_mode(self._directory, files.DRAFT_MODE)
                os.fchmod(descriptor, mode)
                os.fsync(self._directory)  # the name of the new segment
            try:
                files.write_all(descriptor, content)
            except OSError:
                os.ftruncate(descriptor, lines.start)
                raise
        except BaseException:
            journal_format.close(descriptor)
            raise
        return lines

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
        descriptor = journal_segment.open_own(self._directory, name)
        try:
            end = os.fstat(descriptor).st_size
            size = RECENT_SIZE
            while end:
                start = max(0, end - size)
                block = journal_segment.read_range(descriptor, start, end)
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
            descriptor = journal_segment.open_own(self._directory, newest)
            try:
                os.fsync(descriptor)
            finally:
                journal_format.close(descriptor)
        except OSError as error:
            raise self._journal_error(error) from error

    def _journal_error(self, error: OSError) -> JournalFailed:
        path = journal_format.error_path(self._path, error)
        return JournalFailed(
            f"{path}: {error.strerror}; check its file system and its owner"
        )


class _Lines:
    """Lines just appended: where they are; number and hash of the last one."""

    __slots__ = ("descriptor", "end", "number", "segment", "sha256", "start")

    def __init__(self, segment: str, descriptor: int, size: int) -> None:
        self.segment = segment
        self.descriptor = descriptor
        self.start = os.fstat(descriptor).st_size
        self.end = self.start + size
        self.number = 0
        self.sha256 = ""
