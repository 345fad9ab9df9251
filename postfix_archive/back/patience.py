"""Remembers that the store was slow, so that mail does not wait for it for a minute.

Used by stamp_filter/write_through. The marker is a file in archive_spool_directory,
which is on a local disk; the file system of the store, or of the fallback directory,
may be the one that hangs. A marker of another user is ignored. Failure to create one is
ignored too: then the next message waits again.
"""

from __future__ import annotations

import posix as os

from postfix_archive.core import digest

SLOW_STORE_PAUSE = 60  # seconds without write-through after a timeout
MARKER_MODE = 0o600
MARKER_DIGITS = (
    16  # of the SHA-256 of the store's path: instances may share a directory
)


class SlowStoreMarker:
    """The marker file for one store; each user has its own."""

    __slots__ = ("path",)

    def __init__(self, spool_directory: str, store_directory: str) -> None:
        store_digest = digest.sha256_hex(store_directory.encode())[:MARKER_DIGITS]
        self.path = f"{spool_directory}/.postfix-archive-{store_digest}.slow"

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
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags, MARKER_MODE)
            try:
                os.utime(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            pass
