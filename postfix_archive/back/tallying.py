"""Cache the tally of each journal, so that only new lines are read.

Used by status/collect. The cache is a file in archive_fallback_directory that can be
deleted at any time. A tally that is missing, damaged, written by another user or does
not match its journal (which was truncated, restored or replaced) is counted again from
the first line on. Takes no lock on the journal: mail never waits for status.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, BinaryIO

from postfix_archive.back import acting, files, journal
from postfix_archive.back.mailq import UNREADABLE
from postfix_archive.core import digest, tally
from postfix_archive.core.errors import ArchiveError, JournalFailed
from postfix_archive.core.tally import Tally

NAME = "tallies"
BY_OTHERS = 0o022  # mode bits: writable by group or others


def tallies(
    store: str, archives: list[str], folder: str
) -> tuple[dict[str, Tally], dict[str, str]]:
    """Return the current tallies and the errors, both by archive address.

    directory holds the cache; a cache that cannot be read or written is no error.
    """
    known = _known(f"{folder}/{NAME}")
    before = _stands(known)
    found: dict[str, Tally] = {}
    trouble: dict[str, str] = {}
    for each in archives:
        try:
            found[each] = _continued(f"{store}/{each}", known.get(each))
        except ArchiveError as error:
            trouble[each] = str(error)
    kept = {name: known[name] for name in trouble if name in known} | found
    if _stands(kept) != before:
        _keep(folder, kept)
    return found, trouble


def _stands(found: dict[str, Tally]) -> dict[str, tuple[int, str]]:
    return {name: (each.offset, each.last) for name, each in found.items()}


def _continued(archive: str, known: Tally | None) -> Tally:
    """Count the new lines of one journal; return the tally. Raises JournalFailed."""
    path = f"{archive}/{journal.NAME}"
    try:
        with os.fdopen(files.opened(path), "rb") as opened:
            found = known if known and _fits(opened, known) else Tally()
            opened.seek(found.offset)
            for line in opened:
                if not line.endswith(b"\n"):
                    break  # being written now, or torn by a crash
                found.copy_bytes += _size(archive, found.take(line))
            return found
    except FileNotFoundError:
        return Tally()
    except OSError as problem:
        raise JournalFailed(f"{path}: {problem.strerror}") from problem


def _fits(opened: BinaryIO, known: Tally) -> bool:
    """Return whether the last line that was counted is still at its offset.

    Each line has the SHA-256 of the one before, so all earlier lines are the same, too,
    unless the chain is broken, which verify reports.
    """
    if not known.offset:
        return True
    if not known.start < known.offset <= os.fstat(opened.fileno()).st_size:
        return False
    opened.seek(known.start)
    return known.fits(opened.read(known.offset - known.start))


def _size(archive: str, name: str) -> int:
    """Return the size of a file of the store in bytes, 0 if there is none."""
    try:
        return os.lstat(f"{archive}/{name}").st_size if name else 0
    except (OSError, ValueError):
        return 0  # verify reports missing files


def _known(path: str) -> dict[str, Tally]:
    """Return the cached tallies; {} if the cache is missing or not trustworthy."""
    try:
        descriptor = files.opened(path)
        with os.fdopen(descriptor, "rb") as opened:
            if not _is_ours(os.fstat(descriptor), os.stat(os.path.dirname(path))):
                return {}
            return _parsed(opened.read())
    except (OSError, *UNREADABLE):
        return {}


def _is_ours(file: os.stat_result, folder: os.stat_result) -> bool:
    return file.st_uid in (0, folder.st_uid) and not file.st_mode & BY_OTHERS


def _parsed(content: bytes) -> dict[str, Tally]:
    seal, _, text = content.partition(b"\n")
    if seal != digest.hex_of(text).encode():
        raise ValueError("wrong checksum")
    words: Any = json.loads(text)
    if words["version"] != tally.VERSION:
        raise ValueError("other version")
    return {name: tally.from_words(e) for name, e in words["archives"].items()}


def _keep(folder: str, found: dict[str, Tally]) -> None:
    archives = {name: each.words() for name, each in found.items()}
    words = {"version": tally.VERSION, "archives": archives}
    text = json.dumps(words).encode()
    content = digest.hex_of(text).encode() + b"\n" + text
    with contextlib.suppress(ArchiveError), acting.as_owner(folder):
        files.replace(f"{folder}/{NAME}", content, files.DRAFT_MODE)
