"""Reads Postfix's log: the oldest file to the newest line, or on from a saved position.

Used by outcomes.follower (follows) and cli.reconcile (reads from a time on). Changes
nothing. A log is the current file and, beside it, rotated files with its name and a
suffix, possibly compressed; without a file it is systemd's journal. All errors are
LogUnreadable.
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
State = tuple[str, int, int, int]  # name, inode, size, modification time in ns


@dataclass(frozen=True)
class Place:
    """A position in a log: the end of the line with that hash.

    ``inode`` and ``offset`` (bytes, uncompressed) locate it in a file; ``cursor`` in
    systemd's journal.
    """

    inode: int = 0
    offset: int = 0
    hash: str = ""
    cursor: str = ""

    def written(self) -> str:
        """Return the position as JSON."""
        return json.dumps(asdict(self))


def place(text: str) -> Place:
    """Return the position that JSON text describes, the beginning if it is invalid."""
    try:
        return Place(**json.loads(text))
    except (ValueError, TypeError):
        return Place()


def lines(found: Configuration, since: float) -> Iterator[tuple[str, float]]:
    """Yield each line of the log since a Unix time, with its own Unix time.

    A line whose time cannot be parsed gets that of the line before. Raises
    LogUnreadable.
    """
    path = path_of(found)
    if path:
        yield from of_files([str(file) for file in _files(path)], since)
        return
    clock = Clock(time.time(), tz.tzlocal())
    yield from _since(_from_journal(f"--since=@{int(since)}"), clock, since)


def of_files(paths: list[str], since: float) -> Iterator[tuple[str, float]]:
    """Yield each line of these files since a Unix time, in the order given."""
    for path in paths:
        written = packed.told(path).st_mtime
        if written + DAY < since:
            continue
        with packed.opened(path) as log:
            yield from _since(
                map(_text, packed.lines(log, path)), Clock(written, tz.tzlocal()), since
            )


class Reader:
    """Reads a log on from a position; yields each line once.

    ``position`` is the end of the last line yielded. ``loss_warning`` says that this
    position was not found again, so that lines may be missing; ``absence_warning`` that
    the current log file does not exist at the moment: the position stays valid until it
    is back. Both are "" if all is well.
    """

    def __init__(self, path: str, begin: Place) -> None:
        """Begin after a position.

        A position in systemd's journal is continued there, even if a syslogd has been
        installed since: it writes the same lines into its file.
        """
        self._path = "" if begin.cursor and path in USUAL else path
        self.place = begin
        self.lost = ""
        self.absent = ""
        self._at_end: list[State] | None = None  # when all files were read

    def new(self, limit: int) -> Iterator[tuple[str, float]]:
        """Yield the lines that are new since the last call, each with its Unix time.

        At most limit lines of files. Raises LogUnreadable.
        """
        if not self._path:
            yield from self._of_journal()
            return
        yield from itertools.islice(self._of_files(), limit)

    def _of_files(self) -> Iterator[tuple[str, float]]:
        """Yield all unread lines; open no file if none has changed."""
        found = self._found()
        states = [_state(file) for file in found]
        if states == self._at_end:
            return
        self._at_end = None
        unread, offset = self._unread(found)
        for file in unread:
            offset = yield from self._of_file(file, offset)
            if [file] == unread[-2:-1]:
                if not packed.told(str(unread[-1])).st_size:
                    break  # the logger may still write to the rotated file
                yield from self._of_file(file, offset)
            offset = 0
        self._at_end = states

    def _unread(self, found: list[Path]) -> tuple[list[Path], int]:
        """Return the files with unread lines, and the offset in the first of them.

        The position is kept while the current file is missing.
        """
        if not self.place.hash:
            return found, 0
        for _ in range(2):  # the log may be rotated during the first search
            for number in self._likely(found):
                if self._is_here(found[number]):
                    return found[number:], self.place.offset
            if self.absent:
                return [], 0
            found = self._found()
        self.lost = (
            f"{self._path}: the last line read is in no file of this log any more;"
            " log lines may be missing"
        )
        self.place = Place()
        return found, 0

    def _found(self) -> list[Path]:
        """Return the log's files; note whether the current one exists."""
        is_known = os.path.isdir(os.path.dirname(self._path))
        found = _files(self._path) if is_known else []
        is_there = Path(self._path) in found
        self.absent = "" if is_there else f"{self._path}: no such file"
        return found

    def _likely(self, found: list[Path]) -> list[int]:
        """Return the indexes of the files, those with the position's inode first."""
        inodes = [packed.told(str(file)).st_ino for file in found]
        return sorted(range(len(found)), key=lambda n: inodes[n] != self.place.inode)

    def _is_here(self, path: Path) -> bool:
        """Tell whether the last line that was read is in this file."""
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
        """Yield the complete lines of one file from an offset on; update the position.

        An incomplete last line of the current file is left for later. Returns the
        offset of the end of the last line yielded.
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
    """Return the log's files, oldest first, the current one last."""
    base = Path(path)
    try:
        beside = sorted(base.parent.iterdir())
    except OSError as problem:
        raise LogUnreadable(f"{base.parent}: {problem.strerror}") from problem
    older = [
        file
        for file in beside
        if file.name.startswith((f"{base.name}.", f"{base.name}-")) and file.is_file()
    ]
    older.sort(key=lambda file: packed.told(str(file)).st_mtime)
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
            f"no log file and no journalctl ({problem.strerror}); set maillog_file in"
            " main.cf"
        ) from problem
    if run.returncode:
        raise LogUnreadable(f"journalctl: {said}; run the command as root")
