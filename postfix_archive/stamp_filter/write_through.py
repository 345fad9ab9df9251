"""Write-through: puts an archive copy into the store without a queued capsule.

Used by stamp_filter/capture after Postfix has accepted the envelope for reinjection.
Does the work of the archive transport in a child process, so that mail waits no longer
than archive_write_through_time_limit. Raises WriteThroughFailed if the store is full,
locked or slow; the caller then queues a capsule, and the archive transport does all the
work again. Both have the same capsule key, so the store keeps one record.
"""

from __future__ import annotations

import marshal
import posix as os
from _signal import alarm

from postfix_archive.archive_transport import archive_job, transport
from postfix_archive.errors import WriteThroughSkipped, WriteThroughTimeout
from postfix_archive.message import capsule, digest, envelope
from postfix_archive.system import child_process, deadline, files, spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.config.settings import Settings
    from postfix_archive.message.envelope import Envelope
    from postfix_archive.message.keyring import Keyring
    from postfix_archive.system.spool import Spool


class WriteThrough:
    """Writes archive copies through to the store: of one message, or of a worker's."""

    __slots__ = ("_time_limit", "_child", "_slow_marker")

    def __init__(self, settings: Settings, keys: Keyring) -> None:
        time_limit = settings.archive_write_through_time_limit
        # At most half, since after a timeout there must be time to queue a capsule.
        self._time_limit = min(time_limit, settings.archive_time_limit // 2)
        self._slow_marker = SlowStoreMarker(
            settings.archive_spool_directory, settings.archive_store_directory
        )
        self._child = child_process.ChildProcess(
            lambda payload: _archive_in_child(payload, settings, keys),
            settings.archive_spool_directory,
        )

    def archive(self, message: Spool, sealed_envelope: Envelope, now: int) -> list[str]:
        """Store the archive copy of a message; return the alarms for the log.

        now is Unix time. Durable on return. Raises WriteThroughFailed: then queue a
        capsule.
        """
        if message.size > spool.MEMORY_LIMIT:
            raise WriteThroughSkipped("it is large")
        if self._slow_marker.is_recent(now):
            raise WriteThroughSkipped("the store was slow")
        original = b"".join(message.chunks())
        payload = marshal.dumps((now, envelope.serialise(sealed_envelope), original))
        try:
            return self._child.call(payload, self._time_limit).split()
        except WriteThroughTimeout:
            self._slow_marker.touch()
            raise


def _archive_in_child(payload: bytes, settings: Settings, keys: Keyring) -> str:
    """Store, in the child process, what WriteThrough.archive() has sent to it."""
    now, fields, original = marshal.loads(payload)
    message = spool.Spool()
    message.add(original, settings.archive_spool_directory)
    job = archive_job.ArchiveJob(message, settings, keys, now)
    opened_capsule = capsule.from_fields(fields)
    sha256 = opened_capsule.envelope.sha256
    deadline.set_deadline(settings.archive_time_limit)
    try:
        captured = archive_job.CapturedMessage(
            job, opened_capsule, sha256, message.shape()
        )
        return " ".join(transport.archive_captured(captured).alarms)
    finally:
        alarm(0)


SLOW_STORE_PAUSE = 60  # seconds without write-through after a timeout
# Of the SHA-256 of the store's path: instances may share a directory.
MARKER_DIGITS = 16


class SlowStoreMarker:
    """The marker file for one store; each user has its own."""

    __slots__ = ("_directory", "_name")

    def __init__(self, spool_directory: str, store_directory: str) -> None:
        store_digest = digest.sha256_hex(store_directory.encode())[:MARKER_DIGITS]
        self._directory = spool_directory
        self._name = f".postfix-archive-{store_digest}.slow"

    @property
    def path(self) -> str:
        """The path of the file, which may not exist. Raises OSError."""
        return spool.own_path(self._directory, self._name)

    def is_recent(self, now: int) -> bool:
        """Tell whether the store has been slow in the last SLOW_STORE_PAUSE seconds."""
        try:
            stat = os.lstat(self.path)
        except OSError:
            return False
        return (
            stat.st_uid == os.geteuid() and abs(now - stat.st_mtime) < SLOW_STORE_PAUSE
        )

    def touch(self) -> None:
        """Note that the store has not answered in time."""
        try:
            files.touch(self.path)
        except OSError:
            pass  # the directory cannot be read
