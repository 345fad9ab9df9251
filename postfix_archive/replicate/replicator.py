"""Brings the bucket up to date with one archive of the store.

Used by replication_service. What a part of the journal names is uploaded first, then
the details of its lines, last its chained first parts: what these objects cover, the
bucket has. So a process can be killed anywhere, and the next one goes on. Raises
ObjectStoreFailed, JournalFailed, StoreFailed, and what locks raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from postfix_archive.errors import JournalFailed, ObjectStoreFailed
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
from postfix_archive.store import (
    copy_file,
    journal,
    journal_format,
    journal_reader,
    tally_cache,
)
from postfix_archive.store.journal_reader import Line
from postfix_archive.store.known_end import KnownEnd
from postfix_archive.system import files
from postfix_archive.system.file_watch import Watch

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
        # Of the files of state.damaged, by the same offsets.
        self._watches: dict[int, Watch] = {}

    def run(self, holds: Sequence[str]) -> Iterator[None]:
        """Upload all that is new in the journals; yields after each part.

        holds are the open ones, see retention_locks.open_holds().
        """
        if self._relocking.follow_rules():
            self._save()
        if self._relocking.follow_holds(holds, self._end(journal.NAME).position):
            self._save()
        self._retry()
        for name in layout.JOURNALS:
            position = self._end(name).position
            end = self._durable_end(name, position)
            for chunk in journal_chunks.chunks(
                self._store, self._archive, name, position, end
            ):
                self._upload(chunk)
                self._is_resuming = False
                yield
        self._is_resuming = False
        directory = f"{self._store}/{self._archive}"
        if object_removal.remove(self._bucket, directory, self._archive, self._state):
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

    def _durable_end(self, journal_name: str, position: int) -> int:
        """Return the end of the last line that no crash can lose.

        After a crash the journal must have all that the bucket has. Returns position if
        there is no new line. Raises JournalFailed.
        """
        path = self._path(journal_name)
        last: Line | None = None
        for line in journal_reader.lines(path, position):
            if journal_format.is_complete(line.content[:-1]):
                last = line
        if last is None:
            return position
        number = journal_format.last_number(last.content, is_whole_file=True) or 0
        sha256 = journal_format.line_sha256(last.content)
        end = KnownEnd(last.offset, last.end, number, sha256)
        directory = f"{self._store}/{self._archive}"
        if not tally_cache.is_durable(directory, end, journal_name, waits=True):
            raise JournalFailed(
                f"{path}: line {number} cannot be made durable, so it is not uploaded;"
                " is the disk full, or its owner another user?"
            )
        return last.end

    def _read_end(self, journal_name: str) -> End:
        """Ask the bucket; the records that were removed are then looked for again."""
        part = remote_journal.last_part(self._bucket, self._archive, journal_name)
        if part is None:
            return End()
        if journal_name == journal.NAME:
            path = self._path(journal_name)
            for archive_id, offset in journal_chunks.removals(path, part.end).items():
                self._state.removed[archive_id] = Removed(offset)
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

    def _retry(self) -> None:
        """Upload files that were missing or damaged, once they have changed."""
        offsets = [
            offset
            for offset in self._state.damaged
            if offset not in self._watches or self._watches[offset].is_changed
        ]
        for line in list(journal_reader.lines_at(self._path(journal.NAME), offsets)):
            if self._is_removed(line):
                self._state.damaged.remove(line.offset)
                continue
            archive_id = journal_chunks.field(line, "id")
            lock = self.locks.of_records([archive_id])[archive_id]
            self._upload_file(journal_chunks.field(line, "file"), line, lock)
        if offsets:
            self._save()

    def _upload_file(self, name: str, line: Line, lock: Lock) -> None:
        """Upload a copy or an outcome report.

        One that is missing or damaged is reported, and tried again once it changes:
        what comes after it must not wait. Other errors are raised.
        """
        key = layout.file_key(self._archive, name)
        sha256 = journal_chunks.field(line, "file_sha256")
        path = f"{self._store}/{self._archive}/{name}"
        watch = Watch(path)
        try:
            if not (self._is_resuming and self._bucket.has(key, sha256, lock)):
                put = self._bucket.put_file
                put(key, path, lock, sha256=sha256, offset=line.offset)
            is_done, reason = True, ""
        except (FileNotFoundError, ValueError) as error:
            is_done, reason = self._is_removed(line), str(error)
            if not is_done and files.exists(path) and copy_file.is_moved(path):
                raise ObjectStoreFailed(
                    f"{path}: the whole copy is in another bucket alone; copy all"
                    " versions of its objects to this one first"
                ) from error
        except OSError as error:
            raise files.store_error(path, error) from error
        damaged = self._state.damaged
        if is_done and line.offset in damaged:
            damaged.remove(line.offset)
        elif not is_done:
            self._watches[line.offset] = watch
            if line.offset not in damaged:
                damaged.append(line.offset)
                text = f"{path}: {reason}; not replicated; run postfix-archive verify"
                self._warn(text)

    def _is_removed(self, line: Line) -> bool:
        """Return whether the record of a line was removed after it."""
        removals = journal_chunks.removals(self._path(journal.NAME))
        return line.offset < removals.get(journal_chunks.field(line, "id"), 0)

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
