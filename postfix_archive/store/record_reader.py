"""Read the store: archives, records, archive copies, originals.

Used by the commands, outcomes and status. Changes nothing. Raises StoreFailed,
JournalFailed, RecordNotFound and RecordDamaged.
"""

from __future__ import annotations

import os
from itertools import chain

from postfix_archive.errors import (
    JournalFailed,
    RecordDamaged,
    RecordNotFound,
    StoreFailed,
)
from postfix_archive.message import address, header
from postfix_archive.store import copy_file, journal, record
from postfix_archive.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from postfix_archive.store.record import Record

END_OF_HEADER = b"\r\n\r\n"


def archives(directory: str) -> list[str]:
    """Return the addresses of all archives; [] if the store directory is missing."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreFailed(
            f"{directory}: {error.strerror}; run this as root or as the archive's user"
        ) from error
    return [each for each in names if address.is_plain(os.fsencode(each))]


def records(directory: str, archive: str) -> dict[str, Record]:
    """Return all records of one archive by archive id, oldest first."""
    return record.merge(archive, _events(f"{directory}/{archive}/{journal.FILE_NAME}"))


def select_records(
    directory: str, archive: str, record_ids: set[str]
) -> dict[str, Record]:
    """Return the records with these archive ids; parse no other journal lines."""
    path = f"{directory}/{archive}/{journal.FILE_NAME}"
    return record.merge(archive, _events(path, record_ids))


def record_at(
    directory: str, archive: str, record_id: str, offsets: list[int]
) -> Record | None:
    """Return the record whose journal lines start at these offsets.

    None if a line belongs to another record, or if the ``archived`` line is missing.
    """
    path = f"{directory}/{archive}/{journal.FILE_NAME}"
    events = []
    for offset in offsets:
        line, _ = next(lines_from(path, offset), (b"", 0))
        try:
            event = record.parse_event(line)
        except ValueError:
            return None
        if event is None or event.get("id") != record_id:
            return None
        events.append(event)
    if not any(each.get("file") == copy_file.copy_name(record_id) for each in events):
        return None
    return record.merge(archive, events).get(record_id)


def lines_from(path: str, offset: int) -> Iterator[tuple[bytes, int]]:
    """Yield the complete lines of a journal from an offset on, each with its offset.

    A journal that is shorter than offset has been replaced: it is read from the start.
    """
    try:
        with os.fdopen(files.open_regular(path), "rb") as file:
            if os.fstat(file.fileno()).st_size < offset:
                offset = 0
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield line, offset
                offset += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalFailed(f"{path}: {error.strerror}") from error


def find_record(directory: str, id_prefix: str, archive: str | None) -> Record:
    """Return the record whose archive id starts with id_prefix.

    Searches one archive, or all for None. Raises RecordNotFound for no or several
    matches.
    """
    addresses = [archive] if archive else archives(directory)
    matches = [
        each
        for name in addresses
        for archive_id, each in records(directory, name).items()
        if archive_id.startswith(id_prefix)
    ]
    if not matches:
        raise RecordNotFound(
            f"no record {id_prefix} in {directory}; run postfix-archive list to see all"
        )
    if len(matches) > 1:
        ids = ", ".join(f"{each.archive_id} ({each.archive})" for each in matches[:5])
        raise RecordNotFound(
            f"{id_prefix} matches {len(matches)} records: {ids}; give a longer prefix,"
            " or --archive"
        )
    return matches[0]


def archive_copy(directory: str, message: Record) -> Iterator[bytes]:
    """Yield the bytes of the archive copy. Raises RecordDamaged and StoreFailed."""
    file_name = message.files[0] if message.files else ""
    if {"", ".", ".."} & set(file_name.split("/")):
        raise RecordDamaged(
            f"{message.archive_id}: no valid file name in the journal; run"
            " postfix-archive verify"
        )
    return copy_file.decompress(f"{directory}/{message.archive}/{file_name}")


def original(directory: str, message: Record) -> Iterator[bytes]:
    """Yield the bytes of the original, exactly as received."""
    remaining = int(message.events[0]["size"])
    chunks = archive_copy(directory, message)
    head, start = copy_file.read_head(chunks)
    if start < 0:
        raise RecordDamaged(
            f"{message.files[0]}: no original in this file; restore it from a backup"
        )
    for chunk in chain((head[start:],), chunks):
        yield chunk[:remaining]
        remaining -= len(chunk[:remaining])
        if not remaining:
            return
    if remaining:
        raise RecordDamaged(
            f"{message.files[0]}: the original is truncated; restore it from a backup"
        )


def original_head(directory: str, message: Record) -> bytes:
    """Return the original up to the end of its header, at least, or HEAD_LIMIT."""
    head = b""
    for chunk in original(directory, message):
        head += chunk
        if END_OF_HEADER in head or len(head) > header.HEAD_LIMIT:
            break
    return head


def outcome_report(directory: str, message: Record) -> Iterator[bytes]:
    """Yield the bytes of the latest outcome report. Raises RecordNotFound."""
    if not message.reports:
        raise RecordNotFound(
            f"{message.archive_id} has no outcome report yet; it is written when all"
            " recipients have a final outcome, see postfix-archive show"
        )
    return copy_file.decompress(
        f"{directory}/{message.archive}/{list(message.reports)[-1]}"
    )


def _events(path: str, record_ids: set[str] | None = None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(journal.lines(path), 1):
        if record_ids is not None and _record_id(line) not in record_ids:
            continue
        try:
            event = record.parse_event(line)
        except ValueError as error:
            raise JournalFailed(
                f"{path}, line {number}: not a journal line; run postfix-archive verify"
            ) from error
        if event is not None:
            yield event


def _record_id(line: bytes) -> str:
    """Return the archive id in a line. A quote inside a JSON string is escaped."""
    record_id = line.partition(b'"id":"')[2].partition(b'"')[0]
    return record_id.decode("ascii", "replace")
