"""The journal of one archive: one JSON line an event, each with the hash of the last.

Used by store (writes) and the commands (read). Append-only: nothing here can remove or
change a line. Lines are durable when append() returns; what could not be written whole
is taken back, and a line that a crash has torn is closed off and stays, for verify.
Beside it stands the number of the last line (back/lastline).
docs/store-format.md has every field.
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

    Event = tuple[str, dict[str, str | int]]  # its kind and its own fields

NAME = "journal"
MODE = 0o600
TAIL = 1 << 13  # bytes: the last line of the usual journal is in them
# How far back a retry looks for its own event. Retries come within
# maximal_backoff_time (4000 s); at 4 KB a line this is the last 2,000 events. What is
# not seen is recorded once more, which is harmless: readers take the union.
RECENT = 8 << 20
HASH = 64  # hexadecimal digits of SHA-256
NOTHING = "0" * HASH  # "prev" of the first line
BEGINNING = b'{"seq":1,"time":"'


class Journal:
    """The journal file, locked as long as this object is open."""

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
            pass  # each line was fsynced; NFS may complain, and lets go of it

    def append(self, event: str, time: str, **words: str | int) -> None:
        """Write one event, durably; time is UTC, words are the event's own fields."""
        self.extend(time, [(event, words)])

    def extend(self, time: str, told: list[Event]) -> None:
        """Write several events, durably, with one fsync: all, or an error and none.

        A crash may leave the first of them, never one without those before it.
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
        """Return the journal's size; the name of a new one is durable then."""
        told = os.fstat(self._descriptor)
        if told.st_nlink != 1:
            raise OSError(0, "it has a second name (a hard link), or none")
        if not told.st_size:
            files.sync_folder(self._folder)
        return told.st_size

    def _write(self, content: bytes, size: int) -> None:
        """Write content durably behind size bytes, all of it or nothing."""
        try:
            files.write_all(self._descriptor, content)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise

    def unsaid(self, told: list[Event]) -> list[Event]:
        """Return the events that the recent lines do not tell word for word.

        All told are of one kind. Those left out are durable.
        """
        kind = quoted(told[0][0] if told else "").encode()
        found = _holding(self._recent(), b'"event":' + kind + b",")
        said = {_told(line) for line in found if _is_whole(line)}
        new = [e for e in told if _told(_line(0, "", *e, prev="")[:-1]) not in said]
        if len(new) < len(told):
            self._sync()
        return new

    def recent(self, key: str) -> set[str]:
        """Return the kinds of the recent events of one capsule; they are durable."""
        wanted = b'"capsule":"' + key.encode() + b'"'
        seen = _holding(self._recent(), wanted)
        found = {_event(line) for line in seen if _is_whole(line)}
        if found:
            self._sync()
        return found

    def has_file(self, name: str) -> bool:
        """Tell whether an event of the whole journal names this file, durably."""
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
        """Make durable what a run may have written that died before its fsync."""
        try:
            os.fsync(self._descriptor)
        except OSError as problem:
            raise self._failed(problem) from problem

    def _end(self, size: int) -> tuple[bool, str, int]:
        """Return: is the last line torn, the hash of the last line, the last number."""
        if not size:
            return False, NOTHING, 0
        tail = b""
        at = size
        while at:
            step = min(max(TAIL, len(tail)), at)  # doubled: a line may have 20 MB
            at -= step
            tail = _read(self._descriptor, at, at + step) + tail
            number = _last_number(tail, whole=at == 0)
            if number is not None:
                torn = not tail.endswith(b"\n")
                last = tail.rstrip(b"\n").rpartition(b"\n")[2]
                return torn, digest.hex_of(last), number
        raise JournalFailed(
            f"{self._path} holds no line that can be read: it is not a journal;"
            " move it away and say so in writing"
        )

    def _failed(self, problem: OSError) -> JournalFailed:
        return JournalFailed(
            f"{self._path}: {problem.strerror}; look at its file system and its owner"
        )


def lines(path: str) -> Iterator[bytes]:
    """Give the lines of a journal from the first on; nothing if there is no file."""
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
    """Return the number of the last line that has one, None if it is further up.

    The first line of tail counts only when tail is the whole file.
    """
    found = tail.rstrip(b"\n").split(b"\n")
    for line in reversed(found if whole else found[1:]):
        begin, _, rest = line.partition(b":")
        number = rest.partition(b",")[0]
        if begin == b'{"seq"' and lastline.is_number(number) and _is_whole(line):
            return int(number)
    if whole and len(found) == 1 and BEGINNING.startswith(found[0][: len(BEGINNING)]):
        return 0  # the very first line, torn
    return None


def _is_whole(line: bytes) -> bool:
    """Tell whether a line is one that was written to its end."""
    chained = line[-HASH - 11 : -HASH - 2] == b',"prev":"' and line.endswith(b'"}')
    return chained and line.startswith(b'{"seq":')


def _holding(seen: bytes, wanted: bytes) -> Iterator[bytes]:
    """Give the ended lines in which wanted stands."""
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
    """Return what a whole line says, without its number, time and chain."""
    return line[line.find(b',"event":') : line.rfind(b',"prev":"')]


def _read(descriptor: int, start: int, stop: int) -> bytes:
    found = b""
    while piece := os.pread(descriptor, stop - start, start):
        found += piece
        start += len(piece)
    return found
