"""Postfix's log, from its oldest file to the newest line, and on from where one was.

Used by front/outcomes (follows) and front/reconcile (reads from a time on). Changes
nothing. A log is one file that is written to, and those that it was before rotation:
beside it, under its name and a suffix, perhaps compressed. Where there is no file it is
systemd's journal.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dateutil import tz

from postfix_archive.back import packed
from postfix_archive.back.maillog import MAIL, USUAL, path_of
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import LogUnreadable
from postfix_archive.core.logline import Clock, time_of

JOURNAL = ("journalctl", "-q", "--no-pager", "-o", "short-iso-precise")
CURSOR = "-- cursor: "
DAY = 86400
BLOCK = 1 << 20
State = tuple[str, int, int, int]  # of a file: name, inode, size, time of change


@dataclass(frozen=True)
class Place:
    """Where a reader is in a log: behind the line with that hash.

    ``inode`` and ``offset`` (bytes, uncompressed) are of the file in which it stands;
    ``cursor`` is systemd's.
    """

    inode: int = 0
    offset: int = 0
    hash: str = ""
    cursor: str = ""

    def written(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))


def place(text: str) -> Place:
    """Return the place that was written down; the beginning where it cannot be read."""
    try:
        return Place(**json.loads(text))
    except (ValueError, TypeError):
        return Place()


def lines(found: Configuration, since: float) -> Iterator[tuple[str, float]]:
    """Give all lines from a time on (seconds since 1970), each with its time.

    A line whose time cannot be read has that of the line before. Raises LogUnreadable.
    """
    path = path_of(found)
    if path:
        yield from of_files([str(each) for each in _files(path)], since)
        return
    clock = Clock(time.time(), tz.tzlocal())
    yield from _since(_from_journal(f"--since=@{int(since)}"), clock, since)


def of_files(paths: list[str], since: float) -> Iterator[tuple[str, float]]:
    """Give the lines of these files in their order, likewise."""
    for each in paths:
        written = packed.told(each).st_mtime
        if written + DAY < since:
            continue
        with packed.opened(each) as log:
            yield from _since(
                map(_text, packed.lines(log, each)), Clock(written, tz.tzlocal()), since
            )


class Reader:
    """Goes on reading a log from a place; what it has given once it gives no more.

    ``place`` is behind the last line given. ``lost`` says, if anything, that the place
    was not found again, so that lines may be missing; ``absent``, that there is no log
    at this moment: what it says of the place counts again when it is back.
    """

    def __init__(self, path: str, begin: Place) -> None:
        """Begin behind a place.

        What was begun in systemd's journal is read on there: a syslogd that came since
        writes the same lines into its file.
        """
        self._path = "" if begin.cursor and path in USUAL else path
        self.place = begin
        self.lost = ""
        self.absent = ""
        self._at_end: list[State] | None = None  # the files when all were read

    def new(self, limit: int) -> Iterator[tuple[str, float]]:
        """Give the lines that have come since, limit at most, each with its time."""
        if not self._path:
            yield from self._of_journal()
            return
        yield from itertools.islice(self._of_files(), limit)

    def _of_files(self) -> Iterator[tuple[str, float]]:
        """Give all that was not read; where nothing has changed, nothing is opened."""
        found = self._found()
        states = [_state(each) for each in found]
        if states == self._at_end:
            return
        self._at_end = None
        unread, offset = self._unread(found)
        for each in unread:
            offset = yield from self._of_file(each, offset)
            if [each] == unread[-2:-1]:
                if not packed.told(str(unread[-1])).st_size:
                    break  # whoever writes may not have left this one yet
                yield from self._of_file(each, offset)
            offset = 0
        self._at_end = states

    def _unread(self, found: list[Path]) -> tuple[list[Path], int]:
        """Return the files that hold what was not read, and where in the first.

        While the one that is written to is not there, the place is not given up.
        """
        if not self.place.hash:
            return found, 0
        for _ in range(2):  # a rotation may have gone on while we looked
            for number in self._likely(found):
                if self._is_here(found[number]):
                    return found[number:], self.place.offset
            if self.absent:
                return [], 0
            found = self._found()
        self.lost = (
            f"{self._path}: the line that was read last is in no file of this log any"
            " more: what was logged in between is unknown"
        )
        self.place = Place()
        return found, 0

    def _found(self) -> list[Path]:
        """Return the log's files; note whether the one that is written to is there."""
        is_known = os.path.isdir(os.path.dirname(self._path))
        found = _files(self._path) if is_known else []
        is_there = Path(self._path) in found
        self.absent = "" if is_there else f"{self._path}: there is no such file"
        return found

    def _likely(self, found: list[Path]) -> list[int]:
        """Return the numbers of the files: first who has the inode of the place."""
        inodes = [packed.told(str(each)).st_ino for each in found]
        return sorted(range(len(found)), key=lambda n: inodes[n] != self.place.inode)

    def _is_here(self, path: Path) -> bool:
        """Tell whether the last line that was read stands in this file."""
        if (
            not packed.is_packed(path)
            and packed.told(str(path)).st_size < self.place.offset
        ):
            return False
        with packed.opened(str(path)) as log:
            try:
                return _digest(_line_before(log, self.place.offset)) == self.place.hash
            except packed.DAMAGE:
                return False

    def _of_file(
        self, path: Path, offset: int
    ) -> Generator[tuple[str, float], None, int]:
        """Give the whole lines of one file from an offset on, and move the place.

        The last piece of a file that is written to waits for its end. Returns where the
        lines end.
        """
        is_last = str(path) == self._path
        told = packed.told(str(path))
        clock = Clock(told.st_mtime, tz.tzlocal())
        with packed.opened(str(path)) as log:
            log.seek(offset)
            for raw in packed.lines(log, str(path)):
                if is_last and not raw.endswith(b"\n"):
                    break
                offset += len(raw)
                self.place = Place(told.st_ino, offset, _digest(raw))
                line = _text(raw)
                yield line, clock.seconds(time_of(line))
        return offset

    def _of_journal(self) -> Iterator[tuple[str, float]]:
        after = (f"--after-cursor={self.place.cursor}",) if self.place.cursor else ()
        clock = Clock(time.time(), tz.tzlocal())
        for line in _from_journal("--show-cursor", *after):
            if line.startswith(CURSOR):
                self.place = Place(cursor=line[len(CURSOR) :].strip())
            else:
                yield line, clock.seconds(time_of(line))


def _files(path: str) -> list[Path]:
    """Return the log's files, oldest first; the one that is written to last."""
    base = Path(path)
    try:
        beside = sorted(base.parent.iterdir())
    except OSError as problem:
        raise LogUnreadable(f"{base.parent}: {problem.strerror}") from problem
    older = [
        each
        for each in beside
        if each.name.startswith((f"{base.name}.", f"{base.name}-")) and each.is_file()
    ]
    older.sort(key=lambda each: packed.told(str(each)).st_mtime)
    return older + ([base] if base.exists() else [])


def _since(
    given: Iterator[str], clock: Clock, since: float
) -> Iterator[tuple[str, float]]:
    last = 0.0
    for line in given:
        last = clock.seconds(time_of(line)) or last
        if last >= since:
            yield line, last


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _line_before(log: IO[bytes], offset: int) -> bytes:
    """Return the line that ends at an offset."""
    start = max(0, offset - BLOCK)
    log.seek(start)
    piece = log.read(offset - start)
    if len(piece) < offset - start:
        return b""
    return piece[piece.rfind(b"\n", 0, -1) + 1 :]


def _state(path: Path) -> State:
    told = packed.told(str(path))
    return (path.name, told.st_ino, told.st_size, told.st_mtime_ns)


def _from_journal(*words: str) -> Iterator[str]:
    command = [*JOURNAL, *words, MAIL]
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as run:
            assert run.stdout is not None and run.stderr is not None
            yield from map(_text, run.stdout)
            said = run.stderr.read().decode("utf-8", "replace").strip()
    except OSError as problem:
        raise LogUnreadable(
            "there is no log file (main.cf: maillog_file, /var/log/mail.log), nor"
            f" journalctl: {problem.strerror}; name it in main.cf: maillog_file"
        ) from problem
    if run.returncode:
        raise LogUnreadable(f"journalctl: {said}; run this as root")
