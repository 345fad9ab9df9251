"""Cache the tally of each journal, so that only new lines are read; save its end.

Used by status/collect and seal. The cache is a file in archive_fallback_directory that
can be deleted at any time. A tally that is missing, damaged, written by another user or
does not match its journal (which was truncated, restored or replaced) is counted again
from the first line on. Takes no lock on the journal: mail never waits for status.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import Any

from postfix_archive.errors import ArchiveError
from postfix_archive.message import digest
from postfix_archive.postfix.mail_queue import PARSE_ERRORS
from postfix_archive.store import (
    journal,
    journal_format,
    journal_reader,
    known_end,
    tally,
    verifier,
)
from postfix_archive.store.journal_format import Segments
from postfix_archive.store.known_end import KnownEnd
from postfix_archive.store.tally import Tally
from postfix_archive.system import files, privileges

CACHE_FILE = "tallies"
ESCAPE = "surrogateescape"  # of bytes that are not UTF-8
WRITABLE_BY_OTHERS = 0o022  # mode bits: writable by group or others


def current_tallies(
    store_directory: str, archives: list[str], directory: str
) -> tuple[dict[str, Tally], dict[str, str]]:
    """Return the current tallies and the errors, both by archive address.

    directory holds the cache; a cache that cannot be read or written is no error.
    """
    cached = _read_cache(f"{directory}/{CACHE_FILE}")
    cached_positions = _positions(cached)
    current: dict[str, Tally] = {}
    errors: dict[str, str] = {}
    for archive in archives:
        try:
            current[archive] = _count_new_lines(
                f"{store_directory}/{archive}", cached.get(archive)
            )
        except ArchiveError as error:
            errors[archive] = str(error)
    new_cache = {name: cached[name] for name in errors if name in cached} | current
    if _positions(new_cache) != cached_positions:
        _write_cache(directory, new_cache)
    return current, errors


def save_ends(
    store_directory: str, tallies_by_archive: dict[str, Tally], directory: str
) -> dict[str, str]:
    """Save where the journals end now; return what journals have lost, by archive.

    What is known of a journal that has lost lines is kept. A journal in which somebody
    writes just now is left for the next call; nothing waits.
    """
    known = known_end.read(directory, store_directory)
    losses = known_end.losses(known, store_directory)
    ends = dict(known)
    last_seal = _last_seal(store_directory)
    if last_seal and known_end.SEALS not in losses:
        ends[known_end.SEALS] = last_seal
    for archive, current in tallies_by_archive.items():
        end = known_end.KnownEnd(
            current.start, current.offset, current.lines, current.last_sha256
        )
        is_new = archive not in known or known[archive].sha256 != end.sha256
        if current.offset and archive not in losses and is_new:
            if is_durable(f"{store_directory}/{archive}", end):
                ends[archive] = end
    if ends != known:
        _write_ends(directory, store_directory, ends)
    return losses


def _last_seal(store_directory: str) -> KnownEnd | None:
    """Return the last seal; verify reports what is wrong with it."""
    directory = f"{store_directory}/{known_end.SEALS}"
    try:
        names = filter(verifier.SEAL_NAME.fullmatch, os.listdir(directory))
        name = max(names, default="")
        content = verifier.read_seal(f"{directory}/{name}") if name else b""
        seal = verifier.parse_seal(name, content)
    except (OSError, ValueError):
        return None
    return KnownEnd(0, len(content), seal.number, seal.sha256)


def is_durable(
    archive_directory: str,
    end: KnownEnd,
    name: str = journal_format.NAME,
    *,
    waits: bool = False,
) -> bool:
    """Return whether it is a line of ours that no crash or failed write can lose.

    False while somebody writes, unless it waits.
    """
    path = f"{archive_directory}/{name}"
    try:
        lock = journal_format.open_lock(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | (0 if waits else fcntl.LOCK_NB))
            with Segments(path) as segments:
                segments.sync()
                line = segments.read_range(end.start, end.end)
        finally:
            os.close(lock)
    except (OSError, ArchiveError):
        return False
    return journal_format.is_complete(line[:-1]) and not end.loss(
        archive_directory, name
    )


def _write_ends(
    directory: str, store_directory: str, ends: dict[str, KnownEnd]
) -> None:
    """Replace the lines of one store; errors are ignored, the next call does it."""
    path = f"{directory}/{known_end.FILE_NAME}"
    with contextlib.suppress(ArchiveError), privileges.as_owner(directory):
        lines = [
            known_end.to_text(address, store_directory, end)
            for address, end in ends.items()
        ]
        with contextlib.suppress(OSError):
            with open(
                files.open_regular(path), encoding="utf-8", errors=ESCAPE
            ) as file:
                suffix = f" {store_directory}\n"
                lines += [each for each in file if not each.endswith(suffix)]
        content = "".join(lines).encode("utf-8", ESCAPE)
        files.replace(path, content, files.DRAFT_MODE)


def _positions(tallies_by_archive: dict[str, Tally]) -> dict[str, tuple[int, str]]:
    return {
        name: (each.offset, each.last_sha256)
        for name, each in tallies_by_archive.items()
    }


def _count_new_lines(directory: str, cached: Tally | None) -> Tally:
    """Count the new lines of one journal; return the tally. Raises JournalFailed."""
    path = f"{directory}/{journal_format.NAME}"
    current = cached if cached and _is_unchanged(path, cached) else Tally()
    if current.offset and _has_removal(path, current.offset):
        current = Tally()  # older lines are struck out, and files are gone
    for line in journal_reader.lines(path, current.offset):
        current.copy_bytes += _file_size(directory, current.add_line(line.content))
    return current


def _has_removal(path: str, offset: int) -> bool:
    lines = journal_reader.lines(path, offset)
    return any(each.kind in journal.REMOVAL_EVENTS for each in lines)


def _is_unchanged(path: str, cached: Tally) -> bool:
    """Return whether the last line that was counted is still at its offset.

    Each line has the SHA-256 of the one before, so all earlier lines are the same, too,
    unless the chain is broken, which verify reports.
    """
    if not cached.offset:
        return True
    last = next(journal_reader.lines_at(path, [cached.start]), None)
    return (
        last is not None
        and last.end == cached.offset
        and cached.is_last_line(last.content)
    )


def _file_size(directory: str, name: str) -> int:
    """Return the size of a file of the store in bytes, 0 if there is none."""
    try:
        return os.lstat(f"{directory}/{name}").st_size if name else 0
    except (OSError, ValueError):
        return 0  # verify reports missing files


def _read_cache(path: str) -> dict[str, Tally]:
    """Return the cached tallies; {} if the cache is missing or not trustworthy."""
    try:
        descriptor = files.open_regular(path)
        with os.fdopen(descriptor, "rb") as file:
            if not _is_trusted(os.fstat(descriptor), os.stat(os.path.dirname(path))):
                return {}
            return _parse_cache(file.read())
    except (OSError, *PARSE_ERRORS):
        return {}


def _is_trusted(file_stat: os.stat_result, directory_stat: os.stat_result) -> bool:
    return (
        file_stat.st_uid in (0, directory_stat.st_uid)
        and not file_stat.st_mode & WRITABLE_BY_OTHERS
    )


def _parse_cache(content: bytes) -> dict[str, Tally]:
    checksum, _, text = content.partition(b"\n")
    if checksum != digest.sha256_hex(text).encode():
        raise ValueError("wrong checksum")
    cache: Any = json.loads(text)
    if cache["version"] != tally.VERSION:
        raise ValueError("other version")
    return {name: tally.from_json(e) for name, e in cache["archives"].items()}


def _write_cache(directory: str, tallies_by_archive: dict[str, Tally]) -> None:
    archives = {name: each.to_json() for name, each in tallies_by_archive.items()}
    cache = {"version": tally.VERSION, "archives": archives}
    text = json.dumps(cache).encode()
    content = digest.sha256_hex(text).encode() + b"\n" + text
    with contextlib.suppress(ArchiveError), privileges.as_owner(directory):
        files.replace(f"{directory}/{CACHE_FILE}", content, files.DRAFT_MODE)
