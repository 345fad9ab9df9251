"""Brings the bucket up to date with one archive of the store.

Used by replication_service. What a part of the journal names is uploaded first, then
the details of its lines, last its chained first parts: what these objects cover, the
bucket has. So a process can be killed anywhere, and the next one goes on. Raises
ObjectStoreFailed, JournalFailed, StoreFailed, and what locks raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from postfix_archive.errors import ObjectStoreFailed
from postfix_archive.replicate import (
    journal_chunks,
    layout,
    object_removal,
    remote_journal,
    s3_client,
)
from postfix_archive.replicate.bucket import Bucket, Lock
from postfix_archive.replicate.journal_chunks import Chunk
from postfix_archive.replicate.relocking import Locks, Relocking
from postfix_archive.replicate.replication_state import ArchiveState, End, Removed
from postfix_archive.store import copy_file, journal, journal_format, journal_reader
from postfix_archive.store.journal_reader import Line
from postfix_archive.system import files

Warn = Callable[[str], None]
Save = Callable[[], None]  # writes the state


class Replicator:
    """Replicates one archive. ``state`` is changed in place; save keeps it."""

    def __init__(
        self,
        bucket: Bucket,
        store_directory: str,
        archive: str,
        *,
        locks: Locks,
        state: ArchiveState,
        save: Save,
        warn: Warn,
    ) -> None:
        self._bucket = bucket
        self._store = store_directory
        self._archive = archive
        self.locks = locks
        self._state = state
        self._save = save
        self._warn = warn
        self._relocking = Relocking(bucket, store_directory, archive, locks, state)
        # What an interrupted process has uploaded is not uploaded again.
        self._is_resuming = True

    def run(self) -> Iterator[None]:
        """Upload all that is new in the journals; yields after each part."""
        if self._relocking.follow_rules():
            self._save()
        for name in layout.JOURNALS:
            end = self._end(name)
            for chunk in journal_chunks.chunks(
                self._store, self._archive, name, end.position
            ):
                self._upload(chunk)
                self._is_resuming = False
                yield
        self._is_resuming = False
        if object_removal.remove(self._bucket, self._archive, self._state):
            self._save()

    def _end(self, journal_name: str) -> End:
        """Return the end of what the bucket has, which the journal must have too."""
        if journal_name not in self._state.ends:
            self._state.ends[journal_name] = self._read_end(journal_name)
            self._save()
        end = self._state.ends[journal_name]
        path = self._path(journal_name)
        if end.position and not _has_line(path, end):
            raise ObjectStoreFailed(
                f"{path}: not the journal of which the bucket has the first"
                f" {end.position} bytes: it was cut, changed or replaced; nothing is"
                " uploaded; see postfix-archive verify --object-store"
            )
        return end

    def _read_end(self, journal_name: str) -> End:
        """Ask the bucket; the records that were removed are then looked for again."""
        part = remote_journal.last_part(self._bucket, self._archive, journal_name)
        if part is None:
            return End()
        if journal_name == journal.NAME:
            path = self._path(journal_name)
            for archive_id, offset in journal_chunks.removals(path, part.end).items():
                self._state.removed[archive_id] = Removed(offset)
            self._relocking.set_holds(part.end)
        return End(part.end, remote_journal.last_sha256(self._bucket, part))

    def _upload(self, chunk: Chunk) -> None:
        chain, details = layout.split(chunk.lines)
        names = journal_chunks.files(chunk.lines)
        for archive_id in self._removed_ids(chunk):
            details.pop(archive_id, None)
            names = {
                name: line
                for name, line in names.items()
                if journal_chunks.field(line, "id") != archive_id
            }
        owners = {journal_chunks.field(line, "id") for line in names.values()}
        owners |= {*details} - {layout.WHOLE_ARCHIVE}
        if chunk.has_event(journal.HOLD_EVENTS):
            self.locks.change()
        locks = self.locks.of_records(owners)
        archive_lock = self.locks.of_archive()
        part = chunk.part
        with ThreadPoolExecutor(s3_client.CONNECTIONS) as pool:
            uploads = [
                pool.submit(
                    self._upload_file,
                    name,
                    line,
                    locks[journal_chunks.field(line, "id")],
                )
                for name, line in names.items()
            ]
            for owner, content in details.items():
                lock = locks.get(owner, archive_lock)
                key = part.details_key(owner)
                put = self._bucket.put
                uploads.append(pool.submit(put, key, content, lock, offset=part.start))
            _wait(pool, uploads)
        self._relocking.follow(chunk)
        self._bucket.put(part.key, chain, archive_lock, offset=part.start)
        last_sha256 = journal_format.line_sha256(chunk.lines[-1].content)
        self._state.ends[part.journal] = End(part.end, last_sha256)
        for archive_id in chunk.removed_ids():
            self._state.removed[archive_id] = Removed(part.start)
        held = {archive_id for archive_id, lock in locks.items() if lock.is_held}
        self._state.held = sorted(held.union(self._state.held))
        self._save()

    def _upload_file(self, name: str, line: Line, lock: Lock) -> None:
        """Upload a copy or an outcome report; one that is damaged is only reported."""
        key = layout.file_key(self._archive, name)
        sha256 = journal_chunks.field(line, "file_sha256")
        if self._is_resuming and self._bucket.has(key, sha256, lock):
            return
        path = f"{self._store}/{self._archive}/{name}"
        try:
            self._bucket.put_file(key, path, lock, sha256=sha256, offset=line.offset)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", "") or str(error)
            self._warn(f"{path}: {reason}; not replicated; run postfix-archive verify")

    def _removed_ids(self, chunk: Chunk) -> set[str]:
        """Return the ids of records in a chunk that are removed by now.

        Their details are struck out soon if they are not yet, and nobody can say for
        how long they should be locked. Looks in the journal for records without a copy.
        """
        if chunk.part.journal != journal.NAME:
            return set()
        missing = {
            each
            for each in chunk.owners()
            if not files.exists(
                f"{self._store}/{self._archive}/{copy_file.copy_name(each)}"
            )
        }
        if not missing:
            return missing
        return missing & journal_chunks.removals(self._path(journal.NAME)).keys()

    def _path(self, journal_name: str) -> str:
        return journal_reader.path_of(self._store, self._archive, journal_name)


def _wait(pool: Executor, uploads: list[Future[None]]) -> None:
    """Wait for all; after an error start no more. Raises the first error."""
    try:
        for each in uploads:
            each.result()
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _has_line(path: str, end: End) -> bool:
    """Return whether a journal has this line, and it ends at this position."""
    if journal_reader.end_offset(path) < end.position:
        return False
    line = journal_reader.line_before(path, end.position)
    return journal_format.line_sha256(line) == end.sha256
