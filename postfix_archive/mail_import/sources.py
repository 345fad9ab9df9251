"""Finds the messages in files and directories, whatever kind of source they are.

Used by mail_import/run. The kind of a file is seen in its first bytes, not in its name:
mbox, Outlook file, zip, gzip (a copy of a store), batch of SMTP commands, the stream of
pilerexport, a single message. In a directory every file is read, in a Maildir those of
cur/ and new/. What cannot be read is reported, one line each, and the rest is read.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from postfix_archive.errors import ImportFailed
from postfix_archive.mail_import import (
    batch_reader,
    export_manifest,
    mbox_reader,
    pst,
    source_message,
)
from postfix_archive.mail_import.export_manifest import ExportManifests
from postfix_archive.mail_import.source_message import SourceMessage
from postfix_archive.message.envelope import Recipient

SNIFF_SIZE = 4096  # bytes
BLOCK_SIZE = 1 << 16  # bytes
PILER_MARK = b"x-exported-by-pilerexport: start\n"  # pilerexport of Piler, to stdout
BATCH_START = re.compile(rb"(?i)(EHLO|HELO|MAIL FROM:)")
HEADER_START = re.compile(rb"[!-9;-~]+[ \t]*:")
MAILDIR = ("cur", "new")
# Files of mail servers beside the messages, of stores, and of the search index, which
# by default is in the store.
NO_MAIL = re.compile(
    r"dovecot.*|maildirfolder|maildirsize|subscriptions|courierimap.*"
    r"|.*\.outcome(-\d+)?\.eml\.gz"
    r"|index\.lock|state\.json|\d{4}\.db(-shm|-wal)?"
)
# An archive of a store has one of these files, and its copies in directories of a year.
JOURNAL_FILES = {"journal.last", "journal.lock"}
YEAR = re.compile(r"\d{4}")
READ_ERRORS = (OSError, ImportFailed, zipfile.BadZipFile, EOFError, zlib.error)


class Sources:
    """The messages below some paths; iterating closes nothing but files.

    report is called with a line about each thing that cannot be read, progress with the
    bytes that were read since its last call.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        spool_directory: str,
        *,
        report: Callable[[str], None],
        progress: Callable[[int], None],
        owner: tuple[int, int],
    ) -> None:
        """owner: user and group id as whom programs read what others have made."""
        self._paths = list(paths)
        self._spool_directory = spool_directory
        self._report = report
        self._progress = progress
        self._owner = owner
        self.manifests = ExportManifests()

    def __iter__(self) -> Iterator[SourceMessage]:
        for path in self._paths:
            yield from self._below(path, is_given=True)

    def _below(self, path: Path, *, is_given: bool = False) -> Iterator[SourceMessage]:
        """Yield the messages of a file, or of all files below a directory."""
        try:
            mode = path.stat().st_mode if is_given else path.lstat().st_mode
            names = sorted(os.listdir(path)) if stat.S_ISDIR(mode) else []
        except OSError as error:
            self._fail(path, error)
            return
        if stat.S_ISREG(mode):
            yield from self._file(path)
            return
        if not stat.S_ISDIR(mode):
            self._report(f"{path}: not a file or directory")
            return
        if export_manifest.FILE_NAME in names:
            self._read_manifest(path / export_manifest.FILE_NAME)
            names = [e for e in names if e not in export_manifest.OTHER_FILES]
        if not JOURNAL_FILES.isdisjoint(names):
            names = [each for each in names if YEAR.fullmatch(each)]
        is_maildir = set(MAILDIR) <= set(names)
        for name in names:
            if is_maildir and name == "tmp":
                continue
            if is_maildir and name not in MAILDIR and not (path / name).is_dir():
                continue
            if not NO_MAIL.fullmatch(name):
                yield from self._below(path / name)

    def _file(self, path: Path) -> Iterator[SourceMessage]:
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            with open(os.open(path, flags), "rb") as file:
                done = 0
                for message in self._messages(file, path):
                    yield message
                    # of a compressed file it is the position in its content
                    position = min(file.tell(), os.fstat(file.fileno()).st_size)
                    self._progress(max(0, position - done))
                    done = max(done, position)
                self._progress(max(0, os.fstat(file.fileno()).st_size - done))
        except READ_ERRORS as error:
            self._fail(path, error)

    def _messages(self, file: BinaryIO, path: Path) -> Iterator[SourceMessage]:
        start = file.read(SNIFF_SIZE)
        file.seek(0)
        is_in_maildir = path.parent.name in MAILDIR
        is_single = is_in_maildir or path.suffix == ".eml"
        if start.startswith(pst.MAGIC):
            yield from self._outlook_file(path)
        elif start.startswith(b"PK\x03\x04"):
            yield from self._zip_file(file, path)
        elif start.startswith(b"\x1f\x8b"):
            with gzip.open(file) as content:
                yield self._single(iter(lambda: content.read(BLOCK_SIZE), b""), path)
        elif start.startswith(PILER_MARK):
            yield from self._piler_stream(file, path)
        elif start.startswith(b"From ") and not is_single:
            yield from self._mbox(file, path)
        elif BATCH_START.match(start) and not is_single:
            yield from self._batch(file, path)
        elif is_single or HEADER_START.match(start):
            if not start:
                raise ImportFailed("the file is empty")
            kind = "Maildir" if is_in_maildir else "file"
            yield self._single(_blocks(file), path, kind)
        else:
            raise ImportFailed("not a message, and no other kind of mail file")

    def _single(
        self, pieces: Iterable[bytes], path: Path, kind: str = "file"
    ) -> SourceMessage:
        content = source_message.read(pieces, self._spool_directory)
        return SourceMessage(content, kind, str(path))

    def _mbox(self, file: BinaryIO, path: Path) -> Iterator[SourceMessage]:
        for each in mbox_reader.messages(file, self._spool_directory):
            yield SourceMessage(
                each.content,
                "mbox",
                f"{path}, message {each.number}",
                sender=each.sender,
                arrival=each.arrival,
                is_cut=each.is_cut,
            )

    def _batch(self, file: BinaryIO, path: Path) -> Iterator[SourceMessage]:
        for each in batch_reader.messages(file, self._spool_directory):
            yield SourceMessage(
                each.content,
                "batch",
                f"{path}, message {each.number}",
                sender=each.sender,
                recipients=tuple(map(Recipient, each.recipients)),
                is_cut=each.is_cut,
            )

    def _piler_stream(self, file: BinaryIO, path: Path) -> Iterator[SourceMessage]:
        file.readline()
        number, is_last = 0, False
        while not is_last:
            lines = _Lines(file, PILER_MARK)
            content = source_message.read(lines.pieces(), self._spool_directory)
            number, is_last = number + 1, lines.is_last
            yield SourceMessage(content, "pilerexport", f"{path}, message {number}")

    def _zip_file(self, file: BinaryIO, path: Path) -> Iterator[SourceMessage]:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if export_manifest.FILE_NAME in names:
                with archive.open(export_manifest.FILE_NAME) as manifest:
                    self.manifests.read(manifest)
            for name in names:
                if name.endswith("/") or name in export_manifest.OTHER_FILES:
                    continue
                try:
                    with archive.open(name) as content:
                        pieces = iter(lambda: content.read(BLOCK_SIZE), b"")
                        spooled = source_message.read(pieces, self._spool_directory)
                except (*READ_ERRORS, RuntimeError) as error:
                    self._fail(path / name, error)
                    continue
                yield SourceMessage(spooled, "zip", f"{path}, {name}")

    def _outlook_file(self, path: Path) -> Iterator[SourceMessage]:
        directory = Path(tempfile.mkdtemp(prefix="import-", dir=self._spool_directory))
        try:
            if not os.geteuid():
                os.chown(directory, *self._owner)
            pst.extract(path, directory)
            for each in sorted((directory / "messages").rglob("*.eml")):
                with open(os.open(each, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                    lines = pst.stable_lines(file)
                    content = source_message.read(lines, self._spool_directory)
                name = each.relative_to(directory / "messages")
                yield SourceMessage(content, "Outlook file", f"{path}, {name}")
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _read_manifest(self, path: Path) -> None:
        with contextlib.suppress(OSError), path.open("rb") as file:
            self.manifests.read(file)

    def _fail(self, path: Path, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        self._report(f"{path}: {reason or error}")


class _Lines:
    """The lines up to a mark; ``is_last`` is true if the file ended first."""

    def __init__(self, file: BinaryIO, mark: bytes) -> None:
        self._file = file
        self._mark = mark
        self.is_last = True

    def pieces(self) -> Iterator[bytes]:
        for line in iter(self._file.readline, b""):
            if line == self._mark:
                self.is_last = False
                return
            yield line


def size_below(paths: Iterable[Path]) -> int:
    """Return the bytes of all files below these paths, for a progress bar."""
    total = 0
    for path in paths:
        if path.is_file():
            total += path.stat().st_size
        for directory, _, names in os.walk(path):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(f"{directory}/{name}").st_size
    return total


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(BLOCK_SIZE), b"")
