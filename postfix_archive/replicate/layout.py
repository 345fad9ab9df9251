"""The objects in a bucket: their keys, and how they hold a journal. Pure.

Used by replicator, comparison and restore; docs/object-storage.md specifies it. A part
of a journal is one object with the chained first parts of its lines, and for each
record in it one object with the details, so that these can go before the chain does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from postfix_archive.message import digest, received_header
from postfix_archive.store import copy_file, journal, journal_format
from postfix_archive.store.journal_reader import Line

JOURNALS = ("journal", "access")
SEALS = "seals"
COPY_SUFFIX = ".eml.gz"
TAB = journal_format.TAB
# Bytes of a part: journal_chunks.CHUNK_BYTES and one line more, of some 20 MB. The
# key of another, in a bucket, would be an order to fill memory and disk with spaces.
MAX_PART_SIZE = 256 << 20
DIGITS = 18  # of an offset in a key, so that keys sort as numbers do
WHOLE_ARCHIVE = ""  # the owner of details that are not about a record


class JournalPart(NamedTuple):
    """A part of a journal: from ``start`` to ``end``, in bytes, within one segment."""

    archive: str
    journal: str
    segment: str
    start: int
    end: int

    @property
    def key(self) -> str:
        """The key of the object with the chained part of the lines."""
        return (
            f"{parts_prefix(self.archive, self.journal)}{self.segment}/"
            f"{self.start:0{DIGITS}d}-{self.end:0{DIGITS}d}"
        )

    def details_key(self, owner: str) -> str:
        """Return the key of the object with the details of a record, or of no one."""
        if owner == WHOLE_ARCHIVE:
            directory = f"{self.archive}/{self.journal}.details/{self.segment}"
            return f"{directory}/{self.start:0{DIGITS}d}"
        return f"{record_prefix(self.archive, owner)}details/{self.start:0{DIGITS}d}"


def parts_prefix(archive: str, journal_name: str) -> str:
    """Return what the keys of the parts of a journal begin with."""
    return f"{archive}/{journal_name}/"


def chain_prefixes(archive: str) -> list[str]:
    """Return what the keys of all objects begin with that are about no one record.

    Those of the seals are of all archives.
    """
    return [*(f"{archive}/{each}" for each in JOURNALS), f"{SEALS}/"]


def parse_part(key: str) -> JournalPart | None:
    """Return the part of a journal that a key names, None for another key."""
    archive, _, rest = key.partition("/")
    journal_name, _, rest = rest.partition("/")
    segment, _, numbers = rest.partition("/")
    start, _, end = numbers.partition("-")
    is_part = (
        journal_name in JOURNALS
        and journal_format.is_segment_name(segment)
        and len(start) == len(end) == DIGITS
        and (start + end).isascii()
        and (start + end).isdigit()
        and 0 < int(end) - int(start) <= MAX_PART_SIZE
    )
    if not is_part:
        return None
    return JournalPart(archive, journal_name, segment, int(start), int(end))


def file_key(archive: str, name: str) -> str:
    """Return the key of a file, given its name within the archive."""
    return f"{archive}/{name}"


def record_prefix(archive: str, archive_id: str) -> str:
    """Return what the keys of all objects of a record, and of no other, begin with."""
    name = copy_file.copy_name(archive_id).removesuffix(COPY_SUFFIX)
    return f"{archive}/{name}."


def owner_of(first: bytes) -> str:
    """Return the id of the record whose removal takes the details of a line with it.

    The first part of the line is given. The event of the removal itself outlives it.
    """
    archive_id = journal_format.string_field(first, "id")
    kind = journal_format.string_field(first, "event")
    if kind in journal.REMOVAL_EVENTS or not received_header.is_archive_id(archive_id):
        return WHOLE_ARCHIVE
    return archive_id


def add_removals(
    removals: dict[str, float], firsts: Iterable[tuple[int, bytes]]
) -> None:
    """Add the records that lines say were removed: offsets and first parts are given.

    ``removals`` has by archive id up to where all lines are of what was removed: to the
    end, unless it was archived again. So are later lines, such as that of an outcome,
    whose details the bucket need not have.
    """
    for offset, first in firsts:
        archive_id = journal_format.string_field(first, "id")
        kind = journal_format.string_field(first, "event")
        if kind in journal.REMOVAL_EVENTS:
            removals[archive_id] = math.inf
        elif kind == journal.ARCHIVED and removals.get(archive_id) == math.inf:
            removals[archive_id] = offset


def split(lines: Iterable[Line]) -> tuple[bytes, dict[str, bytes]]:
    """Return the chained part of lines, and the details by their owner.

    In the chained part the size of the second part stands in its place. Details that
    are struck out are left out.
    """
    chain: list[bytes] = []
    details: dict[str, list[bytes]] = {}
    for line in lines:
        first, tab, second = line.content[:-1].partition(TAB)
        chain.append(first + (b"\t%d" % len(second) if tab else b"") + b"\n")
        if second.strip(b" "):
            details.setdefault(owner_of(first), []).append(
                b"%d\t%s\n" % (line.offset, second)
            )
    return b"".join(chain), {owner: b"".join(each) for owner, each in details.items()}


class ChainedLine(NamedTuple):
    """A line without its details; ``details_size`` is -1 for one that has no TAB."""

    offset: int
    first: bytes
    details_size: int

    @property
    def end(self) -> int:
        """The offset of the next line."""
        return self.offset + len(self.first) + max(0, 1 + self.details_size) + 1

    def joined(self, details: bytes | None) -> bytes:
        """Return the line with these details, or with spaces."""
        if self.details_size < 0:
            return self.first + b"\n"
        return self.first + TAB + (details or b" " * self.details_size) + b"\n"

    @property
    def is_complete(self) -> bool:
        """True unless a crash has torn the line, or it is damaged."""
        return journal_format.is_complete(self.joined(None)[:-1])

    def is_of(self, details: bytes) -> bool:
        """Return whether details are those of this line.

        Of a line that a crash has torn only the size of what is there is known.
        """
        has_digest = not self.is_complete or (
            journal_format.string_field(self.first, "details_sha256")
            == digest.sha256_hex(details)
        )
        return len(details) == self.details_size and has_digest


def chained_lines(chain: bytes, start: int) -> Iterator[ChainedLine]:
    """Yield the lines of a chained part. Raises ValueError if it is none."""
    if not chain.endswith(b"\n"):
        raise ValueError("cut short")
    for each in chain[:-1].split(b"\n"):
        first, tab, size = each.partition(TAB)
        if tab and not journal_format.is_number(size):
            raise ValueError("no size")
        line = ChainedLine(start, first, int(size) if tab else -1)
        yield line
        start = line.end


def parse_details(content: bytes) -> dict[int, bytes]:
    """Return details by the offsets of their lines; what is damaged is left out."""
    details = {}
    for line in content.split(b"\n"):
        offset, tab, text = line.partition(TAB)
        if tab and journal_format.is_number(offset):
            details[int(offset)] = text
    return details
