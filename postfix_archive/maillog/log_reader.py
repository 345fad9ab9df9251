"""Reads Postfix's log: the oldest file to the newest line, or on from a saved position.

Used by outcomes.follower (follows), reconcile.reconciliation (reads from a time on) and
doctor.unarchived_reinjection (reads the end). Changes nothing. A log is the current
file and, beside it, rotated files with its name and a suffix, possibly compressed;
without a file it is systemd's journal. All errors are LogUnreadable.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from postfix_archive.errors import LogUnreadable
from postfix_archive.maillog import log_file
from postfix_archive.maillog.journald import Journal
from postfix_archive.maillog.location import DEFAULT_PATHS, log_path
from postfix_archive.maillog.log_line import TimeParser
from postfix_archive.postfix.configuration import Configuration

DAY = 86400
BLOCK_SIZE = 1 << 20
LATEST_SIZE = 16 << 20  # bytes: some 80,000 lines
LATEST_ENTRIES = 80_000  # of systemd's journal
FileState = tuple[str, int, int, int]  # name, inode, size, modification time in ns


@dataclass(frozen=True)
class Position:
    """A position in a log: the end of the line with that hash.

    ``inode`` and ``offset`` (bytes, uncompressed) locate it in a file; ``cursor`` in
    systemd's journal. ``time`` is its Unix time.
    """

    inode: int = 0
    offset: int = 0
    hash: str = ""
    cursor: str = ""
    time: float = 0.0

    def to_json(self) -> str:
        """Return the position as JSON."""
        return json.dumps(asdict(self))


def parse_position(text: str) -> Position:
    """Return the position that JSON text describes, the beginning if it is invalid."""
    try:
        return Position(**json.loads(text))
    except (ValueError, TypeError):
        return Position()


def lines_since(config: Configuration, since: float) -> Iterator[tuple[str, float]]:
    """Yield each line of the log since a Unix time, with its own Unix time.

    A line whose time cannot be parsed gets that of the line before. Raises
    LogUnreadable.
    """
    path = log_path(config)
    if path:
        yield from lines_of_files([str(file) for file in _log_files(path)], since)
        return
    yield from _lines_of_journal(since)


def latest_lines(config: Configuration, since: float) -> Iterator[tuple[str, float]]:
    """Yield the lines at the end of the current log since a Unix time, as lines_since.

    At most LATEST_SIZE bytes of a file, or LATEST_ENTRIES entries.
    """
    path = log_path(config)
    if not path:
        yield from _lines_of_journal(since, f"--lines={LATEST_ENTRIES}")
        return
    stat = log_file.stat_file(path)
    with log_file.open_log(path) as log:
        if stat.st_size > LATEST_SIZE:
            log.seek(stat.st_size - LATEST_SIZE)
            log.readline()
        clock = TimeParser(stat.st_mtime)
        yield from _timed_lines_since(
            map(_decode, log_file.packed_lines(log, path)), clock, since
        )


def _lines_of_journal(since: float, *options: str) -> Iterator[tuple[str, float]]:
    with contextlib.closing(Journal(f"--since=@{int(since)}", *options)) as journal:
        while not journal.is_at_end:
            for entry in journal.entries(LATEST_ENTRIES):
                yield entry.line, entry.at


def lines_of_files(paths: list[str], since: float) -> Iterator[tuple[str, float]]:
    """Yield each line of these files since a Unix time, in the order given."""
    previous = 0.0
    for path in paths:
        mtime = log_file.stat_file(path).st_mtime
        if mtime + DAY < since:
            continue
        with log_file.open_log(path) as log:
            clock = TimeParser(mtime, previous=previous)
            lines = map(_decode, log_file.packed_lines(log, path))
            for line, previous in _timed_lines_since(lines, clock, since):
                yield line, previous


class Reader:
    """Reads a log on from a position; yields each line once.

    ``position`` is the end of the last line yielded. ``loss_warning`` says that this
    position was not found again, so that lines may be missing; ``absence_warning`` that
    the current log file does not exist at the moment: the position stays valid until it
    is back. Both are "" if all is well.
    """

    def __init__(self, path: str, position: Position) -> None:
        """Begin after a position.

        A position in systemd's journal is continued there, even if a syslogd has been
        installed since: it writes the same lines into its file.
        """
        self._path = "" if position.cursor and path in DEFAULT_PATHS else path
        self.position = position
        self.loss_warning = ""
        self.absence_warning = ""
        self._states_at_end: list[FileState] | None = None  # when all files were read
        self._journal: Journal | None = None

    def new_lines(self, limit: int) -> Iterator[tuple[str, float]]:
        """Yield the lines that are new since the last call, each with its Unix time.

        At most limit lines. Raises LogUnreadable.
        """
        if not self._path:
            yield from self._new_lines_of_journal(limit)
            return
        yield from itertools.islice(self._new_lines_of_files(), limit)

    def _new_lines_of_files(self) -> Iterator[tuple[str, float]]:
        """Yield all unread lines; open no file if none has changed."""
        files = self._list_files()
        states = [_file_state(file) for file in files]
        if states == self._states_at_end:
            return
        self._states_at_end = None
        unread, offset = self._unread_files(files)
        for file in unread:
            offset = yield from self._lines_of_file(file, offset)
            if [file] == unread[-2:-1]:
                if not log_file.stat_file(str(unread[-1])).st_size:
                    break  # the logger may still write to the rotated file
                yield from self._lines_of_file(file, offset)
            offset = 0
        self._states_at_end = states

    def _unread_files(self, files: list[Path]) -> tuple[list[Path], int]:
        """Return the files with unread lines, and the offset in the first of them.

        The position is kept while the current file is missing.
        """
        if not self.position.hash:
            return files, 0
        for _ in range(2):  # the log may be rotated during the first search
            for index in self._search_order(files):
                if self._has_last_line(files[index]):
                    return files[index:], self.position.offset
            if self.absence_warning:
                return [], 0
            files = self._list_files()
        self.loss_warning = (
            f"{self._path}: the last line read is in no file of this log any more;"
            " log lines may be missing"
        )
        self.position = Position()
        return files, 0

    def _list_files(self) -> list[Path]:
        """Return the log's files; note whether the current one exists."""
        has_directory = os.path.isdir(os.path.dirname(self._path))
        files = _log_files(self._path) if has_directory else []
        has_current = Path(self._path) in files
        self.absence_warning = "" if has_current else f"{self._path}: no such file"
        return files

    def _search_order(self, files: list[Path]) -> list[int]:
        """Return the indexes of the files, those with the position's inode first."""
        inodes = [log_file.stat_file(str(file)).st_ino for file in files]
        return sorted(range(len(files)), key=lambda n: inodes[n] != self.position.inode)

    def _has_last_line(self, path: Path) -> bool:
        """Tell whether the last line that was read is in this file."""
        if (
            not log_file.is_compressed(path)
            and log_file.stat_file(str(path)).st_size < self.position.offset
        ):
            return False
        with log_file.open_log(str(path)) as log:
            try:
                return (
                    _digest(_line_before(log, self.position.offset))
                    == self.position.hash
                )
            except log_file.CORRUPTION_ERRORS:
                return False

    def _lines_of_file(
        self, path: Path, offset: int
    ) -> Generator[tuple[str, float], None, int]:
        """Yield the complete lines of one file from an offset on; update the position.

        An incomplete last line of the current file is left for later. Returns the
        offset of the end of the last line yielded.
        """
        is_current = str(path) == self._path
        stat = log_file.stat_file(str(path))
        clock = TimeParser(stat.st_mtime, previous=self.position.time)
        with log_file.open_log(str(path)) as log:
            log.seek(offset)
            for raw_line in log_file.packed_lines(log, str(path)):
                if is_current and not raw_line.endswith(b"\n"):
                    break
                offset += len(raw_line)
                line = _decode(raw_line)
                at = clock.line_time(line)
                self.position = Position(
                    stat.st_ino,
                    offset,
                    _digest(raw_line),
                    time=at or self.position.time,
                )
                yield line, at
        return offset

    def _new_lines_of_journal(self, limit: int) -> Iterator[tuple[str, float]]:
        """Yield entries; those since the last run first, then as they come."""
        for entry in self._open_journal().entries(limit):
            self.position = Position(cursor=entry.cursor)
            yield entry.line, entry.at

    def _open_journal(self) -> Journal:
        is_first = self._journal is None
        if self._journal is not None and not self._journal.is_at_end:
            return self._journal
        self.close()
        cursor = self.position.cursor
        since = (f"--since=@{int(self.position.time)}",) if self.position.time else ()
        options = (f"--after-cursor={cursor}",) if cursor else since
        self._journal = Journal(*options, is_followed=not is_first)
        return self._journal

    def close(self) -> None:
        """End journalctl(1), if it runs."""
        if self._journal is not None:
            self._journal.close()


def _log_files(path: str) -> list[Path]:
    """Return the log's files, oldest first, the current one last."""
    current = Path(path)
    try:
        siblings = sorted(current.parent.iterdir())
    except OSError as error:
        raise LogUnreadable(f"{current.parent}: {error.strerror}") from error
    rotated = [
        file
        for file in siblings
        if file.name.startswith((f"{current.name}.", f"{current.name}-"))
        and file.is_file()
    ]
    rotated.sort(key=lambda file: log_file.stat_file(str(file)).st_mtime)
    return rotated + ([current] if current.exists() else [])


def _timed_lines_since(
    lines: Iterator[str], clock: TimeParser, since: float
) -> Iterator[tuple[str, float]]:
    last_time = 0.0
    for line in lines:
        last_time = clock.line_time(line) or last_time
        if last_time >= since:
            yield line, last_time


def _decode(raw_line: bytes) -> str:
    return raw_line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _line_before(log: IO[bytes], offset: int) -> bytes:
    """Return the line that ends at an offset."""
    start = max(0, offset - BLOCK_SIZE)
    log.seek(start)
    block = log.read(offset - start)
    if len(block) < offset - start:
        return b""
    return block[block.rfind(b"\n", 0, -1) + 1 :]


def _file_state(path: Path) -> FileState:
    stat = log_file.stat_file(str(path))
    return (path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns)
