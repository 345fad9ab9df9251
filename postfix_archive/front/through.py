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
from postfix_archive.core.errors import NotAtOnce, TooLate
from postfix_archive.front import archive_transport, pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.envelope import Envelope
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.settings import Settings
    from postfix_archive.front.pipe import Run


class Through:
    """Writes archive copies through to the store: of one message, or of a worker's."""

    __slots__ = ("_limit", "_mate", "_patience")

    def __init__(self, settings: Settings, keys: Keyring) -> None:
        limit = settings.archive_write_through_time_limit
        # At most half, since after a timeout there must be time to queue a capsule.
        self._limit = min(limit, settings.archive_time_limit // 2)
        self._patience = patience.Patience(
            settings.archive_spool_directory, settings.archive_store_directory
        )
        self._mate = aside.Mate(lambda told: _kept(told, settings, keys))

    def archived(self, run: Run, sealed: Envelope) -> str:
        """Store the archive copy of a message; return the alarms for the log, or "".

        Durable on return. Raises WriteThroughFailed: then queue a capsule.
        """
        if run.message.size > spool.MEMORY_LIMIT:
            raise NotAtOnce("it is large")
        if self._patience.is_over(run.now):
            raise NotAtOnce("the store was slow")
        original = b"".join(run.message.pieces())
        told = marshal.dumps((run.now, envelope.serialise(sealed), original))
        try:
            return self._mate.done(told, self._limit)
        except TooLate:
            self._patience.lose()
            raise


def _kept(told: bytes, settings: Settings, keys: Keyring) -> str:
    """Store, in the child process, what WriteThrough.archive() has sent to it."""
    now, fields, original = marshal.loads(told)
    message = spool.Spool()
    message.add(original, settings.archive_spool_directory)
    case = archive_transport.Case(message, settings, keys, now)
    opened = capsule.unsent(fields)
    digest = opened.envelope.digest
    pipe.set_deadline(settings.archive_time_limit)
    try:
        work = archive_transport.Work(case, opened, digest, message.shape())
        loud, _ = archive_transport.kept(work)
        return "; ".join(loud)
    finally:
        alarm(0)
