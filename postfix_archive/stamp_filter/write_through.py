"""Write-through: puts an archive copy into the store without a queued capsule.

Used by stamp_filter/capture after Postfix has accepted the envelope for reinjection.
Does the work of the archive transport in a child process, so that mail waits no longer
than archive_write_through_time_limit. Raises WriteThroughFailed if the store is full,
locked or slow; the caller then queues a capsule, and the archive transport does all the
work again. Both have the same capsule key, so the store keeps one record.

TimeLimitedCalls are used by stamp_filter/native_capture as well.
"""

from __future__ import annotations

import marshal
from _signal import alarm

from postfix_archive.archive_transport import archive_job, transport
from postfix_archive.errors import WriteThroughSkipped, WriteThroughTimeout
from postfix_archive.message import capsule, digest, envelope
from postfix_archive.system import child_process, deadline, spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from postfix_archive.config.settings import Settings
    from postfix_archive.message.envelope import Envelope
    from postfix_archive.message.keyring import Keyring
    from postfix_archive.system.spool import Spool

SLOW_STORE_PAUSE = 60  # seconds without write-through after a timeout
# Of the SHA-256 of the store's path: instances may share a directory.
MARKER_DIGITS = 16


class TimeLimitedCalls:
    """Calls a function that uses the store, in a child process, for some seconds.

    After a timeout it is not called for SLOW_STORE_PAUSE, by any process of this user.
    """

    __slots__ = ("_child", "_slow_marker", "_time_limit")

    def __init__(
        self, function: Callable[[bytes], str], settings: Settings, time_limit: int
    ) -> None:
        # At most half, since after a timeout there must be time to queue a capsule.
        self._time_limit = min(time_limit, settings.archive_time_limit // 2)
        store_digest = digest.sha256_hex(settings.archive_store_directory.encode())
        self._slow_marker = spool.FailureMarker(
            settings.archive_spool_directory,
            f".postfix-archive-{store_digest[:MARKER_DIGITS]}.slow",
            SLOW_STORE_PAUSE,
        )
        self._child = child_process.ChildProcess(
            function, settings.archive_spool_directory
        )

    def require_fast_store(self, now: int) -> None:
        """Raise WriteThroughSkipped if the store was slow a moment ago."""
        if self._slow_marker.is_recent(now):
            raise WriteThroughSkipped("the store was slow")

    def call(self, payload: bytes) -> str:
        """Return the result for payload. Raises WriteThroughFailed with the reason."""
        try:
            return self._child.call(payload, self._time_limit)
        except WriteThroughTimeout:
            self._slow_marker.touch()
            raise


class WriteThrough:
    """Writes archive copies through to the store: of one message, or of a worker's."""

    __slots__ = ("_calls",)

    def __init__(self, settings: Settings, keys: Keyring) -> None:
        self._calls = TimeLimitedCalls(
            lambda payload: _archive_in_child(payload, settings, keys),
            settings,
            settings.archive_write_through_time_limit,
        )

    def archive(self, message: Spool, sealed_envelope: Envelope, now: int) -> list[str]:
        """Store the archive copy of a message; return the alarms for the log.

        now is Unix time. Durable on return. Raises WriteThroughFailed: then queue a
        capsule.
        """
        if message.size > spool.MEMORY_LIMIT:
            raise WriteThroughSkipped("it is large")
        self._calls.require_fast_store(now)
        original = b"".join(message.chunks())
        payload = marshal.dumps((now, envelope.serialise(sealed_envelope), original))
        return self._calls.call(payload).split()


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
