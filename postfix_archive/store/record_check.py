"""Checks the files of one record against its journal events.

Used by show; verifier checks a whole archive with its chain. Changes nothing.
"""

from __future__ import annotations

from postfix_archive.errors import RecordDamaged, StoreFailed
from postfix_archive.message import digest
from postfix_archive.store import copy_file, record_reader
from postfix_archive.store.record import Record


def problems(directory: str, message: Record) -> list[str]:
    """Return what of a record differs from the journal: [] if all is as it was.

    Checks the SHA-256 of every file, and the SHA-256 and size of the original.
    """
    found = []
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
