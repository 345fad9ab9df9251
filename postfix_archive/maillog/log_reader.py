"""Reads Postfix's log: the oldest file to the newest line, or on from a saved position.

Used by outcomes.follower (follows) and cli.reconcile (reads from a time on). Changes
nothing. A log is the current file and, beside it, rotated files with its name and a
suffix, possibly compressed; without a file it is systemd's journal. All errors are
LogUnreadable.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import itertools
import json
import lzma
import os
import subprocess
import time
import zlib
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dateutil import tz

from postfix_archive.errors import LogUnreadable
from postfix_archive.maillog.location import DEFAULT_PATHS, MAIL_FACILITY, log_path
from postfix_archive.maillog.log_line import TimeParser, time_of
from postfix_archive.postfix.configuration import Configuration

JOURNALCTL = ("journalctl", "-q", "--no-pager", "-o", "short-iso-precise")
CURSOR_PREFIX = "-- cursor: "
DAY = 86400
BLOCK_SIZE = 1 << 20
FileState = tuple[str, int, int, int]  # name, inode, size, modification time in ns


@dataclass(frozen=True)
class Position:
    """A position in a log: the end of the line with that hash.

    ``inode`` and ``offset`` (bytes, uncompressed) locate it in a file; ``cursor`` in
    systemd's journal.
    """

    inode: int = 0
    offset: int = 0
    hash: str = ""
    cursor: str = ""

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
    clock = TimeParser(time.time(), tz.tzlocal())
    yield from _timed_lines_since(_read_journal(f"--since=@{int(since)}"), clock, since)


def lines_of_files(paths: list[str], since: float) -> Iterator[tuple[str, float]]:
    """Yield each line of these files since a Unix time, in the order given."""
    for path in paths:
        mtime = stat_file(path).st_mtime
        if mtime + DAY < since:
            continue
        with open_log(path) as log:
            yield from _timed_lines_since(
                map(_decode, packed_lines(log, path)),
                TimeParser(mtime, tz.tzlocal()),
                since,
            )


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

    def new_lines(self, limit: int) -> Iterator[tuple[str, float]]:
        """Yield the lines that are new since the last call, each with its Unix time.

        At most limit lines of files. Raises LogUnreadable.
        """
        if not self._path:
            yield from self._new_lines_of_journal()
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
                if not stat_file(str(unread[-1])).st_size:
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
        inodes = [stat_file(str(file)).st_ino for file in files]
        return sorted(range(len(files)), key=lambda n: inodes[n] != self.position.inode)

    def _has_last_line(self, path: Path) -> bool:
        """Tell whether the last line that was read is in this file."""
        if (
            not is_compressed(path)
            and stat_file(str(path)).st_size < self.position.offset
        ):
            return False
        with open_log(str(path)) as log:
            try:
                return (
                    _digest(_line_before(log, self.position.offset))
                    == self.position.hash
                )
            except CORRUPTION_ERRORS:
                return False

    def _lines_of_file(
        self, path: Path, offset: int
    ) -> Generator[tuple[str, float], None, int]:
        """Yield the complete lines of one file from an offset on; update the position.

        An incomplete last line of the current file is left for later. Returns the
        offset of the end of the last line yielded.
        """
        is_current = str(path) == self._path
        stat = stat_file(str(path))
        clock = TimeParser(stat.st_mtime, tz.tzlocal())
        with open_log(str(path)) as log:
            log.seek(offset)
            for raw_line in packed_lines(log, str(path)):
                if is_current and not raw_line.endswith(b"\n"):
                    break
                offset += len(raw_line)
                self.position = Position(stat.st_ino, offset, _digest(raw_line))
                line = _decode(raw_line)
                yield line, clock.unix_time(time_of(line))
        return offset

    def _new_lines_of_journal(self) -> Iterator[tuple[str, float]]:
        options = (
            (f"--after-cursor={self.position.cursor}",) if self.position.cursor else ()
        )
        clock = TimeParser(time.time(), tz.tzlocal())
        for line in _read_journal("--show-cursor", *options):
            if line.startswith(CURSOR_PREFIX):
                self.position = Position(cursor=line[len(CURSOR_PREFIX) :].strip())
            else:
                yield line, clock.unix_time(time_of(line))


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
    rotated.sort(key=lambda file: stat_file(str(file)).st_mtime)
    return rotated + ([current] if current.exists() else [])


def _timed_lines_since(
    lines: Iterator[str], clock: TimeParser, since: float
) -> Iterator[tuple[str, float]]:
    last_time = 0.0
    for line in lines:
        last_time = clock.unix_time(time_of(line)) or last_time
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
    stat = stat_file(str(path))
    return (path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _read_journal(*options: str) -> Iterator[str]:
    command = [*JOURNALCTL, *options, MAIL_FACILITY]
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            yield from map(_decode, process.stdout)
            error_output = process.stderr.read().decode("utf-8", "replace").strip()
    except OSError as error:
        raise LogUnreadable(
            f"no log file and no journalctl ({error.strerror}); set maillog_file in"
            " main.cf"
        ) from error
    if process.returncode:
        raise LogUnreadable(f"journalctl: {error_output}; run the command as root")


OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
CORRUPTION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


def is_compressed(path: Path) -> bool:
    """Tell by its name whether a file is compressed."""
    return path.suffix in OPENERS


def open_log(path: str) -> IO[bytes]:
    """Open a log file to read its uncompressed content."""
    try:
        opener = OPENERS.get(os.path.splitext(path)[1])
        return opener(path, "rb") if opener else open(path, "rb")  # type: ignore
    except OSError as error:
        raise LogUnreadable(
            f"{path}: {error.strerror}; run the command as root"
        ) from error


def packed_lines(log: IO[bytes], path: str) -> Iterator[bytes]:
    """Yield the lines of an open log file; path is for the error message."""
    try:
        yield from log
    except CORRUPTION_ERRORS as error:
        raise LogUnreadable(
            f"{path}: {error}; repair the file or move it away"
        ) from error


def stat_file(path: str) -> os.stat_result:
    """Return the stat result of a log file."""
    try:
        return os.stat(path)
    except OSError as error:
        raise LogUnreadable(f"{path}: {error.strerror}") from error
