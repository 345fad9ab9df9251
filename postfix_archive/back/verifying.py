#!/usr/bin/env python3
"""Verifies a store of postfix_archive: every file, every line, nothing more, no less.

One file, Python's standard library only: an auditor runs it as it is, with nothing of
ours installed, on the store or on a copy of it:

    python3 -I verify_archive.py /var/lib/postfix-archive

For each archive it checks that the journal's lines are whole, numbered without a gap
and chained by SHA-256 up to the last one that was ever noted (journal.last); that each
file has the SHA-256 that the journal has for it, unpacks to its end, and holds an
original with the SHA-256 and size that the journal has (if it is no outcome report);
that the store has no file which the journal lacks, and lacks none. Changes nothing.

Exit codes: 0 all is well (notes are no damage: a crash may leave them), 1 something is
wrong, each line naming what, 3 it could not look. The format: docs/store-format.md.
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
NUMBER_DIGITS = 18  # more than lines will ever be
BLOCK = 1 << 16
GZIP = 31  # zlib's wbits for gzip (RFC 1952)
HEAD_LIMIT = 16 << 20  # bytes of a copy before its original
WELL, WRONG, UNKNOWN = 0, 1, 3


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; by what a note says nothing was lost."""

    place: str
    what: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'WRONG'}: {self.place}: {self.what}"


@dataclass
class Chain:
    """What the journal of one archive says; files by name, with their event."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    lines: int = 0
    last: str = NOTHING  # hash of the last line

    def wrong(self, place: str, what: str) -> None:
        """Add something that is wrong."""
        self.findings.append(Finding(place, what))

    def note(self, place: str, what: str) -> None:
        """Add something that only looks wrong."""
        self.findings.append(Finding(place, what, True))

    @property
    def damage(self) -> int:
        """How many things are wrong."""
        return sum(not each.is_note for each in self.findings)


def _silent(done: int, of: int) -> None:
    """Tell nobody how far it is."""


def archives(store: str) -> list[str]:
    """Return the names of the archives in a store. Raises OSError."""
    return sorted(each for each in os.listdir(store) if "@" in each)


def verify(folder: str, progress: Callable[[int, int], None] = _silent) -> Chain:
    """Return what one archive holds, and all that is wrong in it.

    progress is told how many files of how many are done. The journal is locked while
    it is read and while the files are listed, so that a live archive is seen at one
    moment. Raises OSError where it cannot look.
    """
    with _locked(folder):
        chain = _read(folder)
        listed = dict(_listed(folder))
    for name in sorted(set(chain.files) - set(listed)):
        chain.wrong(f"{folder}/{name}", "the journal has it, the store has not")
    for done, (name, told) in enumerate(listed.items(), 1):
        if name in chain.files:
            _check(chain, f"{folder}/{name}", told, chain.files[name])
        elif stat.S_ISREG(told.st_mode) and told.st_mode & 0o200 and _is_name(name):
            what = "not committed: a crash came first; the retry of its message does it"
            chain.note(f"{folder}/{name}", what)
        else:
            chain.wrong(f"{folder}/{name}", "the store has it, the journal has not")
        progress(done, len(listed))
    return chain


def _read(folder: str) -> Chain:
    """Read the journal of an archive from its first line to its last."""
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
            chain.wrong(path, "there is no journal")
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
                chain.note(where, "its end is cut off")
            if noted and number == noted[0] and chain.last == noted[1]:
                noted_seen = True
    for each in torn:
        what = "no whole line of a journal: torn by a crash, or damaged"
        chain.note(f"{path}, line {each}", what)
    if noted and not noted_seen:
        what = f"line {noted[0]} was written and is not there as it was"
        chain.wrong(path, what)
    if not noted and chain.lines:
        what = "it is missing: whether the journal's end was cut off, nobody can tell"
        chain.note(f"{folder}/{LAST}", what)
    return chain


def _noted(folder: str, chain: Chain) -> tuple[int, str] | None:
    """Return number and hash of the last line that was noted, None without a note."""
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
    chain.wrong(path, "it is damaged")
    return None


def _event(text: bytes) -> dict[str, Any] | None:
    """Return the event of a line, None for what is no whole line."""
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
    """Check number and chain of a line; return its number."""
    number = int(event["seq"])
    if event["prev"] != chain.last:
        what = "the line before is not the one that it was written after"
        chain.wrong(where, what)
    if number <= before:
        chain.wrong(where, f"number {number} after {before}")
    elif number != before + 1:
        missing = f"{before + 1}" + (f" to {number - 1}" if number > before + 2 else "")
        chain.wrong(where, f"before it, number {missing} is missing")
    return number


def _file_of(chain: Chain, where: str, event: dict[str, Any]) -> None:
    if event["event"] not in (ARCHIVED, REPORT):
        return
    name = event.get("file")
    if not isinstance(name, str) or not _is_name(name):
        chain.wrong(where, "it names no file of the store")
    elif name in chain.files:
        chain.wrong(where, f"{name} was archived before")
    else:
        chain.files[name] = event


def _is_name(name: str) -> bool:
    words = name.split("/")
    return name.endswith(".eml.gz") and not {"", ".", ".."} & set(words)


def _listed(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Give every entry below an archive but its journal and its drafts."""
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
    """Check one file of the store against its event."""
    if not stat.S_ISREG(told.st_mode):
        chain.wrong(path, "it is no regular file")
        return
    if told.st_mode & 0o077:
        chain.wrong(path, f"others may read it, mode {told.st_mode & 0o777:o}")
    try:
        packed, size, original, trouble = _digests(path, event.get("size"))
    except OSError as problem:
        chain.wrong(path, str(problem.strerror))
        return
    if packed != event.get("file_sha256"):
        chain.wrong(path, "its SHA-256 is not the one in the journal")
    if trouble:
        chain.wrong(path, trouble)
    elif event["event"] == REPORT:
        return  # there is no original in it
    elif (size, original) != (event.get("size"), event.get("sha256")):
        chain.wrong(path, "the original in it is not the one in the journal")


def _digests(path: str, wanted: object) -> tuple[str, int, str, str]:
    """Return the file's SHA-256, the original's size and SHA-256, and what is amiss."""
    file = _File(path)
    pieces = file.unpacked()
    left = wanted if isinstance(wanted, int) else 0
    size, original = 0, hashlib.sha256()
    head, start = _begun(pieces)
    for piece in chain((head[start:],) if start >= 0 else (), pieces):
        if start >= 0:
            original.update(piece[: left - size])
            size += len(piece[: left - size])
    trouble = file.trouble or ("there is no original in it" if start < 0 else "")
    return file.packed.hexdigest(), size, original.hexdigest(), trouble


class _File:
    """A file of the store: its SHA-256 and what is amiss, once unpacked() has ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.packed = hashlib.sha256()
        self.trouble = ""

    def unpacked(self) -> Iterator[bytes]:
        """Give what the file unpacks to. Reads it to its end, whatever is amiss."""
        unpacker = zlib.decompressobj(GZIP)
        with open(self._path, "rb", opener=_no_link) as opened:
            while block := opened.read(BLOCK):
                self.packed.update(block)
                while block and not unpacker.eof and not self.trouble:
                    try:
                        yield unpacker.decompress(block, BLOCK)
                    except zlib.error as problem:
                        self.trouble = f"it cannot be unpacked: {problem}"
                    block = unpacker.unconsumed_tail or unpacker.unused_data
                if block and unpacker.eof and not self.trouble:
                    self.trouble = "something stands behind its end"
        if not self.trouble and not unpacker.eof:
            self.trouble = "its end is cut off"


def _begun(pieces: Iterator[bytes]) -> tuple[bytes, int]:
    """Return the first bytes of a copy, and where in them its original begins, or -1.

    Looks again when there is twice as much, so that a long head takes no long time.
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
    """Return where the third part of a copy begins, -1 while that is not known."""
    end = head.find(b"\r\n\r\n")
    # Of the subject, which comes before, the sender has chosen every word.
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
    # O_NONBLOCK: or whoever puts a FIFO into the store keeps us for ever.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the journal's lock, where there is one and it can be had."""
    descriptor = -1
    try:
        descriptor = _no_link(f"{folder}/{JOURNAL}", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError:
        pass  # none there, or a file system without locks
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def main(arguments: list[str] | None = None) -> int:
    """Verify a store, print what is wrong, return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="the store, or one archive in it")
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
        print(f"{store}: there is no archive in it", file=sys.stderr)
        return UNKNOWN
    return code


def summary(found: Chain) -> str:
    """Return one line on an archive; keep the hash elsewhere to prove its age."""
    how = f"{found.damage} WRONG" if found.damage else "all is well"
    return f"{len(found.files)} files, {found.lines} lines, last {found.last}: {how}"


def _shown(done: int, of: int) -> None:
    end = "\n" if done == of else ""
    print(f"\r{done} of {of} files", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
