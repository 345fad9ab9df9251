"""Divides what is new in a journal into the parts that are uploaded together.

Used by replicator. A removal begins a new part, unless it follows another one. So each
part is either before or after a removal, and what was uploaded before it can go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from postfix_archive.replicate import layout
from postfix_archive.replicate.layout import JournalPart
from postfix_archive.store import (
    journal,
    journal_event,
    journal_format,
    journal_reader,
)
from postfix_archive.store.journal_reader import Line

CHUNK_LINES = 1000
CHUNK_BYTES = 4 << 20  # bytes of lines; a single one can have 20 MB
FILE_EVENTS = (journal.ARCHIVED, journal.OUTCOME_REPORT)


class Chunk(NamedTuple):
    """Whole lines of one segment, and the part of the journal that they are."""

    part: JournalPart
    lines: list[Line]

    def removed_ids(self) -> set[str]:
        """Return the ids of the records that the part says were removed."""
        return {field(each, "id") for each in self.lines if is_removal(each)}

    def owners(self) -> set[str]:
        """Return the ids of the records that the part is about."""
        lines = (each.content.partition(layout.TAB)[0] for each in self.lines)
        return {layout.owner_of(each) for each in lines} - {layout.WHOLE_ARCHIVE}


def chunks(
    store_directory: str,
    archive: str,
    journal_name: str,
    position: int,
    limit: float = math.inf,
) -> Iterator[Chunk]:
    """Yield all that a journal has between two positions."""
    path = journal_reader.path_of(store_directory, archive, journal_name)
    for segment, start, end in journal_reader.segments(path):
        if end > position:
            span = lines_between(path, max(start, position), min(end, limit))
            for lines in _divided(span):
                part = JournalPart(
                    archive, journal_name, segment, lines[0].offset, lines[-1].end
                )
                yield Chunk(part, lines)


def files(lines: Iterable[Line]) -> dict[str, Line]:
    """Return the lines that name a file, by its name within the archive."""
    return {field(each, "file"): each for each in lines if _is_file(each)}


def removals(path: str, end: float = math.inf) -> dict[str, int]:
    """Return the ids of removed records in a journal up to a position.

    Each with the start of its last removal, or of the removals in a row before it:
    that of a part.
    """
    offsets: dict[str, int] = {}
    start, last_end = 0, -1
    for line in journal_reader.lines(path):
        if line.offset >= end:
            break
        if is_removal(line):
            start = start if line.offset == last_end else line.offset
            last_end = line.end
            offsets[field(line, "id")] = start
    return offsets


def is_removal(line: Line) -> bool:
    """Return whether a line says that a record was removed."""
    return line.kind in journal.REMOVAL_EVENTS


def field(line: Line, name: str) -> str:
    """Return a string of the first part of a line, "" if not found; not checked."""
    return journal_format.string_field(line.content.partition(layout.TAB)[0], name)


def _is_file(line: Line) -> bool:
    return line.kind in FILE_EVENTS and journal_event.is_file_name(field(line, "file"))


def lines_between(path: str, start: int, end: float) -> Iterator[Line]:
    """Yield the lines that begin between two positions."""
    for line in journal_reader.lines(path, start):
        if line.offset >= end:
            return
        yield line


def _divided(lines: Iterator[Line]) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    size = 0
    for line in lines:
        is_first_removal = is_removal(line) and chunk and not is_removal(chunk[-1])
        if is_first_removal or len(chunk) == CHUNK_LINES or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line.content)
    if chunk:
        yield chunk
