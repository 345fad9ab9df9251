#!/usr/bin/env python3
"""Verify a store of postfix_archive: every journal line and every file.

A single file that needs only Python's standard library. An auditor runs it without
installing postfix_archive, on the store or on a copy of it:

    python3 -I verify_archive.py /var/lib/postfix-archive

For each archive it checks that
* the journal's lines are complete, numbered in sequence and chained by SHA-256, up
  to the last line (journal.last), each with its details, or these are struck out and
  a later line says why; its segments are of this archive, and none is missing;
* no message was removed while a hold named its id, none erased but by two people, and
  none purged of which no earlier line says how long it is kept;
* the access journal has who has requested and approved each erasure, and who has
  released each hold;
* each file has the SHA-256 from the journal and can be decompressed to its end;
* the original in each archive copy has the SHA-256 and size from the journal;
* no file is missing from the store or from the journal; of a copy that is in the object
  storage alone the header is here, as the journal says (what is there it cannot read);
* each journal still has, at the same position, the line at which it was sealed, and no
  seal is missing (docs/sealing.md). The signatures of the seals it does not check, but
  prints the openssl command that does.
With --sealed it also checks that a journal still has a line that it had earlier: give
the hash that an earlier run printed; with --seal-file, the seals that somebody kept
elsewhere. It changes nothing.

Exit codes: 0 no errors (a note is no error: a crash can cause it), 2 errors, one line
for each, 3 the store cannot be read or the output not be written. docs/store-format.md
specifies the format.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import stat
import sys
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

FORMAT = 2
JOURNAL, ACCESS, DRAFTS = "journal", "access", "drafts"
JOURNALS = (JOURNAL, ACCESS)  # directories; access has who read the archive
LAST, LOCK = ".last", ".lock"  # suffixes of files beside a journal
OWN_NAMES = {DRAFTS, *(e + suffix for e in JOURNALS for suffix in ("", LAST, LOCK))}
OWN_DRAFTS = tuple(f".{each}{LAST}." for each in JOURNALS)  # and random digits
SEGMENT_NAME = re.compile(r"\d{4}-\d{2}", re.ASCII)
ARCHIVED, OUTCOME_REPORT = "archived", "outcome-report"  # events that name a file
SEGMENT = "segment"
REMOVAL_EVENTS = ERASED, PURGED = "erased", "purged"
MOVED = "moved"  # a copy is in the object storage alone, its header is here
RETENTION = "retention"  # notes how long a record is kept; none is purged without
HOLD_SET, HOLD_RELEASED = "hold-set", "hold-released"
ERASE_REQUESTED, ERASE_WITHDRAWN = "erase-requested", "erase-withdrawn"
ACCESSED = "access"  # event of the access journal
# What an access journal has of a decision before the journal has it.
ERASE_REQUEST, ERASE_APPROVE, RELEASE = "erase request", "erase approve", "release"
NO_UID = "-1"  # of a user of the web page without an account at the host
SEALS, SEALED = "seals", "sealed"  # directory in the store; event
SEAL_NAME = re.compile(r"(\d{6,18})-\d{8}T\d{6}Z\.json", re.ASCII)
SEAL_FORMAT = 1
SEAL_LIMIT = 64 << 20  # bytes: 100,000 archives
# Those of whose details more than the digest is checked.
READ_EVENTS = {ARCHIVED, OUTCOME_REPORT, SEALED, HOLD_SET, HOLD_RELEASED}
READ_EVENTS |= {ERASE_REQUESTED, ERASED, MOVED}
FIRST_PREV = "0" * 64
READ_ATTEMPTS = 3  # of journal.last
NUMBER_DIGITS = 18  # enough for any journal
BLOCK_SIZE = 1 << 16  # bytes
GZIP_WBITS = 31  # wbits of zlib: gzip format (RFC 1952)
HEAD_LIMIT = 16 << 20  # bytes of a copy before the original
REPORT_LIMIT = 256 << 20  # bytes of an outcome report: 100,000 recipients
TRAILER_LIMIT = 1 << 10  # bytes of a copy after the original
EXIT_OK, EXIT_ERRORS, EXIT_UNREADABLE = 0, 2, 3  # of monitoring plugins


@dataclass(frozen=True)
class Finding:
    """One error, or one note: something unusual that a crash can cause."""

    location: str
    problem: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'ERROR'}: {self.location}: {self.problem}"


class StoredFile(NamedTuple):
    """A file as the journal has it; without ``is_known`` size and SHA-256 are unknown.

    ``number`` is that of its line, ``size`` and ``sha256`` are those of the original.
    ``local_sha256`` is that of the file with the header alone, if it was moved to the
    object storage, else "".
    """

    number: int
    record_id: str
    file_sha256: str
    is_report: bool
    is_known: bool
    size: object
    sha256: object
    local_sha256: str = ""


class Head(NamedTuple):
    """The last line of a journal at the time of a seal; all but number 0 has one.

    start and end are the line's position in bytes from the first segment's start.
    """

    archive: str
    journal: str  # JOURNAL or ACCESS
    segment: str
    seq: int
    sha256: str
    lines: int
    start: int
    end: int
    time: str


class Seal(NamedTuple):
    """A seal: where every journal of a store ended, and the hash of the seal before.

    sha256 is that of the file, which RFC 3161 authorities have time-stamped. keys
    are digests of the site keys by key id.
    """

    name: str
    sha256: str
    number: int
    previous: str
    time: str
    authorities: tuple[str, ...]
    keys: dict[str, str]
    heads: tuple[Head, ...]


@dataclass
class Verification:
    """The state of one archive: its journal, its files by name, all findings.

    The hash of a line is the SHA-256 of its first part. ``unnamed_count`` is the number
    of files that no line names, ``moved_count`` that of copies in the object storage
    alone, of which the header is here. ``present`` maps the id of a record to the
    number of its last line with details or 0, ``removed`` that of one that was removed
    to the number of the line that says so; after that it may be archived again.
    ``struck_out`` maps an id to lines whose details are struck out without such a line.
    ``holds`` maps the name of an open hold to the ids in it (what a query finds is not
    known here), ``requests`` the id of a record to the number of the line that requests
    its erasure, and who requests it, where that is not struck out. ``noted`` has the
    ids of records of which a line says how long they are kept. ``decisions`` maps a
    kind of decision and what it is about to the lines that have it. ``ends`` maps the
    name of a segment to the position behind its last complete line that was read,
    ``removed_meanwhile`` has the ids of records that were removed after that,
    ``moved_meanwhile`` the SHA-256 of what was left of copies that were moved.
    """

    files: dict[str, StoredFile] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    line_count: int = 0
    last_number: int = 0
    last_sha256: str = FIRST_PREV  # hash of the last line
    is_last_line_ended: bool = True
    sealed: set[str] = field(default_factory=set)  # hashes asked for that a line has
    unnamed_count: int = 0
    moved_count: int = 0
    access_line_count: int = 0
    archive: str = ""  # according to the first segment
    journal_end: tuple[int, str] | None = None  # number and hash in journal.last
    is_end_found: bool = False
    present: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    struck_out: dict[str, list[str]] = field(default_factory=dict)
    holds: dict[str, set[str]] = field(default_factory=dict)
    requests: dict[str, tuple[int, str]] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)
    decisions: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    journal: str = ""  # path
    ends: dict[str, int] = field(default_factory=dict)
    removed_meanwhile: set[str] = field(default_factory=set)
    moved_meanwhile: set[str] = field(default_factory=set)
    position: int = 0  # bytes read
    # Heads in seals, with the seal's name: by the position where they must end.
    heads: dict[int, list[tuple[str, Head]]] = field(default_factory=dict)
    lost_heads: list[tuple[str, Head]] = field(default_factory=list)
    seal_events: dict[str, str] = field(default_factory=dict)  # name of seal: SHA-256

    def is_removed(self, name: str) -> bool:
        """Return whether the journal says that this file of it was removed."""
        file = self.files[name]
        return self.removed.get(file.record_id, 0) > file.number

    def is_gone(self, record_id: str) -> bool:
        """Return whether a record was removed and not archived again, so far."""
        return record_id in self.removed and record_id not in self.present

    def add_error(self, location: str, problem: str) -> None:
        """Add an error."""
        self.findings.append(Finding(location, problem))

    def add_note(self, location: str, problem: str) -> None:
        """Add a note."""
        self.findings.append(Finding(location, problem, True))

    def add_decision(self, kind: str, name: str, location: str) -> None:
        """Add a line with a decision."""
        self.decisions.setdefault((kind, name), []).append(location)

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
    seals: Collection[Seal] = (),
) -> Verification:
    """Verify the archive in a directory; return its state and the findings.

    Calls progress(done, total) after each file. ``sealed`` of the result are those of
    the given SHA-256 that a line has. Its journals must have what the seals have of the
    archive with the directory's name. Raises OSError.

    Files are listed first: each has its line by the time at which the journal's size is
    read, except those of a crash. Later files are looked up by the names in the lines.
    What is removed meanwhile is no error: the lines behind that size name it.
    """
    listed_files = dict(_list_files(directory))
    result = _read_journal(f"{directory}/{JOURNAL}", sealed, seals, bool(listed_files))
    access = _read_journal(f"{directory}/{ACCESS}", sealed, seals)
    result.findings += access.findings
    result.sealed |= access.sealed
    result.access_line_count = access.line_count
    _check_decisions(result, access)
    for name in sorted(set(result.files) - set(listed_files)):
        try:
            listed_files[name] = os.lstat(f"{directory}/{name}")
        except OSError:
            record_id = result.files[name].record_id
            if not (
                result.is_removed(name) or _is_removed_meanwhile(result, record_id)
            ):
                result.add_error(
                    f"{directory}/{name}", "in the journal, but the file is missing"
                )
    for done, (name, file_stat) in enumerate(listed_files.items(), 1):
        if name in result.files:
            if not result.is_removed(name):
                _check_file(
                    result, f"{directory}/{name}", file_stat, result.files[name]
                )
            elif os.path.lexists(f"{directory}/{name}"):  # it was when they were listed
                text = "removed according to the journal, but the file is still there"
                result.add_note(f"{directory}/{name}", text)
        else:
            _report_unnamed(result, directory, name, file_stat)
        progress(done, len(listed_files))
    return result


def _check_decisions(result: Verification, access: Verification) -> None:
    """Report decisions in the journal that the access journal does not have.

    It was read later, and has them first.
    """
    for (kind, name), locations in result.decisions.items():
        count = len(access.decisions.get((kind, name), ()))
        for location in locations[count:]:
            text = f"{kind} {name}: the access journal does not have who has done that"
            result.add_error(location, text)


def verify_access(directory: str) -> Verification:
    """Verify the access journal of the archive in a directory. Raises OSError."""
    return _read_journal(f"{directory}/{ACCESS}", ())


def _report_unnamed(
    result: Verification, directory: str, name: str, file_stat: os.stat_result
) -> None:
    """Count and name a file that no line of the journal names."""
    result.unnamed_count += 1
    is_writable = stat.S_ISREG(file_stat.st_mode) and file_stat.st_mode & 0o200
    if is_writable and _is_file_name(name):
        text = (
            "not in the journal: left by a crash, and the retry of this message commits"
            " it; or added by somebody"
        )
        result.add_note(f"{directory}/{name}", text)
    else:
        result.add_error(f"{directory}/{name}", "the file is not in the journal")


def _read_journal(
    path: str,
    sealed: Collection[str],
    seals: Collection[Seal] = (),
    has_files: bool = False,
) -> Verification:
    """Read and check a whole journal, up to its present end."""
    result = Verification(journal=path)
    archive, name = os.path.abspath(path).split("/")[-2:]
    for seal in seals:
        for head in seal.heads:
            if head.end and (head.archive, head.journal) == (archive, name):
                result.heads.setdefault(head.end, []).append((seal.name, head))
    _read_lines(result, path, sealed, has_files)
    _report_lost_heads(result, path)
    return result


def _read_lines(
    result: Verification, path: str, sealed: Collection[str], has_files: bool
) -> None:
    """Check the lines of a journal."""
    try:
        # In this order, without a lock: a line is written before journal.last names it.
        result.journal_end = _read_journal_end(path, result)
        segments = _list_segments(path, result)
    except FileNotFoundError:
        if result.journal_end or has_files:
            result.add_error(path, "the journal is missing")
        return
    except NotADirectoryError:
        text = "a journal of store format 1, which this program does not verify"
        is_file = stat.S_ISREG(os.lstat(path).st_mode)
        result.add_error(path, text if is_file else "not a directory")
        return
    for name, size in segments:
        _read_segment(result, path, name, size, sealed)
        if name != segments[-1][0] and not result.is_last_line_ended:
            result.add_error(f"{path}/{name}", "the last line has no line end")
    _report_end(result, path)


def _list_segments(path: str, result: Verification) -> list[tuple[str, int]]:
    """Return names and sizes of the segments that can be read."""
    segments = []
    with os.scandir(path) as iterator:
        entries = sorted(iterator, key=lambda entry: entry.name)
    for entry in entries:
        file_stat = entry.stat(follow_symlinks=False)
        if not SEGMENT_NAME.fullmatch(entry.name):
            result.unnamed_count += 1
            result.add_error(entry.path, "not a segment of the journal")
        elif not stat.S_ISREG(file_stat.st_mode):
            result.add_error(entry.path, "not a regular file")
        else:
            segments.append((entry.name, file_stat.st_size))
            if file_stat.st_nlink != 1:
                result.add_error(entry.path, "a hard link: it has a second name")
            _check_mode(result, entry.path, file_stat)
    return segments


def _read_segment(
    result: Verification, journal: str, name: str, size: int, sealed: Collection[str]
) -> None:
    """Check the lines of a segment."""
    path = f"{journal}/{name}"
    directory = os.path.dirname(journal)
    is_first = True
    with open(path, "rb", opener=_open_no_follow) as file:
        for line_number, line in enumerate(_lines(file, size), 1):
            result.line_count += 1
            location = f"{path}, line {line_number}"
            result.is_last_line_ended = line.endswith(b"\n")
            text, _, details = line.removesuffix(b"\n").partition(b"\t")
            event = _parse_event(text, len(details) if b"\t" in line else -1)
            if event is None:
                problem = "not a journal line: torn by a crash, or damaged"
                result.add_note(location, problem)
            else:
                _check_chain(result, location, event)
                if is_first != (event["event"] == SEGMENT):
                    result.add_error(location, "not the first line of a segment")
                is_first = False
                details = _check_details(result, location, event, details, file, line)
                if event["event"] == SEGMENT:
                    fields = {**_parse_details(details), "format": event.get("format")}
                    _check_segment(result, directory, name, location, fields)
                elif line.endswith(b"\n"):  # else it was not acknowledged
                    _add_event(result, location, event, details)
            result.last_sha256 = hashlib.sha256(text).hexdigest()
            result.position += len(line)
            if result.is_last_line_ended:
                result.ends[name] = file.tell()
            _check_heads(result)
            if result.last_sha256 in sealed:
                result.sealed.add(result.last_sha256)
            if (result.last_number, result.last_sha256) == result.journal_end:
                result.is_end_found = True
            if not line.endswith(b"\n"):
                result.add_note(location, "truncated line")


def _report_end(result: Verification, path: str) -> None:
    """Report what only the whole journal shows."""
    for record_id, locations in result.struck_out.items():
        if _is_removed_meanwhile(result, record_id):
            continue
        for location in locations:
            problem = f"details struck out, and no later event has removed {record_id}"
            result.add_error(location, problem)
    if result.journal_end and not result.is_end_found:
        finding = f"line {result.journal_end[0]} was written, but is missing or changed"
        result.add_error(path, finding)
    if not result.journal_end and result.line_count:
        finding = "missing; without it, a truncated journal is not detected"
        result.add_note(path + LAST, finding)


def _is_removed_meanwhile(result: Verification, record_id: str) -> bool:
    """Return whether a line that was not there yet removes a record.

    Its event is durable before details are struck out and files unlinked.
    """
    _read_new_lines(result)
    return record_id in result.removed_meanwhile


def _read_new_lines(result: Verification) -> None:
    """Note the removals and moves in lines that were not there yet."""
    last_segment = max(result.ends, default="")
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(result.journal)):
            if SEGMENT_NAME.fullmatch(name) and name >= last_segment:
                _read_new_lines_of(result, name)


def _read_new_lines_of(result: Verification, segment: str) -> None:
    """Note the removals and moves in the lines of a segment that were not read yet."""
    position = result.ends.get(segment, 0)
    with open(f"{result.journal}/{segment}", "rb", opener=_open_no_follow) as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                break
            position += len(line)
            text, _, details = line[:-1].partition(b"\t")
            event = _parse_event(text, len(details) if b"\t" in line else -1)
            if event and event["event"] in REMOVAL_EVENTS:
                result.removed_meanwhile.add(str(event.get("id")))
            elif event and event["event"] == MOVED:
                local_sha256 = _parse_details(details).get("local_sha256")
                result.moved_meanwhile.add(str(local_sha256))
    result.ends[segment] = position


def _check_heads(result: Verification) -> None:
    """Compare the line that was just read with the heads that must end here."""
    line = (result.last_sha256, result.last_number, result.line_count)
    for seal, head in result.heads.pop(result.position, ()):
        if (head.sha256, head.seq, head.lines) != line:
            result.lost_heads.append((seal, head))


def _report_lost_heads(result: Verification, path: str) -> None:
    """Report the first sealed line that a journal has lost, and count all others."""
    lost = result.lost_heads + [each for some in result.heads.values() for each in some]
    if not lost:
        return
    seal, head = min(lost, key=lambda each: (each[1].end, each[0]))
    more = f"; so are the lines of {len(lost) - 1} more seals" if len(lost) > 1 else ""
    text = f"line {head.seq}, sealed by {seal}, is missing or another one{more}"
    result.add_error(path, text)


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the lines in the first bytes of a file."""
    while size > 0:
        line = file.readline(size)
        if not line:
            return
        size -= len(line)
        yield line


def _read_journal_end(path: str, result: Verification) -> tuple[int, str] | None:
    """Return the number and SHA-256 in journal.last, None if missing or damaged.

    Read again where it is damaged: it may just be written.
    """
    path += LAST
    for _ in range(READ_ATTEMPTS):
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


def _parse_event(text: bytes, details_size: int) -> dict[str, Any] | None:
    """Return the event in the first part of a complete line, None for anything else."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or event.get("details_size") != details_size:
        return None
    number = event.get("seq")
    has_number = isinstance(number, int) and number < 10**NUMBER_DIGITS
    strings = [event.get(each) for each in ("prev", "event", "details_sha256")]
    has_strings = all(isinstance(each, str) for each in strings)
    return event if has_number and has_strings else None


def _check_chain(result: Verification, location: str, event: dict[str, Any]) -> None:
    """Check ``seq`` and ``prev`` of an event."""
    number, previous = int(event["seq"]), result.last_number
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
    result.last_number = number


def _check_details(
    result: Verification,
    location: str,
    event: dict[str, Any],
    details: bytes,
    file: BinaryIO,
    line: bytes,
) -> bytes:
    """Return the details of an event, b"" if they are struck out or damaged.

    Those struck out are kept until an event says why. The first space says so: a crash
    can leave the others. The file stands behind the line: where the details are wrong
    it is read once more, for they may be struck out between two reads.
    """
    is_right = hashlib.sha256(details).hexdigest() == event["details_sha256"]
    if not is_right:
        line = os.pread(file.fileno(), len(line), file.tell() - len(line))
        details = line.removesuffix(b"\n").partition(b"\t")[2]
    if details[:1] in (b" ", b""):
        if details.strip(b" "):
            result.add_note(location, "details struck out in part: by a crash")
        record_id = event.get("id")
        if not isinstance(record_id, str):
            result.add_error(location, "details struck out, which no event explains")
        elif not result.is_gone(record_id):
            result.struck_out.setdefault(record_id, []).append(location)
        return b""
    if is_right:
        return details
    result.add_error(location, "details changed: their SHA-256 differs")
    return b""


def _parse_details(details: bytes) -> dict[str, Any]:
    """Return the fields in details, {} if there are none."""
    with contextlib.suppress(ValueError, RecursionError):
        fields = json.loads(details)
        if isinstance(fields, dict):
            return fields
    return {}


def _check_segment(
    result: Verification,
    directory: str,
    name: str,
    location: str,
    details: dict[str, Any],
) -> None:
    """Check the first line of a segment: is it of this archive, and of this file?"""
    if details["format"] != FORMAT:
        result.add_error(location, f"store format {details['format']}, not {FORMAT}")
    archive = str(details.get("archive"))
    directory_name = os.path.basename(os.path.abspath(directory))
    # An auditor's copy of one archive may have any name without "@".
    own_name = directory_name if "@" in directory_name else result.archive or archive
    result.archive = result.archive or archive
    if archive != own_name:
        result.add_error(location, f"of the archive {archive}, not {own_name}")
    if details.get("segment") != name:
        result.add_error(location, f"of the segment {details.get('segment')}")


def _add_event(
    result: Verification,
    location: str,
    event: dict[str, Any],
    details: bytes,
) -> None:
    """Add the file that an event names; note what it removes, holds or requests."""
    record_id = str(event.get("id"))
    fields = _parse_details(details) if event["event"] in READ_EVENTS else {}
    if event["event"] == SEALED:
        result.seal_events[str(fields.get("seal"))] = str(fields.get("seal_sha256"))
    if event["event"] == ACCESSED:
        _add_access(result, location, details)
        return
    if event["event"] in REMOVAL_EVENTS:
        _check_removal(result, location, event, fields)
        _remove(result, location, record_id)
        return
    if event["event"] == ERASE_REQUESTED and record_id not in result.present:
        problem = f"requests to erase {record_id}, of which there is no earlier line"
        result.add_error(location, problem)
        return
    if event["event"] == RETENTION:
        result.noted.add(record_id)
    _add_decision(result, location, event, fields)
    if "id" in event and (event["event"] == ARCHIVED or not result.is_gone(record_id)):
        number = result.last_number if details else 0
        result.present[record_id] = number or result.present.get(record_id, 0)
    if event["event"] == MOVED:
        _move(result, location, record_id, fields)
    if event["event"] not in (ARCHIVED, OUTCOME_REPORT):
        return
    name = event.get("file")
    if not isinstance(name, str) or not _is_file_name(name):
        result.add_error(location, "invalid file name")
    elif name in result.files and not result.is_removed(name):
        result.add_error(location, f"{name} is in an earlier line already")
    else:
        result.files[name] = StoredFile(
            # 0: it came after its record was removed, and is to be removed as well.
            number=0 if result.is_gone(record_id) else result.last_number,
            record_id=record_id,
            file_sha256=str(event.get("file_sha256")),
            is_report=event["event"] == OUTCOME_REPORT,
            is_known=bool(fields),
            size=fields.get("size"),
            sha256=fields.get("sha256"),
        )


def _add_access(result: Verification, location: str, details: bytes) -> None:
    """Note what a line of an access journal has of a decision."""
    if b'"erase"' not in details and b'"hold"' not in details:
        return  # most: parsing takes long
    fields = _parse_details(details)
    keys = ("action", "query", "reason", "ids")
    action, query, reason, ids = (str(fields.get(each, "")) for each in keys)
    decisions = [(reason, each) for each in ids.split() if action == "erase"]
    kind, _, name = query.partition(" ")
    if (action, kind) == ("hold", RELEASE):
        decisions.append((kind, name))
    for each in decisions:
        result.add_decision(*each, location)


def _move(
    result: Verification, location: str, record_id: str, fields: dict[str, Any]
) -> None:
    """Note that the copy of a record may be its header alone."""
    name = str(fields.get("copy"))
    file = result.files.get(name)
    if file is None or file.record_id != record_id or file.is_report:
        if fields:  # else they are struck out
            problem = (
                f"moves {name}, which no earlier line has as a copy of this record"
            )
            result.add_error(location, problem)
        return
    local_sha256 = str(fields.get("local_sha256"))
    result.files[name] = file._replace(local_sha256=local_sha256)


def _add_decision(
    result: Verification, location: str, event: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Note a hold, a request for erasure, or the end of one."""
    record_id, name = str(event.get("id")), str(fields.get("name"))
    if event["event"] == HOLD_SET:
        result.holds[name] = {*str(fields.get("ids", "")).split()}
    elif event["event"] == HOLD_RELEASED:
        result.add_decision(RELEASE, name, location)
        if result.holds.pop(name, None) is None:
            result.add_error(location, f"releases the hold {name}, which is not set")
    elif event["event"] == ERASE_REQUESTED:
        result.add_decision(ERASE_REQUEST, record_id, location)
        uid = str(fields.get("person_uid", ""))
        result.requests[record_id] = result.last_number, uid
    elif event["event"] == ERASE_WITHDRAWN:
        if result.requests.pop(record_id, None) is None:
            problem = f"withdraws a request to erase {record_id}, which there is not"
            result.add_error(location, problem)


def _check_removal(
    result: Verification, location: str, event: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Check that no hold names a record that is removed, and who has it erased.

    What is purged must have been noted as due: its period is in an earlier line.
    """
    record_id = str(event.get("id"))
    for name, ids in result.holds.items():
        if record_id in ids:
            result.add_error(location, f"removes {record_id}, which {name} holds")
    number, uid = result.requests.pop(record_id, (0, ""))
    if event["event"] == PURGED:
        if record_id not in result.noted:
            problem = f"purges {record_id}, and no earlier line has its period"
            result.add_error(location, problem)
        result.noted.discard(record_id)
        return
    result.add_decision(ERASE_APPROVE, record_id, location)
    keys = ("requested_by", "requested_uid", "approved_by", "approved_uid")
    requester, requester_uid, approver, approver_uid = map(fields.get, keys)
    if not all((requester, requester_uid, approver, approver_uid)):
        result.add_error(location, f"erases {record_id}, and two people are not named")
    elif (
        requester_uid == approver_uid != NO_UID
        or str(requester).casefold() == str(approver).casefold()
    ):
        problem = f"erases {record_id}, requested and approved by {approver}"
        result.add_error(location, problem)
    if not number:
        problem = f"erases {record_id}, which no earlier line requests"
        result.add_error(location, problem)
    elif fields.get("request") != str(number) or uid not in ("", requester_uid):
        problem = f"erases {record_id} by another request than that of seq {number}"
        result.add_error(location, problem)


def _remove(result: Verification, location: str, record_id: str) -> None:
    """Check and note that a line says that a record was removed."""
    result.struck_out.pop(record_id, None)
    result.removed[record_id] = result.last_number
    number = result.present.pop(record_id, None)
    if number is None:
        problem = f"removes {record_id}, of which there is no earlier line"
        result.add_error(location, problem)
    elif number:
        problem = f"removes {record_id}, whose details are still there: seq {number}"
        result.add_note(location, problem)


def _is_file_name(name: str) -> bool:
    parts = name.split("/")
    return name.endswith(".eml.gz") and not {"", ".", ".."} & set(parts)


def _list_files(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all files of an archive except its journal and its drafts.

    Those in the directory of drafts count for nothing.
    """
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(f"{directory}/{prefix}") as iterator:
            entries = sorted(iterator, key=lambda entry: entry.name, reverse=True)
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if name in OWN_NAMES or name.startswith(OWN_DRAFTS):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{name}/")
            else:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    yield name, entry.stat(follow_symlinks=False)


def _check_file(
    result: Verification, path: str, file_stat: os.stat_result, file: StoredFile
) -> None:
    """Check one file of the store against its journal line."""
    if not stat.S_ISREG(file_stat.st_mode):
        result.add_error(path, "not a regular file")
        return
    _check_mode(result, path, file_stat)
    try:
        file_sha256, size, original_sha256, defect = _read_digests(
            path, file_stat.st_size, file
        )
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        if not (is_missing and _is_removed_meanwhile(result, file.record_id)):
            result.add_error(path, str(error.strerror))
        return
    is_right = file_sha256 == file.file_sha256
    if file_sha256 and not is_right and _is_moved(result, file, file_sha256):
        result.moved_count += 1
        return
    if file_sha256 and not is_right:
        result.add_error(path, "SHA-256 differs from the journal")
    if defect:
        result.add_error(path, defect)
    elif file.is_report or not file.is_known:
        return  # has no original, or its size is not known any more
    elif (size, original_sha256) != (file.size, file.sha256):
        result.add_error(
            path, "SHA-256 or size of the original differs from the journal"
        )


def _is_moved(result: Verification, file: StoredFile, local_sha256: str) -> bool:
    """Return whether a line says that this is what is here of a copy."""
    if local_sha256 != file.local_sha256:
        _read_new_lines(result)
    return local_sha256 in (file.local_sha256, *result.moved_meanwhile)


def _check_mode(result: Verification, path: str, file_stat: os.stat_result) -> None:
    """Report a file that others can read, but for the group of a shared directory."""
    mode = file_stat.st_mode & 0o777
    is_shared = os.stat(os.path.dirname(path)).st_mode & stat.S_ISGID
    if mode & ~(0o740 if is_shared else 0o700):
        result.add_error(path, f"mode {mode:o}: accessible to other users")


def _read_digests(
    path: str, file_size: int, file: StoredFile
) -> tuple[str, int, str, str]:
    """Return the file's SHA-256, the original's size and SHA-256, and the error.

    A file that is too large for its line is not read to its end.
    """
    size_limit = file.size if isinstance(file.size, int) else 0
    content_limit = HEAD_LIMIT + size_limit + TRAILER_LIMIT
    if file.is_report or not file.is_known:
        content_limit = REPORT_LIMIT
    if file_size > content_limit + content_limit // 1000:  # more than gzip can add
        return "", 0, "", f"{file_size} bytes: larger than what the journal names"
    content = _GzipFile(path)
    chunks = content.decompress(content_limit)
    size, original_sha256 = 0, hashlib.sha256()
    head, start = _read_head(chunks)
    for chunk in chain((head[start:],) if start >= 0 else (), chunks):
        if start >= 0:
            original_sha256.update(chunk[: size_limit - size])
            size += len(chunk[: size_limit - size])
    defect = content.defect or ("no original in this file" if start < 0 else "")
    return content.sha256.hexdigest(), size, original_sha256.hexdigest(), defect


class _GzipFile:
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


def read_seals(store: str) -> tuple[list[Seal], list[Finding]]:
    """Return the seals of a store, oldest first, and what is wrong with them.

    Without a directory of seals there are none. Raises OSError.
    """
    directory = f"{store}/{SEALS}"
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return [], []
    except NotADirectoryError as error:
        return [], [Finding(directory, str(error.strerror))]
    seals: list[Seal] = []
    findings = []
    for name in filter(SEAL_NAME.fullmatch, names):
        try:
            seals.append(parse_seal(name, read_seal(f"{directory}/{name}")))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", "") or str(error)
            findings.append(Finding(f"{directory}/{name}", reason))
    # A day has one: the numbers have more digits only after 2,700 years.
    for previous, seal in zip([None, *seals], seals):
        problem = _seal_problem(seal, previous)
        stamps = stamp_names(seal)
        # Not by names: files of a seal that is just made can be missing in that list.
        if stamps and not any(os.path.lexists(f"{directory}/{e}") for e in stamps):
            problem = "its time stamps are missing"
        if problem:
            findings.append(Finding(f"{directory}/{seal.name}", problem))
    replies = {reply for each in seals for reply in stamp_names(each)}
    known = replies | {f"{each.removesuffix('.tsr')}.pem" for each in replies}
    for name in names:
        is_own = name in known or name.startswith(".") or name.endswith(LOCK)
        if not (is_own or SEAL_NAME.fullmatch(name)):
            text = "of no seal: a seal was removed, or making one was interrupted"
            findings.append(Finding(f"{directory}/{name}", text, True))
    return seals, findings


def stamp_names(seal: Seal) -> list[str]:
    """Return the names that the time stamps of a seal have, by its authorities."""
    stem = seal.name.removesuffix(".json")
    return [f"{stem}.{n}.tsr" for n in range(1, len(seal.authorities) + 1)]


def _seal_problem(seal: Seal, previous: Seal | None) -> str:
    """Return how a seal does not follow the one before, "" if it does."""
    expected = previous.number + 1 if previous else 1
    if seal.number != expected:
        last = f" to {seal.number - 1}" if seal.number > expected + 1 else ""
        return f"seal {expected}{last} missing before this one"
    if seal.previous != (previous.sha256 if previous else FIRST_PREV):
        return "previous is not the SHA-256 of the seal before, which was changed"
    return ""


def read_seal(path: str) -> bytes:
    """Return the content of a seal. Raises OSError, ValueError if it is too large."""
    with open(path, "rb", opener=_open_no_follow) as file:
        content = file.read(SEAL_LIMIT + 1)
    if len(content) > SEAL_LIMIT:
        raise ValueError("not a seal: too large")
    return content


def parse_seal(name: str, content: bytes) -> Seal:
    """Return the seal in a line of JSON. Raises ValueError."""
    try:
        fields = json.loads(content)
        if fields["format"] != SEAL_FORMAT:
            raise ValueError
        match = SEAL_NAME.fullmatch(name)
        if match and int(match[1]) != fields["number"]:
            raise ValueError
        heads = tuple(map(_parse_head, fields["journals"]))
        return Seal(
            name,
            hashlib.sha256(content).hexdigest(),
            int(fields["number"]),
            str(fields["previous"]),
            str(fields["time"]),
            tuple(map(str, fields["authorities"])),
            {str(key): str(value) for key, value in fields["keys"].items()},
            heads,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a seal, or damaged") from None


def _parse_head(fields: dict[str, Any]) -> Head:
    archive, journal, segment, sha256, time = (
        str(fields[key]) for key in ("archive", "journal", "segment", "sha256", "time")
    )
    seq, lines, start, end = (
        int(fields[key]) for key in ("seq", "lines", "start", "end")
    )
    return Head(archive, journal, segment, seq, sha256, lines, start, end, time)


def read_seal_file(path: str) -> tuple[list[Seal], list[Finding]]:
    """Return the seals in a file that was kept elsewhere, one in each line.

    Lines that are none are named: a full disk can cut one short. Raises OSError,
    ValueError if there is no seal at all.
    """
    seals: list[Seal] = []
    findings = []
    with open(path, "rb", opener=_open_no_follow) as file:
        for number, line in enumerate(iter(lambda: _read_kept_line(file), b""), 1):
            location = f"{path}, line {number}"
            try:
                seals.append(parse_seal(location, line))
            except ValueError as error:
                problem = f"{error}; the other lines are compared without it"
                findings.append(Finding(location, problem, True))
    if not seals:
        raise ValueError(f"{path}: no seal in this file")
    return seals, findings


def _read_kept_line(file: BinaryIO) -> bytes:
    """Return the next line, of one that is too long for a seal only the end."""
    line = file.readline(SEAL_LIMIT)
    while len(line) == SEAL_LIMIT and not line.endswith(b"\n"):
        line = file.readline(SEAL_LIMIT) or b"\n"
    return line


def check_seals(
    store: str,
    results: dict[str, Verification],
    seals: list[Seal],
    kept_seals: Collection[Seal] = (),
) -> list[Finding]:
    """Return what of the seals only the whole store shows.

    results are those of its archives by address, kept_seals are from elsewhere.
    """
    findings = []
    own = {each.name: each.sha256 for each in seals}
    for address, result in results.items():
        missing = [
            name
            for name, sha256 in result.seal_events.items()
            if own.get(name) != sha256 and not _is_made_meanwhile(store, name, sha256)
        ]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            problem = f"{missing[0]}{more}, named in the journal, is missing or changed"
            findings.append(Finding(f"{store}/{address}/{JOURNAL}", problem))
    names = {h.archive: s.name for s in [*kept_seals, *seals] for h in s.heads}
    for address, name in sorted(names.items()):
        if not os.path.lexists(f"{store}/{address}"):
            problem = f"the archive is missing; {name} has it"
            findings.append(Finding(f"{store}/{address}", problem))
    for each in kept_seals:
        if each.sha256 not in own.values():
            problem = f"the store has no such seal {each.number}: removed or changed"
            findings.append(Finding(each.name, problem))
    return findings


def _is_made_meanwhile(store: str, name: str, sha256: str) -> bool:
    """Return whether the store has a seal that was made after its seals were read."""
    if not SEAL_NAME.fullmatch(name):
        return False
    try:
        content = read_seal(f"{store}/{SEALS}/{name}")
    except (OSError, ValueError):
        return False
    return hashlib.sha256(content).hexdigest() == sha256


def signature_command(store: str) -> str:
    """Return the command that checks the signatures of all seals, for sh(1)."""
    return (
        f"for t in {shlex.quote(store)}/{SEALS}/*.tsr; do openssl ts -verify"
        ' -data "${t%.*.tsr}.json" -in "$t" -untrusted "${t%.tsr}.pem"'
        ' -CAfile ROOT.pem || echo "FAILED: $t"; done'
    )


def seal_summary(store: str, seals: list[Seal]) -> str:
    """Return one line about the seals of a store."""
    plural = "" if len(seals) == 1 else "s"
    count = sum(bool(each.authorities) for each in seals)
    last = f", {count} with time stamps, last {seals[-1].name}" if seals else ""
    return f"{store}/{SEALS}: {len(seals)} seal{plural}{last}"


def _open_no_follow(path: str, flags: int) -> int:
    # O_NONBLOCK: opening a FIFO would block.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


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
    parser.add_argument(
        "--seal-file",
        metavar="PATH",
        help="seals that were kept elsewhere, one in each line",
    )
    options = parser.parse_args(arguments)
    try:
        # Before those of the store, which has each seal before anybody else.
        kept = read_seal_file(options.seal_file) if options.seal_file else ([], [])
        lines, exit_code = _verify_store(
            options.store.rstrip("/") or "/", options.sealed, *kept
        )
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_UNREADABLE
    except ValueError as error:
        print(error, file=sys.stderr)
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


def _verify_store(
    store: str,
    sealed: list[str],
    kept_seals: list[Seal],
    kept_findings: list[Finding],
) -> tuple[list[str], int]:
    """Return the lines to print about all archives, and the exit code."""
    is_archive = os.path.lexists(f"{store}/{JOURNAL}")
    directories = [store] if is_archive else [f"{store}/{e}" for e in archives(store)]
    seals, findings = ([], []) if is_archive else read_seals(store)
    findings += kept_findings
    if not directories and not seals:
        return [f"{store}: no archive in this directory"], EXIT_UNREADABLE
    progress = _print_progress if sys.stderr.isatty() else _no_progress
    lines, results = [], {}
    for directory in directories:
        result = verify_archive(directory, progress, sealed, [*seals, *kept_seals])
        results[os.path.basename(directory)] = result
        lines += [*map(str, result.findings), f"{directory}: {summary(result)}"]
    if not is_archive:
        findings += check_seals(store, results, seals, kept_seals)
    found = {sha256 for each in results.values() for sha256 in each.sealed}
    for sha256 in sorted(set(sealed) - found):
        findings.append(Finding(store, missing_seal(sha256)))
    lines += map(str, findings)
    if seals:
        lines.append(seal_summary(store, seals))
    if any(each.authorities for each in seals):
        text = "check the signatures: in ROOT.pem the root certificates that you trust"
        lines += [text, f"    {signature_command(store)}"]
    error_count = sum(each.error_count for each in results.values())
    has_errors = error_count or any(not each.is_note for each in findings)
    return lines, EXIT_ERRORS if has_errors else EXIT_OK


def missing_seal(sha256: str) -> str:
    """Return the problem that no journal has a line with this SHA-256."""
    return f"no journal line has the SHA-256 {sha256}: cut, replaced or changed"


def summary(result: Verification) -> str:
    """Return one line about an archive, with the SHA-256 of its last journal line."""
    plural = "" if result.error_count == 1 else "s"
    status = f"{result.error_count} error{plural}" if result.error_count else "OK"
    unnamed = f", {result.unnamed_count} more in no line" * bool(result.unnamed_count)
    moved = f", {result.moved_count} in the object storage" * bool(result.moved_count)
    return (
        f"{len(result.files)} files{unnamed}{moved}, {result.line_count} lines, last"
        f" {result.last_sha256}: {status}"
    )


def _print_progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{done} of {total} files", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
