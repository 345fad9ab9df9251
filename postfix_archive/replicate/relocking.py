"""Changes the locks of objects that are in the bucket: retention and holds that change.

Used by replicator, which sees the events in the journal. A lock gets longer, never
shorter: the server would refuse that. Raises ObjectStoreFailed, JournalFailed, and what
locks raise.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from postfix_archive.replicate import journal_chunks, layout
from postfix_archive.replicate.bucket import Bucket, Lock
from postfix_archive.replicate.journal_chunks import Chunk
from postfix_archive.replicate.replication_state import ArchiveState
from postfix_archive.store import journal, journal_event, journal_reader

CALENDAR_DAYS = 3  # by which the same number of months or years can differ


class Locks(Protocol):
    """How long the server must keep the objects of one archive."""

    def of_records(self, archive_ids: Iterable[str]) -> Mapping[str, Lock]:
        """Return the locks of records, by whole archive id."""

    def of_archive(self) -> Lock:
        """Return the longest lock that a record may need: that of the chain."""

    def of_day(self, until: datetime.date | None, archive_id: str) -> Lock:
        """Return the lock of a record that is kept until a day, None for ever."""

    def held(self, archive_ids: Collection[str]) -> set[str]:
        """Return which of these records a hold covers."""

    def change(self) -> None:
        """Read the holds again: other ones are open."""


class Relocking:
    """The locks of one archive's objects that are in the bucket."""

    def __init__(
        self,
        bucket: Bucket,
        store_directory: str,
        archive: str,
        locks: Locks,
        state: ArchiveState,
    ) -> None:
        self._bucket = bucket
        self._archive = archive
        self._path = journal_reader.path_of(store_directory, archive)
        self._locks = locks
        self._state = state

    def follow(self, chunk: Chunk) -> None:
        """Change what the events in a part of the journal change."""
        for line in chunk.lines:
            if line.kind == journal.RETENTION:
                event = journal_reader.valid_event(line)
                if event is not None:
                    lock = self._locks.of_day(_day(event["until"]), event["id"])
                    self._extend(event["id"], lock)

    def follow_holds(self, holds: Sequence[str], end: int) -> bool:
        """Set and release the legal hold of all records up to a position.

        If other holds are open than at the last time; returns whether they are. The
        events about one are not in the journal of an archive that came between them.
        """
        if [*holds] == self._state.holds:
            return False
        self._locks.change()
        ids = set()
        for line in journal_reader.lines(self._path):
            if journal_chunks.is_removal(line):
                ids.discard(journal_chunks.field(line, "id"))
            elif line.kind == journal.ARCHIVED and line.offset < end:
                ids.add(journal_chunks.field(line, "id"))
        held = self._locks.held(ids)
        for archive_id in sorted(held ^ {*self._state.held}):
            self._extend(archive_id, Lock(None, archive_id in held))
        self._state.held, self._state.holds = sorted(held), [*holds]
        return True

    def follow_rules(self) -> bool:
        """Lock chain and seals longer if a rule has got longer; return if one changed.

        They are the proof of records that are then kept for longer.
        """
        lock = self._locks.of_archive()
        now = datetime.datetime.now(datetime.UTC)
        days = (lock.until - now).days if lock.until else 0
        if abs(days - self._state.longest) <= CALENDAR_DAYS:
            return False
        if days > self._state.longest and self._state.ends:
            for prefix in layout.chain_prefixes(self._archive):
                self._extend_all(prefix, lock)
        self._state.longest = days
        return True

    def _extend(self, archive_id: str, lock: Lock) -> None:
        self._extend_all(layout.record_prefix(self._archive, archive_id), lock)

    def _extend_all(self, prefix: str, lock: Lock) -> None:
        for version in self._bucket.versions(prefix):
            if not version.is_marker:
                self._bucket.extend(version.key, version.version_id, lock)


def _day(until: str) -> datetime.date | None:
    """Return the day in an event, None for ever."""
    if until == journal_event.PERMANENT:
        return None
    return datetime.date.fromisoformat(until)
