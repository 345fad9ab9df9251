"""Write-through: a copy goes straight into the store, without a capsule in the queue.

Used by front/stamp_filter, once Postfix has said that it can take the original back.
Does what the archive transport would do with the capsule, in a process of its own, so
that mail waits no longer than archive_write_through_time_limit. Whatever is wrong then,
a store that is full, locked or slow, raises NotAtOnce: the capsule is queued, and the
archive transport does all of it again. Both bear one key: the store has it once.
"""

from __future__ import annotations

import marshal
import posix as os
from _signal import alarm

from postfix_archive.back import aside, spool
from postfix_archive.core import capsule, envelope
from postfix_archive.core.errors import NotAtOnce
from postfix_archive.front import archive_transport, pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.envelope import Envelope
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.settings import Settings
    from postfix_archive.front.pipe import Run

PAUSED = "store-slow"  # in archive_fallback_directory: since when it is not asked
PAUSE = 60  # seconds: mail does not wait for a store that is known to be slow
MODE = 0o600


class Through:
    """The way straight into the store, for one message or, of a worker, for many."""

    __slots__ = ("_mate", "_settings")

    def __init__(self, settings: Settings, keys: Keyring) -> None:
        self._settings = settings
        self._mate = aside.Mate(lambda told: _kept(told, settings, keys))

    def archived(self, run: Run, sealed: Envelope) -> str:
        """Archive the message of a run; return what the postmaster must see of it.

        Durable on return. Raises NotAtOnce where a capsule has to be queued.
        """
        if run.message.size > spool.MEMORY_LIMIT:
            raise NotAtOnce("it is large")
        pause = f"{self._settings.archive_fallback_directory}/{PAUSED}"
        if _is_paused(pause, run.now):
            raise NotAtOnce("the store was slow")
        original = b"".join(run.message.pieces())
        told = marshal.dumps((run.now, envelope.serialise(sealed), original))
        try:
            limit = self._settings.archive_write_through_time_limit
            return self._mate.done(told, limit)
        except NotAtOnce:
            _pause(pause)
            raise


def _kept(told: bytes, settings: Settings, keys: Keyring) -> str:
    """Archive what archived() was given, in the other process."""
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


def _is_paused(path: str, now: int) -> bool:
    try:
        return abs(now - os.lstat(path).st_mtime) < PAUSE
    except OSError:
        return False


def _pause(path: str) -> None:
    """Note that the store is not to be asked for a while; unnoted, it is asked."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        opened = os.open(path, flags, MODE)
        try:
            os.utime(opened)
        finally:
            os.close(opened)
    except OSError:
        pass
