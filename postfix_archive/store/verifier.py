#!/usr/bin/env python3
"""Verify a store of postfix_archive: every journal line and every file.

A single file that needs only Python's standard library. An auditor runs it without
installing postfix_archive, on the store or on a copy of it:

    python3 -I verify_archive.py /var/lib/postfix-archive

For each archive it checks that
* the journal's lines are complete, numbered in sequence and chained by SHA-256, up
  to the last line (journal.last);
* each file has the SHA-256 from the journal and can be decompressed to its end;
* the original in each archive copy has the SHA-256 and size from the journal;
* no file is missing from the store or from the journal.
With --sealed it also checks that a journal still has a line that it had earlier: give
the SHA-256 that an earlier run printed. It changes nothing.

Exit codes: 0 no errors (a note is no error: a crash can cause it), 2 errors, one line
for each, 3 the store cannot be read or the output not be written. docs/store-format.md
specifies the format.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

JOURNAL, JOURNAL_END, DRAFTS = "journal", "journal.last", "drafts"
JOURNAL_END_DRAFT = ".journal.last."  # and random digits
ARCHIVED, OUTCOME_REPORT = "archived", "outcome-report"  # events that name a file
FIRST_PREV = "0" * 64
NUMBER_DIGITS = 18  # enough for any journal
BLOCK_SIZE = 1 << 16  # bytes
GZIP_WBITS = 31  # wbits of zlib: gzip format (RFC 1952)
HEAD_LIMIT = 16 << 20  # bytes of a copy before the original
REPORT_LIMIT = 256 << 20  # bytes of an outcome report: 100,000 recipients
TRAILER_LIMIT = 1 << 10  # bytes of a copy after the original
LOCK_TIMEOUT = 30.0  # seconds; a process that writes has the lock for milliseconds
EXIT_OK, EXIT_ERRORS, EXIT_UNREADABLE = 0, 2, 3  # of monitoring plugins


@dataclass(frozen=True)
class Finding:
    """One error, or one note: something unusual that a crash can cause."""

    location: str
    problem: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'ERROR'}: {self.location}: {self.problem}"


@dataclass
class Verification:
    """The state of one archive: its journal, its files by name, all findings."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    line_count: int = 0
    last_sha256: str = FIRST_PREV  # SHA-256 of the last line
    sealed: set[str] = field(default_factory=set)  # SHA-256 that a line has

    def add_error(self, location: str, problem: str) -> None:
        """Add an error."""
        self.findings.append(Finding(location, problem))

    def add_note(self, location: str, problem: str) -> None:
        """Add a note."""
        self.findings.append(Finding(location, problem, True))

    @property
    def error_count(self) -> int:
        """The number of errors."""
        return sum(not each.is_note for each in self.findings)


def _no_progress(done: int, total: int) -> None:
    """Show no progress."""


def archives(store: str) -> list[str]:
    """Return the addresses of the archives in a store. Raises OSError."""
    return sorted(each for each in os.listdir(store) if "@" in each)


def verify_archive(
    directory: str,
    progress: Callable[[int, int], None] = _no_progress,
    sealed: Collection[str] = (),
) -> Verification:
    """Verify the archive in a directory; return its state and the findings.

    Calls progress(done, total) after each file. ``sealed`` of the result are those of
    the given SHA-256 that a line has. Raises OSError.

    Files are listed first: each has its line by the time at which the journal's size is
    read, except those of a crash. Later files are looked up by the names in the lines.
    """
    listed_files = dict(_list_files(directory))
    result = _read_journal(directory, sealed, has_files=bool(listed_files))
    for name in sorted(set(result.files) - set(listed_files)):
        try:
            listed_files[name] = os.lstat(f"{directory}/{name}")
        except OSError:
            result.add_error(
                f"{directory}/{name}", "in the journal, but the file is missing"
            )
    for done, (name, file_stat) in enumerate(listed_files.items(), 1):
        if name in result.files:
            _check_file(result, f"{directory}/{name}", file_stat, result.files[name])
        elif (
            stat.S_ISREG(file_stat.st_mode)
            and file_stat.st_mode & 0o200
            and _is_file_name(name)
        ):
            text = "not committed (crash); the retry of this message commits it"
            result.add_note(f"{directory}/{name}", text)
        else:
            result.add_error(f"{directory}/{name}", "the file is not in the journal")
        progress(done, len(listed_files))
    return result


def _read_journal(
    directory: str, sealed: Collection[str], *, has_files: bool
) -> Verification:
    """Read and check the whole journal of an archive, up to its present end."""
    result = Verification()
    path = f"{directory}/{JOURNAL}"
    number = 0
    torn_lines: list[int] = []
    is_end_found = False
    try:
        file = open(path, "rb", opener=_open_no_follow)
    except FileNotFoundError:
        if _read_journal_end(directory, result) or has_files:
            result.add_error(path, "the journal is missing")
        return result
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            result.add_error(path, "not a regular file")
            return result
        with _shared_lock(file):
            size = os.fstat(file.fileno()).st_size
            journal_end = _read_journal_end(directory, result)
        for line in _lines(file, size):
            result.line_count += 1
            location = f"{path}, line {result.line_count}"
            text = line.removesuffix(b"\n")
            event = _parse_event(text)
            if event is None:
                torn_lines.append(result.line_count)
            else:
                number = _check_chain(result, location, event, number)
                if line.endswith(b"\n"):  # else it was not acknowledged
                    _add_file(result, location, event)
            result.last_sha256 = hashlib.sha256(text).hexdigest()
            if result.last_sha256 in sealed:
                result.sealed.add(result.last_sha256)
            if not line.endswith(b"\n"):
                result.add_note(location, "truncated line")
            if (
                journal_end
                and number == journal_end[0]
                and result.last_sha256 == journal_end[1]
            ):
                is_end_found = True
    for line_number in torn_lines:
        finding = "not a journal line: torn by a crash, or damaged"
        result.add_note(f"{path}, line {line_number}", finding)
    if journal_end and not is_end_found:
        finding = f"line {journal_end[0]} was written, but is missing or changed"
        result.add_error(path, finding)
    if not journal_end and result.line_count:
        finding = "missing; without it, a truncated journal is not detected"
        result.add_note(f"{directory}/{JOURNAL_END}", finding)
    return result


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the lines in the first bytes of a file."""
    while size > 0:
        line = file.readline(size)
        if not line:
            return
        size -= len(line)
        yield line


def _read_journal_end(directory: str, result: Verification) -> tuple[int, str] | None:
    """Return the number and SHA-256 in journal.last, None if missing or damaged."""
    path = f"{directory}/{JOURNAL_END}"
    try:
        with open(path, "rb", opener=_open_no_follow) as file:
            content = file.read(4 * BLOCK_SIZE)
    except FileNotFoundError:
        return None
    fields = content.decode("latin-1").removesuffix("\n").split(" ")
    checksum = hashlib.sha256(" ".join(fields[:2]).encode("latin-1")).hexdigest()
    if len(fields) == 3 and fields[2] == checksum and content.endswith(b"\n"):
        if fields[0].isdecimal() and len(fields[0]) <= NUMBER_DIGITS:
            return int(fields[0]), fields[1]
    result.add_error(path, "damaged")
    return None


def _parse_event(text: bytes) -> dict[str, Any] | None:
    """Return the event in a line, None for anything else."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    number = event.get("seq")
    has_number = isinstance(number, int) and number < 10**NUMBER_DIGITS
    has_strings = isinstance(event.get("prev"), str) and isinstance(
        event.get("event"), str
    )
    return event if has_number and has_strings else None


def _check_chain(
    result: Verification, location: str, event: dict[str, Any], previous: int
) -> int:
    """Check ``seq`` and ``prev`` of an event; return ``seq``."""
    number = int(event["seq"])
    if event["prev"] != result.last_sha256:
        text = "prev is not the SHA-256 of the line before"
        result.add_error(location, text)
    if number <= previous:
        result.add_error(location, f"seq {number} follows {previous}")
    elif number != previous + 1:
        missing = f"{previous + 1}" + (
            f" to {number - 1}" if number > previous + 2 else ""
        )
        result.add_error(location, f"seq {missing} missing before this line")
    return number


def _add_file(result: Verification, location: str, event: dict[str, Any]) -> None:
    if event["event"] not in (ARCHIVED, OUTCOME_REPORT):
        return
    name = event.get("file")
    if not isinstance(name, str) or not _is_file_name(name):
        result.add_error(location, "invalid file name")
    elif name in result.files:
        result.add_error(location, f"{name} is in an earlier line already")
    else:
        result.files[name] = event


def _is_file_name(name: str) -> bool:
    parts = name.split("/")
    return name.endswith(".eml.gz") and not {"", ".", ".."} & set(parts)


def _list_files(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all files of an archive except its journal and its drafts."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(f"{directory}/{prefix}") as iterator:
            entries = sorted(iterator, key=lambda entry: entry.name, reverse=True)
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if name in (JOURNAL, JOURNAL_END, DRAFTS):
                continue
            if name.startswith(JOURNAL_END_DRAFT):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{name}/")
            else:
                yield name, entry.stat(follow_symlinks=False)


def _check_file(
    result: Verification, path: str, file_stat: os.stat_result, event: dict[str, Any]
) -> None:
    """Check one file of the store against its journal event."""
    if not stat.S_ISREG(file_stat.st_mode):
        result.add_error(path, "not a regular file")
        return
    if file_stat.st_mode & 0o077:
        result.add_error(
            path, f"mode {file_stat.st_mode & 0o777:o}: accessible to other users"
        )
    try:
        file_sha256, size, original_sha256, defect = _read_digests(
            path, file_stat.st_size, event
        )
    except OSError as error:
        result.add_error(path, str(error.strerror))
        return
    if file_sha256 and file_sha256 != event.get("file_sha256"):
        result.add_error(path, "SHA-256 differs from the journal")
    if defect:
        result.add_error(path, defect)
    elif event["event"] == OUTCOME_REPORT:
        return  # has no original
    elif (size, original_sha256) != (event.get("size"), event.get("sha256")):
        result.add_error(
            path, "SHA-256 or size of the original differs from the journal"
        )


def _read_digests(
    path: str, file_size: int, event: dict[str, Any]
) -> tuple[str, int, str, str]:
    """Return the file's SHA-256, the original's size and SHA-256, and the error.

    A file that is too large for its event is not read to its end.
    """
    expected_size = event.get("size")
    size_limit = expected_size if isinstance(expected_size, int) else 0
    content_limit = HEAD_LIMIT + size_limit + TRAILER_LIMIT
    if event["event"] == OUTCOME_REPORT:
        content_limit = REPORT_LIMIT
    if file_size > content_limit + content_limit // 1000:  # more than gzip can add
        return "", 0, "", f"{file_size} bytes: larger than what the journal names"
    file = _StoredFile(path)
    chunks = file.decompress(content_limit)
    size, original_sha256 = 0, hashlib.sha256()
    head, start = _read_head(chunks)
    for chunk in chain((head[start:],) if start >= 0 else (), chunks):
        if start >= 0:
            original_sha256.update(chunk[: size_limit - size])
            size += len(chunk[: size_limit - size])
    defect = file.defect or ("no original in this file" if start < 0 else "")
    return file.sha256.hexdigest(), size, original_sha256.hexdigest(), defect


class _StoredFile:
    """A file of the store; SHA-256 and error are valid after decompress() has ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.sha256 = hashlib.sha256()
        self.defect = ""

    def decompress(self, limit: int) -> Iterator[bytes]:
        """Yield the uncompressed content; read to the end even after an error.

        More bytes than limit are an error.
        """
        decompressor = zlib.decompressobj(GZIP_WBITS)
        with open(self._path, "rb", opener=_open_no_follow) as file:
            while block := file.read(BLOCK_SIZE):
                self.sha256.update(block)
                while block and not decompressor.eof and not self.defect:
                    try:
                        chunk = decompressor.decompress(block, BLOCK_SIZE)
                    except zlib.error as error:
                        chunk, self.defect = b"", f"gzip: {error}"
                    limit -= len(chunk)
                    if limit < 0:
                        self.defect = "decompresses to more than the journal names"
                    yield chunk
                    block = decompressor.unconsumed_tail or decompressor.unused_data
                if block and decompressor.eof and not self.defect:
                    self.defect = "data after the end of the gzip stream"
        if not self.defect and not decompressor.eof:
            self.defect = "truncated gzip file"


def _read_head(chunks: Iterator[bytes]) -> tuple[bytes, int]:
    """Return the first bytes of a copy and the original's offset in them, or -1.

    Searches again only when the size has doubled: the time stays linear.
    """
    buffered: list[bytes] = []
    size = next_search_size = 0
    for chunk in chunks:
        buffered.append(chunk)
        size += len(chunk)
        if size < next_search_size:
            continue
        buffered = [b"".join(buffered)]
        start = _original_start(buffered[0])
        if start >= 0 or size > HEAD_LIMIT:
            return buffered[0], start
        next_search_size = 2 * size
    head = b"".join(buffered)
    return head, _original_start(head)


def _original_start(head: bytes) -> int:
    """Return the offset of the third part's body, -1 if it is not in head."""
    end = head.find(b"\r\n\r\n")
    # rpartition: the sender controls the Subject, which comes before Content-Type.
    _, boundary_start, rest = head[: max(0, end)].rpartition(b'boundary="')
    delimiter = b"\r\n--" + rest.partition(b'"')[0] + b"\r\n"
    position = 0
    for _ in range(3):
        position = head.find(delimiter, position + 1) if boundary_start else -1
        if position < 0:
            return -1
    start = head.find(b"\r\n\r\n", position + len(delimiter) - 2)
    return start + 4 if start >= 0 else -1


def _open_no_follow(path: str, flags: int) -> int:
    # O_NONBLOCK: opening a FIFO would block.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


@contextlib.contextmanager
def _shared_lock(file: BinaryIO) -> Iterator[None]:
    """Hold a shared lock on the journal, if its file system has locks.

    Only for a moment: mail waits for it. Raises OSError after LOCK_TIMEOUT.
    """
    _wait_for_lock(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def _wait_for_lock(file: BinaryIO) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                problem = (
                    f"locked for {LOCK_TIMEOUT:.0f} s by a process that writes it;"
                    " fuser -v shows which"
                )
                raise BlockingIOError(error.errno, problem, file.name) from None
        except OSError:
            return
        time.sleep(0.05)


def main(arguments: list[str] | None = None) -> int:
    """Verify a store, print the findings, return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="directory of the store, or of one archive")
    parser.add_argument(
        "--sealed",
        action="append",
        default=[],
        metavar="HASH",
        help="SHA-256 of a line that a journal must have; may be repeated",
    )
    options = parser.parse_args(arguments)
    try:
        lines, exit_code = _verify_store(
            options.store.rstrip("/") or "/", options.sealed
        )
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_UNREADABLE
    try:
        for line in lines:
            print("".join(c if c.isprintable() else "?" for c in line))
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"standard output: {error.strerror}", file=sys.stderr)
        return EXIT_UNREADABLE
    return exit_code


def _verify_store(store: str, sealed: list[str]) -> tuple[list[str], int]:
    """Return the lines to print about all archives, and the exit code."""
    is_archive = os.path.lexists(f"{store}/{JOURNAL}")
    directories = [store] if is_archive else [f"{store}/{e}" for e in archives(store)]
    if not directories:
        return [f"{store}: no archive in this directory"], EXIT_UNREADABLE
    progress = _print_progress if sys.stderr.isatty() else _no_progress
    lines, exit_code, missing = [], EXIT_OK, set(sealed)
    for directory in directories:
        result = verify_archive(directory, progress, sealed)
        missing -= result.sealed
        exit_code = EXIT_ERRORS if result.error_count else exit_code
        lines += [*map(str, result.findings), f"{directory}: {summary(result)}"]
    for sha256 in sorted(missing):
        lines.append(f"ERROR: {store}: {missing_seal(sha256)}")
        exit_code = EXIT_ERRORS
    return lines, exit_code


def missing_seal(sha256: str) -> str:
    """Return the problem that no journal has a line with this SHA-256."""
    return f"no journal line has the SHA-256 {sha256}: cut, replaced or changed"


def summary(result: Verification) -> str:
    """Return one line about an archive, with the SHA-256 of its last journal line."""
    plural = "" if result.error_count == 1 else "s"
    status = f"{result.error_count} error{plural}" if result.error_count else "OK"
    return (
        f"{len(result.files)} files, {result.line_count} lines, last"
        f" {result.last_sha256}: {status}"
    )


def _print_progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{done} of {total} files", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
