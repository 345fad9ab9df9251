"""Reads a journal out of a bucket: its parts, in order, each proven by the chain.

Used by replicator, comparison and restore. Whoever can write to a bucket with Object
Lock can add versions, but not remove those that are there: of several, the oldest
upload that continues the chain is the right one. Raises ObjectStoreFailed.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from postfix_archive.errors import ObjectMissing
from postfix_archive.replicate import layout
from postfix_archive.replicate.bucket import Bucket, Version
from postfix_archive.replicate.layout import ChainedLine, JournalPart
from postfix_archive.store import journal_format, journal_segment

Report = Callable[[int], None]  # gets a position in the journal


class ReadPart(NamedTuple):
    """A part as it was read: its lines, and whether they continue the chain.

    The lines are those that no part before it has: all, or the last ones.
    """

    part: JournalPart
    lines: list[ChainedLine]
    is_chained: bool


class _PartVersion(NamedTuple):
    """One version of a part; the oldest upload has the least ``age``."""

    age: tuple[datetime.datetime, int, int]
    part: JournalPart
    version_id: str


def archives(bucket: Bucket) -> list[str]:
    """Return the addresses of the archives that have a journal in the bucket."""
    return bucket.directories("@")


def last_part(bucket: Bucket, archive: str, journal_name: str) -> JournalPart | None:
    """Return the last part that the others lead to, by the keys alone."""
    versions = bucket.versions(layout.parts_prefix(archive, journal_name))
    parts = {layout.parse_part(each.key) for each in versions if not each.is_marker}
    ends: dict[int, JournalPart] = {}
    for part in sorted(filter(None, parts), key=lambda each: each.end):
        ends[part.start] = part  # the longest
    last, position = None, 0
    while position in ends:
        last = ends[position]
        position = last.end
    return last


def read(
    bucket: Bucket, archive: str, journal_name: str, report: Report
) -> Iterator[ReadPart]:
    """Yield the parts of a journal from its start on, each where the last one ends.

    report gets the position at which it stops although the bucket has parts that go
    beyond it: one is damaged, or was lost.
    """
    versions = _versions(bucket, layout.parts_prefix(archive, journal_name))
    later = sorted(versions, key=lambda each: -each.part.start)
    candidates: list[_PartVersion] = []
    position, last_sha256 = 0, journal_segment.FIRST_PREV
    while True:
        # What an interrupted process has uploaded may end within a later part.
        candidates = [each for each in candidates if each.part.end > position]
        while later and later[-1].part.start <= position:
            candidates.append(later.pop())
        found = _read_oldest(bucket, sorted(candidates), position, last_sha256)
        if found is None:
            break
        yield found
        position = found.part.end
        last_sha256 = line_sha256(found.lines[-1])
    if candidates or later:
        report(position)


def _versions(bucket: Bucket, prefix: str) -> list[_PartVersion]:
    """Return all versions of the parts of a journal.

    Of one key that which is listed last is the oldest.
    """
    parts = []
    for number, version in enumerate(bucket.versions(prefix)):
        part = layout.parse_part(version.key)
        if part is not None and not version.is_marker:
            age = version.modified, part.end, -number
            parts.append(_PartVersion(age, part, version.version_id))
    return parts


def last_sha256(bucket: Bucket, part: JournalPart) -> str:
    """Return the hash of the last line of a part, "" if the part is damaged."""
    lines = _parse(bucket.get(part.key), part)
    return line_sha256(lines[-1]) if lines else ""


def line_sha256(line: ChainedLine) -> str:
    """Return the hash by which the next line names this one."""
    return journal_format.line_sha256(line.first)


def _read_oldest(
    bucket: Bucket,
    versions: Iterable[_PartVersion],
    position: int,
    last_sha256: str,
) -> ReadPart | None:
    """Return the oldest upload that continues the chain at a position.

    Of a part that begins before it, the rest: the chain proves the lines before that.
    Without one, the oldest that fits.
    """
    fitting: ReadPart | None = None
    for _, part, version_id in versions:
        lines = _parse(bucket.get(part.key, version_id), part)
        lines = [each for each in lines if each.offset >= position]
        if not lines or lines[0].offset != position:
            continue
        if _is_chained(lines, last_sha256):
            return ReadPart(part, lines, True)
        if part.start == position and fitting is None:
            fitting = ReadPart(part, lines, False)
    return fitting


def _parse(chain: bytes, part: JournalPart) -> list[ChainedLine]:
    """Return the lines of a part, [] if it is damaged or not of this size."""
    try:
        lines = list(layout.chained_lines(chain, part.start))
    except ValueError:
        return []
    return lines if lines[-1].end == part.end else []


def _is_chained(lines: Iterable[ChainedLine], last_sha256: str) -> bool:
    for line in lines:
        if line.is_complete:
            if journal_format.string_field(line.first, "prev") != last_sha256:
                return False
        last_sha256 = line_sha256(line)
    return True


def details(
    bucket: Bucket, part: JournalPart, owner: str, lines: Sequence[ChainedLine]
) -> dict[int, bytes]:
    """Return the details of those lines of a part that are about a record.

    By the offset of the line; what is missing, or has another digest, is left out.
    """
    found: dict[int, bytes] = {}
    for content in _contents(bucket, part.details_key(owner)):
        texts = layout.parse_details(content)
        for line in lines:
            text = texts.get(line.offset)
            if text is not None and line.is_of(text):
                found.setdefault(line.offset, text)
        if len(found) == len(lines):
            break
    return found


def _contents(bucket: Bucket, key: str) -> Iterator[bytes]:
    """Yield the content of an object, then that of its other versions."""
    with contextlib.suppress(ObjectMissing):
        yield bucket.get(key)
    for version in other_versions(bucket, key):
        yield bucket.get(key, version.version_id)


def other_versions(bucket: Bucket, key: str) -> Iterator[Version]:
    """Yield the versions of an object, oldest first, that a plain get may not find."""
    versions = [each for each in bucket.versions(key) if each.key == key]
    return (each for each in reversed(versions) if not each.is_marker)
