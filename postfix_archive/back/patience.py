"""Remembers that the store was slow, so that mail does not wait for it for a minute.

Used by stamp_filter/write_through. The marker is a file in archive_spool_directory,
which is on a local disk; the file system of the store, or of the fallback directory,
may be the one that hangs. A marker of another user is ignored. Failure to create one is
ignored too: then the next message waits again.
"""

from __future__ import annotations

import posix as os

from postfix_archive.core import digest

PAUSE = 60  # seconds without write-through after a timeout
MODE = 0o600
DIGITS = 16  # of the SHA-256 of the store's path: instances may share a directory


class Patience:
    """The marker file for one store; each user has its own."""

    __slots__ = ("path",)

    def __init__(self, spool_directory: str, store_directory: str) -> None:
        named = digest.hex_of(store_directory.encode())[:DIGITS]
        self.path = f"{spool_directory}/.postfix-archive-{named}.slow"

    def is_over(self, now: int) -> bool:
        """Tell whether the store has been slow in the last SLOW_STORE_PAUSE seconds."""
        try:
            told = os.lstat(self.path)
        except OSError:
            return False
        return told.st_uid == os.geteuid() and abs(now - told.st_mtime) < PAUSE

    def lose(self) -> None:
        """Note that the store has not answered in time."""
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            opened = os.open(self.path, flags, MODE)
            try:
                os.utime(opened)
            finally:
                os.close(opened)
        except OSError:
            pass
