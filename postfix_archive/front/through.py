"""Write-through: puts an archive copy into the store without a queued capsule.

Used by stamp_filter/capture after Postfix has accepted the envelope for reinjection.
Does the work of the archive transport in a child process, so that mail waits no longer
than archive_write_through_time_limit. Raises WriteThroughFailed if the store is full,
locked or slow; the caller then queues a capsule, and the archive transport does all the
work again. Both have the same capsule key, so the store keeps one record.
"""

from __future__ import annotations

import marshal
from _signal import alarm

from postfix_archive.back import aside, patience, spool
from postfix_archive.core import capsule, envelope
from postfix_archive.core.errors import WriteThroughFailed, WriteThroughTimeout
from postfix_archive.front import archive_transport, pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.envelope import Envelope
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.settings import Settings
    from postfix_archive.front.pipe import Transaction


class WriteThrough:
    """Writes archive copies through to the store: of one message, or of a worker's."""

    __slots__ = ("_time_limit", "_child", "_slow_marker")

    def __init__(self, settings: Settings, keys: Keyring) -> None:
        time_limit = settings.archive_write_through_time_limit
        # At most half, since after a timeout there must be time to queue a capsule.
        self._time_limit = min(time_limit, settings.archive_time_limit // 2)
        self._slow_marker = patience.SlowStoreMarker(
            settings.archive_spool_directory, settings.archive_store_directory
        )
        self._child = aside.ChildProcess(
            lambda payload: _archive_in_child(payload, settings, keys)
        )

    def archive(self, transaction: Transaction, sealed_envelope: Envelope) -> str:
        """Store the archive copy of a message; return the alarms for the log, or "".

        Durable on return. Raises WriteThroughFailed: then queue a capsule.
        """
        if transaction.message.size > spool.MEMORY_LIMIT:
            raise WriteThroughFailed("it is large")
        if self._slow_marker.is_recent(transaction.now):
            raise WriteThroughFailed("the store was slow")
        original = b"".join(transaction.message.chunks())
        payload = marshal.dumps(
            (transaction.now, envelope.serialise(sealed_envelope), original)
        )
        try:
            return self._child.call(payload, self._time_limit)
        except WriteThroughTimeout:
            self._slow_marker.touch()
            raise


def _archive_in_child(payload: bytes, settings: Settings, keys: Keyring) -> str:
    """Store, in the child process, what WriteThrough.archive() has sent to it."""
    now, fields, original = marshal.loads(payload)
    message = spool.Spool()
    message.add(original, settings.archive_spool_directory)
    job = archive_transport.ArchiveJob(message, settings, keys, now)
    opened_capsule = capsule.from_fields(fields)
    sha256 = opened_capsule.envelope.sha256
    pipe.set_deadline(settings.archive_time_limit)
    try:
        captured = archive_transport.CapturedMessage(
            job, opened_capsule, sha256, message.shape()
        )
        alarms, _ = archive_transport.archive_captured(captured)
        return "; ".join(alarms)
    finally:
        alarm(0)
