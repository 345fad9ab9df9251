"""Checks the journal lines and the files of one record.

Used by show; verifier checks a whole archive with its chain. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from postfix_archive.errors import RecordDamaged, StoreFailed
from postfix_archive.message import digest
from postfix_archive.store import (
    copy_file,
    journal_format,
    journal_reader,
    record_reader,
)
from postfix_archive.store.record import Record


def problems(directory: str, message: Record, offsets: Iterable[int]) -> list[str]:
    """Return what of a record is not as it was: [] if all is.

    Checks the hashes of its journal lines, which begin at these offsets, the SHA-256 of
    every file, and the SHA-256 and size of the original.
    """
    path = journal_reader.path_of(directory, message.archive)
    found = list(_line_problems(path, offsets))
    for event in message.events:
        if "file" not in event:
            continue
        path = f"{directory}/{message.archive}/{event['file']}"
        try:
            if _file_sha256(path) != event.get("file_sha256"):
                found.append(f"{path}: SHA-256 differs from the journal")
        except StoreFailed as error:
            found.append(str(error))
    if not found:
        found += _original_problems(directory, message)
    return found


def _line_problems(path: str, offsets: Iterable[int]) -> Iterator[str]:
    """Yield which lines have other details, or another hash than the next one names.

    The hash of the last line of a journal is in no other line: verify checks it.
    """
    for line in journal_reader.lines_at(path, offsets):
        if not (line.is_struck_out or line.has_intact_details):
            yield f"{path}, byte {line.offset}: details differ from their SHA-256"
        sha256 = journal_format.line_sha256(line.content)
        for following in journal_reader.lines_at(path, [line.end]):
            prev = journal_format.string_field(following.content, "prev")
            if prev and prev != sha256:
                yield f"{path}, byte {line.offset}: the next line names another hash"


def _original_problems(directory: str, message: Record) -> list[str]:
    sha256 = digest.sha256()
    try:
        for chunk in record_reader.original(directory, message):
            sha256.update(chunk)
    except (RecordDamaged, StoreFailed) as error:
        return [str(error)]
    if sha256.hexdigest() != message.events[0]["sha256"]:
        return [f"{message.files[0]}: SHA-256 of the original differs from the journal"]
    return []


def _file_sha256(path: str) -> str:
    sha256 = digest.sha256()
    for block in copy_file.read_blocks(path):
        sha256.update(block)
    return sha256.hexdigest()
