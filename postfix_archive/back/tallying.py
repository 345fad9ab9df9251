"""Keeps the tally of each journal, so that only what is new has to be read.

Used by back/measuring. The tallies are a file in archive_fallback_directory that can be
deleted at any time: what is missing, damaged, written by somebody else, or does not fit
its journal (a journal that was cut, restored or exchanged) is counted anew from the
first line on. Never takes the journal's lock: mail does not wait for a count.
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
BY_OTHERS = 0o022  # mode bits: writable by the group, or by everybody


def tallies(
    store: str, archives: list[str], folder: str
) -> tuple[dict[str, Tally], dict[str, str]]:
    """Return the tally of each archive, and why there is none, by archive.

    folder is where they are kept; that this fails is no failure.
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
    """Return the tally of one archive as its journal is now. Raises JournalFailed."""
    path = f"{archive}/{journal.NAME}"
    try:
        with os.fdopen(files.opened(path), "rb") as opened:
            found = known if known and _fits(opened, known) else Tally()
            opened.seek(found.offset)
            for line in opened:
                if not line.endswith(b"\n"):
                    break  # it is being written, or a crash has torn it
                found.copy_bytes += _size(archive, found.take(line))
            return found
    except FileNotFoundError:
        return Tally()
    except OSError as problem:
        raise JournalFailed(f"{path}: {problem.strerror}") from problem


def _fits(opened: BinaryIO, known: Tally) -> bool:
    """Tell whether the line that was the last stands where it stood.

    Each line has the hash of the one before: with that line all before it are the same,
    unless somebody changed one of them and left the chain broken, which verify finds.
    """
    if not known.offset:
        return True
    if not known.start < known.offset <= os.fstat(opened.fileno()).st_size:
        return False
    opened.seek(known.start)
    return known.fits(opened.read(known.offset - known.start))


def _size(archive: str, name: str) -> int:
    """Return the bytes of a file of the store, 0 if it names none."""
    try:
        return os.lstat(f"{archive}/{name}").st_size if name else 0
    except (OSError, ValueError):
        return 0  # verify says what is missing


def _known(path: str) -> dict[str, Tally]:
    """Return the tallies that were kept, none if they cannot be trusted."""
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
        raise ValueError("not as it was written")
    words: Any = json.loads(text)
    if words["version"] != tally.VERSION:
        raise ValueError("counts something else")
    return {name: tally.from_words(e) for name, e in words["archives"].items()}


def _keep(folder: str, found: dict[str, Tally]) -> None:
    archives = {name: each.words() for name, each in found.items()}
    words = {"version": tally.VERSION, "archives": archives}
    text = json.dumps(words).encode()
    content = digest.hex_of(text).encode() + b"\n" + text
    with contextlib.suppress(ArchiveError), acting.as_owner(folder):
        files.replace(f"{folder}/{NAME}", content, files.DRAFT_MODE)
