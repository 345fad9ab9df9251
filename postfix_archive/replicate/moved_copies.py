"""Moves old copies to the object storage alone (archive_local_days), and reads them.

Used by replication_service and, to read them, by all commands. A copy is moved once its
object was read back whole, has the SHA-256 of the journal and the lock that the record
needs now. In this order, so that it can be killed anywhere and be run again: an event
``moved`` is durable; then a file with the header alone takes the place of the copy.
Raises ObjectStoreFailed, StoreFailed, JournalFailed, and what locks raise.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from postfix_archive.config import archive_cf, object_store
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    ArchiveError,
    CopyUnreachable,
    ObjectMissing,
    StoreFailed,
)
from postfix_archive.message import dates, digest, header
from postfix_archive.replicate import bucket as buckets
from postfix_archive.replicate import journal_chunks, layout, remote_journal
from postfix_archive.replicate.bucket import Bucket, Lock
from postfix_archive.replicate.relocking import Locks
from postfix_archive.replicate.replication_state import ArchiveState, End
from postfix_archive.store import archive as store_archive
from postfix_archive.store import copy_file, journal, journal_event, journal_reader
from postfix_archive.store.journal_reader import Line
from postfix_archive.system import files, spool
from postfix_archive.system.spool import Spool

# Copies that are moved before the service looks at the journals again.
BATCH_SIZE = 50
RETRY_SECONDS = 30.0  # after a failure: each copy would wait for the server
END_OF_HEADER = b"\r\n\r\n"


class Mover:
    """Moves the copies of one archive. ``state`` is changed in place."""

    def __init__(
        self,
        settings: Settings,
        bucket: Bucket,
        archive: str,
        locks: Locks,
        state: ArchiveState,
        warn: Callable[[str], None],
    ) -> None:
        self._bucket = bucket
        self._url = object_store.parse(settings.archive_object_store)
        self._archive = store_archive.of_settings(settings, archive)
        self._path = journal_reader.path_of(settings.archive_store_directory, archive)
        self._days = settings.archive_local_days
        self._locks = locks
        self._state = state
        self._warn = warn
        self._looked_at = state.moved  # in the journal

    def run(self) -> Iterator[None]:
        """Move at most BATCH_SIZE copies that are old enough; yields after each."""
        newest = dates.format_rfc3339(time.time() - self._days * dates.DAY_SECONDS)
        lines = list(islice(self._old_lines(newest), BATCH_SIZE))
        present = [each for each in lines if self._is_here(each)]
        ids = [journal_chunks.field(each, "id") for each in present]
        locks = self._locks.of_records(ids)
        for line, archive_id in zip(present, ids, strict=True):
            self._move(line, archive_id, locks[archive_id])
            self._state.moved = line.end
            yield
        self._state.moved = self._looked_at

    def _old_lines(self, newest: str) -> Iterator[Line]:
        """Yield the lines of captures that the bucket has, up to this time.

        Other lines up to there are not looked at again.
        """
        end = self._state.ends.get(journal.NAME, End()).position
        for line in journal_chunks.lines_between(self._path, self._state.moved, end):
            is_capture = line.kind == journal.ARCHIVED and line.is_complete
            if is_capture and line.time > newest:
                return
            self._looked_at = line.end
            is_right = line.offset not in self._state.damaged
            if is_capture and is_right and not line.is_struck_out:
                yield line

    def _is_here(self, line: Line) -> bool:
        """Return whether the whole copy is in the store."""
        name = journal_chunks.field(line, "file")
        path = self._archive.path(name)
        is_file = journal_event.is_file_name(name) and files.exists(path)
        return is_file and not copy_file.is_moved(path)

    def _move(self, line: Line, archive_id: str, lock: Lock) -> None:
        name = journal_chunks.field(line, "file")
        sha256 = journal_chunks.field(line, "file_sha256")
        path = self._archive.path(name)
        key = layout.file_key(self._archive.address, name)
        before = _identity(path)
        if not lock.is_effective:
            return  # nothing protects its object: the period is over
        if digest.sha256_of(copy_file.local_blocks(path)).hexdigest() != sha256:
            return  # verify reports it
        is_proved = self._bucket.has(key, sha256, lock) and (
            digest.sha256_of(self._bucket.chunks(key)).hexdigest() == sha256
        )
        if not is_proved:
            self._warn(
                f"{path}: not in the bucket as it is here, so it stays; run"
                " postfix-archive verify --object-store"
            )
            return
        draft = files.Draft(f"{self._archive.directory}/{store_archive.DRAFTS}")
        try:
            content = header_file(path, sha256)
            if len(content) >= os.stat(path).st_size:
                return
            draft.write(content)
            draft.sync()
            copy_file.mark_committed(path, draft.path)
            with self._archive.open_journal() as journal_file:
                # Else it is being removed, or was, and archived again.
                if _identity(path) == before and copy_file.is_committed(path):
                    journal_file.append(
                        journal.MOVED,
                        dates.format_rfc3339(time.time()),
                        id=archive_id,
                        copy=name,
                        local_sha256=digest.sha256_hex(content),
                        bucket=f"s3://{self._url.bucket}/{self._url.prefix}",
                    )
                    draft.replace(path)
                    files.sync_directory(files.parent_directory(path))
        finally:
            draft.discard()


def header_file(path: str, sha256: str) -> bytes:
    """Return the file that takes the place of a copy: all up to the header's end.

    sha256 is that of the copy.
    """
    chunks = copy_file.decompress(path, copy_file.copy_limit(header.HEAD_LIMIT))
    head, start = copy_file.read_head(chunks)
    while (end := head.find(END_OF_HEADER, start)) < 0:
        chunk = next(chunks, b"")
        if not chunk or len(head) - start > header.HEAD_LIMIT:
            break
        head += chunk
    head = head[: end + len(END_OF_HEADER)] if end >= 0 else head
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"".join(
        (
            copy_file.MOVED_START + sha256.encode() + b"\0",
            deflate.compress(head) + deflate.flush(),
            zlib.crc32(head).to_bytes(4, "little"),
            len(head).to_bytes(4, "little"),
        )
    )


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another one with this path, None if missing."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


class Reader:
    """Reads copies that were moved, for copy_file.fetch_moved.

    Reads the configuration of the instance and connects at the first one.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._bucket: Bucket | None = None
        self._retry_at = 0.0  # monotonic
        self._failure = ""

    def fetch(self, path: str, sha256: str) -> Iterator[bytes]:
        """Yield the compressed bytes of a copy, checked before.

        Raises CopyUnreachable, at once for RETRY_SECONDS after a failure, and
        StoreFailed if the bucket does not have them.
        """
        where = "the whole copy is in the object storage"
        if time.monotonic() < self._retry_at:
            raise CopyUnreachable(f"{path}: {where}: {self._failure}")
        try:
            content = self._spooled(path, sha256)
        except StoreFailed:
            raise
        except ArchiveError as error:
            self._bucket = None  # the credentials may have changed
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._failure = str(error)
            raise CopyUnreachable(f"{path}: {where}: {error}") from error
        try:
            yield from content.chunks()
        finally:
            content.close()

    def _spooled(self, path: str, sha256: str) -> Spool:
        settings = archive_cf.load(self._directory)
        # Another thread may take it away.
        bucket = self._bucket = self._bucket or buckets.of_settings(settings)
        key = path.removeprefix(f"{settings.archive_store_directory}/")
        for version_id in _version_ids(bucket, key):
            content = Spool()
            sha = digest.sha256()
            try:
                for chunk in bucket.chunks(key, version_id):
                    sha.update(chunk)
                    spool.append(content, chunk, settings.archive_spool_directory)
            except ObjectMissing:
                continue
            if sha.hexdigest() == sha256:
                return content
            content.close()
        raise StoreFailed(
            f"{path}: the whole copy is in the object storage, which has none with its"
            " SHA-256; run postfix-archive verify --object-store"
        )


def _version_ids(bucket: Bucket, key: str) -> Iterable[str]:
    """Yield the ids of versions to try: the newest first, which is ""."""
    yield ""
    for version in remote_journal.other_versions(bucket, key):
        yield version.version_id
