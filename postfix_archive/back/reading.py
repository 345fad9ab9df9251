"""Read the store: archives, records, archive copies, originals.

Used by the commands, outcomes and status. Changes nothing. Raises StoreFailed,
JournalFailed, RecordNotFound and RecordDamaged.
"""

from __future__ import annotations

import os
from itertools import chain

from postfix_archive.back import files, journal, store, stored
from postfix_archive.core import address, header, record
from postfix_archive.core.errors import (
    JournalFailed,
    RecordDamaged,
    RecordNotFound,
    StoreFailed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from postfix_archive.core.record import Record

GAPS = record.GAPS
END_OF_HEADER = b"\r\n\r\n"


def archives(folder: str) -> list[str]:
    """Return the addresses of all archives; [] if the store directory is missing."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise StoreFailed(
            f"{folder}: {problem.strerror}; run this as root or as the archive's user"
        ) from problem
    return [each for each in names if address.is_plain(os.fsencode(each))]


def records(folder: str, archive: str) -> dict[str, Record]:
    """Return all records of one archive by archive id, oldest first."""
    return record.merged(archive, _events(f"{folder}/{archive}/{journal.NAME}"))


def some(folder: str, archive: str, ids: set[str]) -> dict[str, Record]:
    """Return the records with these archive ids; parse no other journal lines."""
    path = f"{folder}/{archive}/{journal.NAME}"
    return record.merged(archive, _events(path, ids))


def at(folder: str, archive: str, record_id: str, places: list[int]) -> Record | None:
    """Return the record whose journal lines start at these offsets.

    None if a line belongs to another record, or if the ``archived`` line is missing.
    """
    path = f"{folder}/{archive}/{journal.NAME}"
    events = []
    for place in places:
        line, _ = next(lines_from(path, place), (b"", 0))
        try:
            event = record.read(line)
        except ValueError:
            return None
        if event is None or event.get("id") != record_id:
            return None
        events.append(event)
    if not any(each.get("file") == store.place(record_id) for each in events):
        return None
    return record.merged(archive, events).get(record_id)


def lines_from(path: str, offset: int) -> Iterator[tuple[bytes, int]]:
    """Yield the complete lines of a journal from an offset on, each with its offset.

    A journal that is shorter than offset has been replaced: it is read from the start.
    """
    try:
        with os.fdopen(files.opened(path), "rb") as opened:
            if os.fstat(opened.fileno()).st_size < offset:
                offset = 0
            opened.seek(offset)
            for raw in opened:
                if not raw.endswith(b"\n"):
                    return
                yield raw, offset
                offset += len(raw)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise JournalFailed(f"{path}: {problem.strerror}") from problem


def gaps(folder: str, archive: str) -> list[dict[str, Any]]:
    """Return the latest event of each bypass period that the journal records."""
    told = {
        event["opened"]: event
        for event in _events(f"{folder}/{archive}/{journal.NAME}")
        if event["event"] in GAPS
    }
    return list(told.values())


def found(folder: str, wanted: str, only: str | None) -> Record:
    """Return the record whose archive id starts with id_prefix.

    Searches one archive, or all for None. Raises RecordNotFound for no or several
    matches.
    """
    places = [only] if only else archives(folder)
    matching = [
        each
        for place in places
        for archive_id, each in records(folder, place).items()
        if archive_id.startswith(wanted)
    ]
    if not matching:
        raise RecordNotFound(
            f"no record {wanted} in {folder}; run postfix-archive list to see all"
        )
    if len(matching) > 1:
        names = ", ".join(
            f"{each.archive_id} ({each.archive})" for each in matching[:5]
        )
        raise RecordNotFound(
            f"{wanted} matches {len(matching)} records: {names}; give a longer prefix,"
            " or --archive"
        )
    return matching[0]


def copy(folder: str, kept: Record) -> Iterator[bytes]:
    """Yield the bytes of the archive copy. Raises RecordDamaged and StoreFailed."""
    name = kept.files[0] if kept.files else ""
    if {"", ".", ".."} & set(name.split("/")):
        raise RecordDamaged(
            f"{kept.archive_id}: no valid file name in the journal; run postfix-archive"
            " verify"
        )
    return stored.unpacked(f"{folder}/{kept.archive}/{name}")


def original(folder: str, kept: Record) -> Iterator[bytes]:
    """Yield the bytes of the original, exactly as received."""
    left = int(kept.events[0]["size"])
    pieces = copy(folder, kept)
    head, start = stored.begun(pieces)
    if start < 0:
        raise RecordDamaged(
            f"{kept.files[0]}: no original in this file; restore it from a backup"
        )
    for piece in chain((head[start:],), pieces):
        yield piece[:left]
        left -= len(piece[:left])
        if not left:
            return
    if left:
        raise RecordDamaged(
            f"{kept.files[0]}: the original is truncated; restore it from a backup"
        )


def original_head(folder: str, kept: Record) -> bytes:
    """Return the original up to the end of its header, at least, or HEAD_LIMIT."""
    head = b""
    for piece in original(folder, kept):
        head += piece
        if END_OF_HEADER in head or len(head) > header.HEAD_LIMIT:
            break
    return head


def outcome_report(folder: str, kept: Record) -> Iterator[bytes]:
    """Yield the bytes of the latest outcome report. Raises RecordNotFound."""
    if not kept.reports:
        raise RecordNotFound(
            f"{kept.archive_id} has no outcome report yet; it is written when all"
            " recipients have a final outcome, see postfix-archive show"
        )
    return stored.unpacked(f"{folder}/{kept.archive}/{list(kept.reports)[-1]}")


def _events(path: str, ids: set[str] | None = None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(journal.lines(path), 1):
        if ids is not None and _id(line) not in ids:
            continue
        try:
            event = record.read(line)
        except ValueError as problem:
            raise JournalFailed(
                f"{path}, line {number}: not a journal line; run postfix-archive verify"
            ) from problem
        if event is not None:
            yield event


def _id(line: bytes) -> str:
    """Return the archive id in a line. A quote inside a JSON string is escaped."""
    named = line.partition(b'"id":"')[2].partition(b'"')[0]
    return named.decode("ascii", "replace")
