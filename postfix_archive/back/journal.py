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
from fcntl import LOCK_EX, flock

from postfix_archive.back import files, lastline
from postfix_archive.core import digest
from postfix_archive.core.errors import JournalFailed
from postfix_archive.core.quoting import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Event = tuple[str, dict[str, str | int]]  # the event's name, its other fields

NAME = "journal"
MODE = 0o600
TAIL = 1 << 13  # bytes; usually they contain the last line
# Bytes that a retry searches for its own events. Retries come within
# maximal_backoff_time (4000 s); at 4 KB a line this is the last 2,000 events. An event
# that is not found is recorded again, which is harmless: readers take the union.
RECENT = 8 << 20
HASH = 64  # hexadecimal digits
NOTHING = "0" * HASH  # "prev" of the first line
BEGINNING = b'{"seq":1,"time":"'


class Journal:
    """The journal file, open and exclusively locked (flock(2)). A context manager."""

    __slots__ = ("_descriptor", "_folder", "_path")

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = f"{folder}/{NAME}"
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(self._path, flags, MODE)
            flock(self._descriptor, LOCK_EX)
        except OSError as problem:
            raise self._failed(problem) from problem

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.close(self._descriptor)
        except OSError:
            pass  # each line was fsynced; NFS may report an error but closes the file

    def append(self, event: str, time: str, **words: str | int) -> None:
        """Append one event with its fields, durably; time is RFC 3339, UTC."""
        self.extend(time, [(event, words)])

    def extend(self, time: str, told: list[Event]) -> None:
        """Append events, durably, with one fsync. After an error there is none of them.

        After a crash there may be the first few of them, without a gap.
        """
        if not told:
            return
        try:
            size = self._size()
            torn, last, number = self._end(size)
            number = max(number, lastline.number(self._folder))
            held = [b"\n"] if torn else []
            for each, (event, words) in enumerate(told, number + 1):
                held.append(_line(each, time, event, words, prev=last))
                last = digest.hex_of(held[-1][:-1])
            self._write(b"".join(held), size)
            lastline.note(self._folder, number + len(told), last)
        except OSError as problem:
            raise self._failed(problem) from problem

    def _size(self) -> int:
        """Return the size in bytes; make the name of a new journal durable."""
        told = os.fstat(self._descriptor)
        if told.st_nlink != 1:
            raise OSError(0, "link count is not 1 (a hard link, or a deleted file)")
        if not told.st_size:
            files.sync_folder(self._folder)
        return told.st_size

    def _write(self, content: bytes, size: int) -> None:
        """Append content durably; after an error truncate the journal to size bytes."""
        try:
            files.write_all(self._descriptor, content)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise

    def unsaid(self, told: list[Event]) -> list[Event]:
        """Return the events that no recent line has with the same fields.

        All events have the same name. The events left out are durable on return.
        """
        kind = quoted(told[0][0] if told else "").encode()
        found = _holding(self._recent(), b'"event":' + kind + b",")
        said = {_told(line) for line in found if _is_whole(line)}
        new = [e for e in told if _told(_line(0, "", *e, prev="")[:-1]) not in said]
        if len(new) < len(told):
            self._sync()
        return new

    def recent(self, key: str) -> set[str]:
        """Return the names of one capsule's recent events, which are durable."""
        wanted = b'"capsule":"' + key.encode() + b'"'
        seen = _holding(self._recent(), wanted)
        found = {_event(line) for line in seen if _is_whole(line)}
        if found:
            self._sync()
        return found

    def has_file(self, name: str) -> bool:
        """Return whether a line of the whole journal, made durable, names this file."""
        wanted = b'"file":' + quoted(name).encode()
        found = any(
            wanted in line and line.endswith(b"\n") and _is_whole(line[:-1])
            for line in lines(self._path)
        )
        if found:
            self._sync()
        return found

    def _recent(self) -> bytes:
        try:
            size = os.fstat(self._descriptor).st_size
            return _read(self._descriptor, max(0, size - RECENT), size)
        except OSError as problem:
            raise self._failed(problem) from problem

    def _sync(self) -> None:
        """Make lines durable whose writer may have died before its fsync."""
        try:
            os.fsync(self._descriptor)
        except OSError as problem:
            raise self._failed(problem) from problem

    def _end(self, size: int) -> tuple[bool, str, int]:
        """Return whether the last line is torn, its SHA-256, and the last number."""
        if not size:
            return False, NOTHING, 0
        tail = b""
        at = size
        while at:
            step = min(max(TAIL, len(tail)), at)  # doubled: a line can have 20 MB
            at -= step
            tail = _read(self._descriptor, at, at + step) + tail
            number = _last_number(tail, whole=at == 0)
            if number is not None:
                torn = not tail.endswith(b"\n")
                last = tail.rstrip(b"\n").rpartition(b"\n")[2]
                return torn, digest.hex_of(last), number
        raise JournalFailed(
            f"{self._path}: no valid line, so it is not a journal; restore it from a"
            " backup, or move it away and document that"
        )

    def _failed(self, problem: OSError) -> JournalFailed:
        return JournalFailed(
            f"{self._path}: {problem.strerror}; check its file system and its owner"
        )


def lines(path: str) -> Iterator[bytes]:
    """Yield all lines; a missing journal has none. Raises JournalFailed."""
    try:
        with open(files.opened(path), "rb") as opened:
            yield from opened
    except FileNotFoundError:
        return
    except OSError as problem:
        raise JournalFailed(f"{path}: {problem.strerror}") from problem


def _line(
    number: int, time: str, event: str, words: dict[str, str | int], *, prev: str
) -> bytes:
    text = f'{{"seq":{number},"time":{quoted(time)},"event":{quoted(event)}'
    for name, value in words.items():
        text += f",{quoted(name)}:"
        text += str(value) if isinstance(value, int) else quoted(value)
    return f'{text},"prev":"{prev}"}}\n'.encode("ascii")


def _last_number(tail: bytes, *, whole: bool) -> int | None:
    """Return the number of the last complete line, None if tail has none.

    The first line of tail counts only if tail is the whole file. 0: the file is one
    torn line.
    """
    found = tail.rstrip(b"\n").split(b"\n")
    for line in reversed(found if whole else found[1:]):
        begin, _, rest = line.partition(b":")
        number = rest.partition(b",")[0]
        if begin == b'{"seq"' and lastline.is_number(number) and _is_whole(line):
            return int(number)
    if whole and len(found) == 1 and BEGINNING.startswith(found[0][: len(BEGINNING)]):
        return 0
    return None


def _is_whole(line: bytes) -> bool:
    """Return whether a line, without its line end, was written completely."""
    chained = line[-HASH - 11 : -HASH - 2] == b',"prev":"' and line.endswith(b'"}')
    return chained and line.startswith(b'{"seq":')


def _holding(seen: bytes, wanted: bytes) -> Iterator[bytes]:
    """Yield the lines that contain substring and have a line end, without it."""
    at = seen.find(wanted)
    while at >= 0:
        end = seen.find(b"\n", at)
        if end < 0:
            return
        yield seen[seen.rfind(b"\n", 0, at) + 1 : end]
        at = seen.find(wanted, end)


def _event(line: bytes) -> str:
    return line.partition(b'"event":"')[2].partition(b'"')[0].decode("ascii", "replace")


def _told(line: bytes) -> bytes:
    """Return the event and its fields, as bytes, without number, time and chain."""
    return line[line.find(b',"event":') : line.rfind(b',"prev":"')]


def _read(descriptor: int, start: int, stop: int) -> bytes:
    found = b""
    while piece := os.pread(descriptor, stop - start, start):
        found += piece
        start += len(piece)
    return found
