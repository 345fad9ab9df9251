#!/usr/bin/env python3
"""Verify a store of postfix_archive: every journal line and every file.

A single file that needs only Python's standard library. An auditor runs it without
installing postfix_archive, on the store or on a copy of it:

    python3 -I verify_archive.py /var/lib/postfix-archive

For each archive it checks that
* the journal's lines are complete, numbered without a gap and chained by SHA-256, up
  to the last line (journal.last);
* each file has the SHA-256 from the journal and can be decompressed to its end;
* the original in each archive copy has the SHA-256 and size from the journal;
* no file is missing from the store or from the journal.
It changes nothing.

Exit codes: 0 no errors (a note is no error: a crash can cause it), 1 errors, one line
for each, 3 the store cannot be read. docs/store-format.md specifies the format.
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
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

JOURNAL, LAST, DRAFTS = "journal", "journal.last", "drafts"
LAST_DRAFT = "journal.last.draft"
ARCHIVED, REPORT = "archived", "outcome-report"  # events that name a file
NOTHING = "0" * 64
NUMBER_DIGITS = 18  # enough for any journal
BLOCK = 1 << 16  # bytes
GZIP = 31  # wbits of zlib: gzip format (RFC 1952)
HEAD_LIMIT = 16 << 20  # bytes of a copy before the original
WELL, WRONG, UNKNOWN = 0, 1, 3


@dataclass(frozen=True)
class Finding:
    """One error, or one note: something unusual that a crash can cause."""

    place: str
    what: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'ERROR'}: {self.place}: {self.what}"


@dataclass
class Chain:
    """The state of one archive: its journal, its files by name, all findings."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    lines: int = 0
    last: str = NOTHING  # SHA-256 of the last line

    def wrong(self, place: str, what: str) -> None:
        """Add an error."""
        self.findings.append(Finding(place, what))

    def note(self, place: str, what: str) -> None:
        """Add a note."""
        self.findings.append(Finding(place, what, True))

    @property
    def damage(self) -> int:
        """The number of errors."""
        return sum(not each.is_note for each in self.findings)


def _silent(done: int, of: int) -> None:
    """Show no progress."""


def archives(store: str) -> list[str]:
    """Return the addresses of the archives in a store. Raises OSError."""
    return sorted(each for each in os.listdir(store) if "@" in each)


def verify(folder: str, progress: Callable[[int, int], None] = _silent) -> Chain:
    """Verify the archive in a directory; return its state and the findings.

    Calls progress(done, total) after each file. The journal is locked while it is read
    and the files are listed: both show the archive at the same moment. Raises OSError.
    """
    with _locked(folder):
        chain = _read(folder)
        listed = dict(_listed(folder))
    for name in sorted(set(chain.files) - set(listed)):
        chain.wrong(f"{folder}/{name}", "in the journal, but the file is missing")
    for done, (name, told) in enumerate(listed.items(), 1):
        if name in chain.files:
            _check(chain, f"{folder}/{name}", told, chain.files[name])
        elif stat.S_ISREG(told.st_mode) and told.st_mode & 0o200 and _is_name(name):
            what = "not committed (crash); the retry of this message commits it"
            chain.note(f"{folder}/{name}", what)
        else:
            chain.wrong(f"{folder}/{name}", "the file is not in the journal")
        progress(done, len(listed))
    return chain


def _read(folder: str) -> Chain:
    """Read and check the whole journal of an archive."""
    chain = Chain()
    path = f"{folder}/{JOURNAL}"
    number = 0
    torn: list[int] = []
    noted_seen = False
    noted = _noted(folder, chain)
    try:
        lines = open(path, "rb", opener=_no_link)
    except FileNotFoundError:
        if noted or any(_listed(folder)):
            chain.wrong(path, "the journal is missing")
        return chain
    with lines:
        for line in lines:
            chain.lines += 1
            where = f"{path}, line {chain.lines}"
            text = line.removesuffix(b"\n")
            event = _event(text)
            if event is None:
                torn.append(chain.lines)
            else:
                number = _linked(chain, where, event, number)
                _file_of(chain, where, event)
            chain.last = hashlib.sha256(text).hexdigest()
            if not line.endswith(b"\n"):
                chain.note(where, "truncated line")
            if noted and number == noted[0] and chain.last == noted[1]:
                noted_seen = True
    for each in torn:
        what = "not a journal line: torn by a crash, or damaged"
        chain.note(f"{path}, line {each}", what)
    if noted and not noted_seen:
        what = f"line {noted[0]} was written, but is missing or changed"
        chain.wrong(path, what)
    if not noted and chain.lines:
        what = "missing; without it, a truncated journal is not detected"
        chain.note(f"{folder}/{LAST}", what)
    return chain


def _noted(folder: str, chain: Chain) -> tuple[int, str] | None:
    """Return the number and SHA-256 in journal.last, None if missing or damaged."""
    path = f"{folder}/{LAST}"
    try:
        with open(path, "rb", opener=_no_link) as opened:
            said = opened.read(4 * BLOCK)
    except FileNotFoundError:
        return None
    words = said.decode("latin-1").removesuffix("\n").split(" ")
    proof = hashlib.sha256(" ".join(words[:2]).encode("latin-1")).hexdigest()
    if len(words) == 3 and words[2] == proof and said.endswith(b"\n"):
        if words[0].isdecimal() and len(words[0]) <= NUMBER_DIGITS:
            return int(words[0]), words[1]
    chain.wrong(path, "damaged")
    return None


def _event(text: bytes) -> dict[str, Any] | None:
    """Return the event in a line, None for anything else."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    number = event.get("seq")
    whole = isinstance(number, int) and number < 10**NUMBER_DIGITS
    texts = isinstance(event.get("prev"), str) and isinstance(event.get("event"), str)
    return event if whole and texts else None


def _linked(chain: Chain, where: str, event: dict[str, Any], before: int) -> int:
    """Check ``seq`` and ``prev`` of an event; return ``seq``."""
    number = int(event["seq"])
    if event["prev"] != chain.last:
        what = "prev is not the SHA-256 of the line before"
        chain.wrong(where, what)
    if number <= before:
        chain.wrong(where, f"seq {number} follows {before}")
    elif number != before + 1:
        missing = f"{before + 1}" + (f" to {number - 1}" if number > before + 2 else "")
        chain.wrong(where, f"seq {missing} missing before this line")
    return number


def _file_of(chain: Chain, where: str, event: dict[str, Any]) -> None:
    if event["event"] not in (ARCHIVED, REPORT):
        return
    name = event.get("file")
    if not isinstance(name, str) or not _is_name(name):
        chain.wrong(where, "invalid file name")
    elif name in chain.files:
        chain.wrong(where, f"{name} is in an earlier line already")
    else:
        chain.files[name] = event


def _is_name(name: str) -> bool:
    words = name.split("/")
    return name.endswith(".eml.gz") and not {"", ".", ".."} & set(words)


def _listed(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all files of an archive except its journal and its drafts."""
    left = [""]
    while left:
        below = left.pop()
        with os.scandir(f"{folder}/{below}") as found:
            entries = sorted(found, key=lambda each: each.name, reverse=True)
        for each in entries:
            name = f"{below}{each.name}"
            if name in (JOURNAL, LAST, LAST_DRAFT, DRAFTS):
                continue
            if each.is_dir(follow_symlinks=False):
                left.append(f"{name}/")
            else:
                yield name, each.stat(follow_symlinks=False)


def _check(
    chain: Chain, path: str, told: os.stat_result, event: dict[str, Any]
) -> None:
    """Check one file of the store against its journal event."""
    if not stat.S_ISREG(told.st_mode):
        chain.wrong(path, "not a regular file")
        return
    if told.st_mode & 0o077:
        chain.wrong(path, f"mode {told.st_mode & 0o777:o}: accessible to other users")
    try:
        packed, size, original, trouble = _digests(path, event.get("size"))
    except OSError as problem:
        chain.wrong(path, str(problem.strerror))
        return
    if packed != event.get("file_sha256"):
        chain.wrong(path, "SHA-256 differs from the journal")
    if trouble:
        chain.wrong(path, trouble)
    elif event["event"] == REPORT:
        return  # has no original
    elif (size, original) != (event.get("size"), event.get("sha256")):
        chain.wrong(path, "SHA-256 or size of the original differs from the journal")


def _digests(path: str, wanted: object) -> tuple[str, int, str, str]:
    """Return the file's SHA-256, the original's size and SHA-256, and the error."""
    file = _File(path)
    pieces = file.unpacked()
    left = wanted if isinstance(wanted, int) else 0
    size, original = 0, hashlib.sha256()
    head, start = _begun(pieces)
    for piece in chain((head[start:],) if start >= 0 else (), pieces):
        if start >= 0:
            original.update(piece[: left - size])
            size += len(piece[: left - size])
    trouble = file.trouble or ("no original in this file" if start < 0 else "")
    return file.packed.hexdigest(), size, original.hexdigest(), trouble


class _File:
    """A file of the store; SHA-256 and error are valid after decompress() has ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.packed = hashlib.sha256()
        self.trouble = ""

    def unpacked(self) -> Iterator[bytes]:
        """Yield the uncompressed content; read to the end even after an error."""
        unpacker = zlib.decompressobj(GZIP)
        with open(self._path, "rb", opener=_no_link) as opened:
            while block := opened.read(BLOCK):
                self.packed.update(block)
                while block and not unpacker.eof and not self.trouble:
                    try:
                        yield unpacker.decompress(block, BLOCK)
                    except zlib.error as problem:
                        self.trouble = f"gzip: {problem}"
                    block = unpacker.unconsumed_tail or unpacker.unused_data
                if block and unpacker.eof and not self.trouble:
                    self.trouble = "data after the end of the gzip stream"
        if not self.trouble and not unpacker.eof:
            self.trouble = "truncated gzip file"


def _begun(pieces: Iterator[bytes]) -> tuple[bytes, int]:
    """Return the first bytes of a copy and the original's offset in them, or -1.

    Searches again only when the size has doubled: the time stays linear.
    """
    held: list[bytes] = []
    size = enough = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size < enough:
            continue
        held = [b"".join(held)]
        start = _original_start(held[0])
        if start >= 0 or size > HEAD_LIMIT:
            return held[0], start
        enough = 2 * size
    head = b"".join(held)
    return head, _original_start(head)


def _original_start(head: bytes) -> int:
    """Return the offset of the third part's body, -1 if it is not in head."""
    end = head.find(b"\r\n\r\n")
    # rpartition: the sender controls the Subject, which comes before Content-Type.
    _, found, rest = head[: max(0, end)].rpartition(b'boundary="')
    line = b"\r\n--" + rest.partition(b'"')[0] + b"\r\n"
    at = 0
    for _ in range(3):
        at = head.find(line, at + 1) if found else -1
        if at < 0:
            return -1
    start = head.find(b"\r\n\r\n", at + len(line) - 2)
    return start + 4 if start >= 0 else -1


def _no_link(path: str, flags: int) -> int:
    # O_NONBLOCK: opening a FIFO would block.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold a shared lock on the journal, if it exists and can be locked."""
    descriptor = -1
    try:
        descriptor = _no_link(f"{folder}/{JOURNAL}", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError:
        pass  # no journal, or a file system without locks
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def main(arguments: list[str] | None = None) -> int:
    """Verify a store, print the findings, return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="directory of the store, or of one archive")
    given = parser.parse_args(arguments)
    store = given.store.rstrip("/") or "/"
    code = WELL
    try:
        alone = os.path.lexists(f"{store}/{JOURNAL}")
        folders = [store] if alone else [f"{store}/{e}" for e in archives(store)]
        for folder in folders:
            found = verify(folder, _shown if sys.stderr.isatty() else _silent)
            code = WRONG if found.damage else code
            for line in (*map(str, found.findings), f"{folder}: {summary(found)}"):
                print("".join(c if c.isprintable() else "?" for c in line))
    except OSError as problem:
        print(f"{problem.filename}: {problem.strerror}", file=sys.stderr)
        return UNKNOWN
    if not folders:
        print(f"{store}: no archive in this directory", file=sys.stderr)
        return UNKNOWN
    return code


def summary(found: Chain) -> str:
    """Return one line about an archive, with the SHA-256 of its last journal line."""
    plural = "" if found.damage == 1 else "s"
    how = f"{found.damage} error{plural}" if found.damage else "OK"
    return f"{len(found.files)} files, {found.lines} lines, last {found.last}: {how}"


def _shown(done: int, of: int) -> None:
    end = "\n" if done == of else ""
    print(f"\r{done} of {of} files", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
