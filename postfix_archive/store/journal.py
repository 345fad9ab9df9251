"""The journal of one archive: JSON lines, chained by SHA-256.

Used by archive and bypass/switch (write), by reader and outcomes (read). Append-only:
no function removes or changes a line. Lines are durable when append() returns. A write
that fails is truncated away. A line that a crash has torn stays, the next one starts
after a line end. journal_end keeps the number of the last line in a second file.
Raises JournalFailed.

docs/store-format.md specifies the keys.
"""

from __future__ import annotations

import posix as os
from _stat import S_ISREG
from fcntl import LOCK_EX, LOCK_NB, flock
from time import monotonic, sleep

from postfix_archive.errors import JournalFailed
from postfix_archive.message import digest
from postfix_archive.store import journal_end
from postfix_archive.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Event = tuple[str, dict[str, str | int]]  # the event's name, its other fields

# The events. CAPTURE_EVENTS have an envelope; BYPASS_EVENTS say that the bypass was
# turned on and off, so that mail passed unarchived.
CAPTURE_EVENTS = ARCHIVED, SUPPLEMENT = "archived", "supplement"
MAILED, OUTCOME = "mailed", "outcome"
REPORT_EVENTS = OUTCOME_REPORT, OUTCOME_MAILED = "outcome-report", "outcome-mailed"
BYPASS_EVENTS = BYPASS_STARTED, BYPASS_ENDED = "bypass-started", "bypass-ended"

FILE_NAME = "journal"
FILE_MODE = 0o600
LOCK_POLL_INTERVAL = 0.05  # seconds
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
OPEN_FLAGS |= os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO blocks neither open nor write
TAIL_SIZE = 1 << 13  # bytes; usually they contain the last line
# Bytes that are read at a time, backwards, to find events of a capsule or outcomes: at
# 4 KB a line the last 2,000 events. An outcome or supplement that is not in them is
# recorded again, which is harmless: readers take the union.
RECENT_SIZE = 8 << 20
SHA256_DIGITS = 64  # hexadecimal digits
FIRST_PREV = "0" * SHA256_DIGITS  # "prev" of the first line
LINE_START = b'{"seq":'
FIRST_LINE_START = b'{"seq":1,"time":"'


class Journal:
    """The journal file, open and exclusively locked (flock(2)). A context manager."""

    __slots__ = ("_descriptor", "_directory", "_path")

    def __init__(self, directory: str, *, lock_timeout: float | None = None) -> None:
        """Wait for the lock at most lock_timeout seconds.

        By default as long as it takes: the transports have their time limit.
        """
        self._directory = directory
        self._path = f"{directory}/{FILE_NAME}"
        self._descriptor = -1
        try:
            self._descriptor = os.open(self._path, OPEN_FLAGS, FILE_MODE)
            if not S_ISREG(os.fstat(self._descriptor).st_mode):
                raise OSError(0, "not a regular file")
            self._lock(lock_timeout)
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

    def _close(self) -> None:
        try:
            os.close(self._descriptor)
        except OSError:
            pass  # each line was fsynced; NFS may report an error but closes the file

    def _lock(self, timeout: float | None) -> None:
        if timeout is None:
            flock(self._descriptor, LOCK_EX)
            return
        deadline = monotonic() + timeout
        while True:
            try:
                flock(self._descriptor, LOCK_EX | LOCK_NB)
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
            size = self._size()
            is_torn, last_sha256, last_number = self._read_end(size)
            last_number = max(last_number, journal_end.read_number(self._directory))
            new_lines = [b"\n"] if is_torn else []
            for number, (event, fields) in enumerate(events, last_number + 1):
                new_lines.append(
                    _format_line(number, time, event, fields, prev=last_sha256)
                )
                last_sha256 = digest.sha256_hex(new_lines[-1][:-1])
            self._write(b"".join(new_lines), size)
            journal_end.write(self._directory, last_number + len(events), last_sha256)
        except OSError as error:
            raise self._journal_error(error) from error

    def _size(self) -> int:
        """Return the size in bytes; make the name of a new journal durable."""
        stat = os.fstat(self._descriptor)
        if stat.st_nlink != 1:
            raise OSError(0, "link count is not 1 (a hard link, or a deleted file)")
        if not stat.st_size:
            files.sync_directory(self._directory)
        return stat.st_size

    def _write(self, content: bytes, size: int) -> None:
        """Append content durably; after an error truncate the journal to size bytes."""
        try:
            files.write_all(self._descriptor, content)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise

    def unrecorded(self, events: list[Event]) -> list[Event]:
        """Return the events that no recent line has with the same fields.

        All events have the same name. The events left out are durable on return.
        """
        kind = json_string(events[0][0] if events else "").encode()
        recorded_lines = _matching_lines(self._read_recent(), b'"event":' + kind + b",")
        recorded = {_event_fields(line) for line in recorded_lines if is_complete(line)}
        new_events = [
            event
            for event in events
            if _event_fields(_format_line(0, "", *event, prev="")[:-1]) not in recorded
        ]
        if len(new_events) < len(events):
            self._sync()
        return new_events

    def recent_events(self, capsule_id: str, *, since_file: str = "") -> set[str]:
        """Return the names of one capsule's recent events, which are durable.

        Those in the last RECENT_SIZE bytes; with since_file all since the line that
        names this file, which no event of its record precedes.
        """
        substring = b'"capsule":"' + capsule_id.encode() + b'"'
        first_line = b'"file":' + json_string(since_file).encode()
        events: set[str] = set()
        for block in self._blocks_backwards():
            events |= {
                string_field(line, "event")
                for line in _matching_lines(block, substring)
                if is_complete(line)
            }
            if not since_file or first_line in block or events & {*CAPTURE_EVENTS}:
                break
        if events:
            self._sync()
        return events

    def has_file(self, name: str) -> bool:
        """Return whether a line of the whole journal, made durable, names this file."""
        substring = b'"file":' + json_string(name).encode()
        try:
            with open(self._descriptor, "rb", closefd=False) as file:
                file.seek(0)
                is_recorded = any(
                    substring in line
                    and line.endswith(b"\n")
                    and is_complete(line[:-1])
                    for line in file
                )
        except OSError as error:
            raise self._journal_error(error) from error
        if is_recorded:
            self._sync()
        return is_recorded

    def _blocks_backwards(self) -> Iterator[bytes]:
        """Yield the lines in blocks of RECENT_SIZE, or one longer line, last first."""
        try:
            end = os.fstat(self._descriptor).st_size
            size = RECENT_SIZE
            while end:
                start = max(0, end - size)
                block = _read_range(self._descriptor, start, end)
                cut = block.find(b"\n") + 1 if start else 0
                if start and cut in (0, len(block)):
                    size *= 2  # within one line
                    continue
                yield block[cut:]
                end, size = start + cut, RECENT_SIZE
        except OSError as error:
            raise self._journal_error(error) from error

    def _read_recent(self) -> bytes:
        try:
            size = os.fstat(self._descriptor).st_size
            return _read_range(self._descriptor, max(0, size - RECENT_SIZE), size)
        except OSError as error:
            raise self._journal_error(error) from error

    def _sync(self) -> None:
        """Make lines durable whose writer may have died before its fsync."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._journal_error(error) from error

    def _read_end(self, size: int) -> tuple[bool, str, int]:
        """Return whether the last line is torn, its SHA-256, and the last number."""
        if not size:
            return False, FIRST_PREV, 0
        tail = b""
        offset = size
        while offset:
            step = min(
                max(TAIL_SIZE, len(tail)), offset
            )  # doubled: a line can have 20 MB
            offset -= step
            tail = _read_range(self._descriptor, offset, offset + step) + tail
            number = _last_number(tail, is_whole_file=offset == 0)
            if number is not None:
                is_torn = not tail.endswith(b"\n")
                last_line = tail.rstrip(b"\n").rpartition(b"\n")[2]
                return is_torn, digest.sha256_hex(last_line), number
        raise JournalFailed(
            f"{self._path}: no valid line, so it is not a journal; restore it from a"
            " backup, or move it away and document that"
        )

    def _journal_error(self, error: OSError) -> JournalFailed:
        return JournalFailed(
            f"{self._path}: {error.strerror}; check its file system and its owner"
        )


def _format_line(
    number: int, time: str, event: str, fields: dict[str, str | int], *, prev: str
) -> bytes:
    text = f'{{"seq":{number},"time":{json_string(time)},"event":{json_string(event)}'
    for name, value in fields.items():
        text += f",{json_string(name)}:"
        text += str(value) if isinstance(value, int) else json_string(value)
    return f'{text},"prev":"{prev}"}}\n'.encode("ascii")


def _last_number(tail: bytes, *, is_whole_file: bool) -> int | None:
    """Return the number of the last complete line, None if tail has none.

    The first line of tail counts only if tail is the whole file. 0: the file is one
    torn line.
    """
    tail_lines = tail.rstrip(b"\n").split(b"\n")
    for line in reversed(tail_lines if is_whole_file else tail_lines[1:]):
        first_key, _, rest = line.partition(b":")
        number = rest.partition(b",")[0]
        if (
            first_key == b'{"seq"'
            and journal_end.is_number(number)
            and is_complete(line)
        ):
            return int(number)
    if (
        is_whole_file
        and len(tail_lines) == 1
        and FIRST_LINE_START.startswith(tail_lines[0][: len(FIRST_LINE_START)])
    ):
        return 0
    return None


def is_complete(line: bytes) -> bool:
    """Return whether a line, without its line end, was written completely."""
    has_prev = line[
        -SHA256_DIGITS - 11 : -SHA256_DIGITS - 2
    ] == b',"prev":"' and line.endswith(b'"}')
    return has_prev and line.startswith(LINE_START)


def _matching_lines(content: bytes, substring: bytes) -> Iterator[bytes]:
    """Yield the lines that contain substring and have a line end, without it."""
    position = content.find(substring)
    while position >= 0:
        end = content.find(b"\n", position)
        if end < 0:
            return
        yield content[content.rfind(b"\n", 0, position) + 1 : end]
        position = content.find(substring, end)


def string_field(line: bytes, name: str) -> str:
    """Return the first value of this name in a complete line, "" if it has none.

    Finds it without parsing the line: quotes within a JSON string are escaped. The
    value may have escapes; ids, times and the names of events have none.
    """
    key = f'"{name}":"'.encode()
    start = line.find(key)
    if start < 0:
        return ""
    start += len(key)
    return line[start : line.find(b'"', start)].decode("ascii", "replace")


def _event_fields(line: bytes) -> bytes:
    """Return the event and its fields, as bytes, without number, time and chain."""
    return line[line.find(b',"event":') : line.rfind(b',"prev":"')]


def _read_range(descriptor: int, start: int, stop: int) -> bytes:
    content = b""
    while chunk := os.pread(descriptor, stop - start, start):
        content += chunk
        start += len(chunk)
    return content


JSON_ESCAPES = (
    ("\\", "\\\\"),
    ('"', '\\"'),
    ("\r", "\\r"),
    ("\n", "\\n"),
    ("\t", "\\t"),
)


def json_string(text: str) -> str:
    """Return text as a JSON string in ASCII.

    Imports the C module _json only for text that is not printable ASCII: the import
    costs a transport process 0.5 ms.
    """
    if text.isascii():
        escaped = text
        for char, escape in JSON_ESCAPES:
            escaped = escaped.replace(char, escape)
        if escaped.isprintable():
            return f'"{escaped}"'
    from _json import encode_basestring_ascii

    return encode_basestring_ascii(text)
